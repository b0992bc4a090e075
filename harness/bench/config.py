"""What one bench is asked to measure, validated in one place. Made by `cli`, read by everything else here."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ..config import Precision, check_model_file
from ..errors import BadInputError

EngineName: TypeAlias = Literal["numba", "onnxruntime", "openvino"]

OURS: Final[EngineName] = "numba"
PEERS: Final[tuple[EngineName, ...]] = ("onnxruntime", "openvino")
"""Names of their Python packages, too."""

NO_PEERS: Final = "none"
DEFAULT_ROUNDS: Final = 9
DEFAULT_SLICE_S: Final = 1.0
DEFAULT_FOLDER: Final = Path("reports/bench")


@dataclass(frozen=True)
class BenchConfig:
    """One bench: a row for each of `batches` x `threads`.

    precision: of our engine, and of those peers that have it, None for the model's; onnxruntime runs a model in the
    precision of its file.
    "bf16-emulated" is for our engine: peers run in fp32 beside it.
    peers: engines beside ours. rounds: in each, every engine has one slice of `slice_s` seconds. isa: None for the
    best. plan: a plan file for our engine. layers: also the time of each layer of our engine. json_path: None for a
    dated file in DEFAULT_FOLDER.
    """

    model: Path
    precision: Precision | None
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    peers: tuple[EngineName, ...]
    rounds: int = DEFAULT_ROUNDS
    slice_s: float = DEFAULT_SLICE_S
    isa: str | None = None
    plan: Path | None = None
    layers: bool = False
    json_path: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured. Raises: BadInputError."""
        check_model_file(self.model)
        if self.plan is not None and not self.plan.is_file():
            raise BadInputError(f"--plan {self.plan}: no such file")
        if self.plan is not None and len(self.batches) > 1:
            raise BadInputError(f"--plan {self.plan} is for one batch, --batch names {len(self.batches)}: choose one")
        if self.rounds < 1:
            raise BadInputError(f"--rounds {self.rounds}: must be at least 1")
        if not 0 < self.slice_s < float("inf"):
            raise BadInputError(f"--seconds-per-round {self.slice_s}: must be greater than 0")
        for peer in self.peers:
            if importlib.util.find_spec(peer) is None:
                raise BadInputError(
                    f"--against {peer} needs the Python package {peer!r}, which is not installed: "
                    "'pip install onnxruntime openvino' installs the peers"
                )

    @property
    def engines(self) -> tuple[EngineName, ...]:
        """Ours first."""
        return (OURS, *self.peers)


def parse_counts(text: str, flag: str) -> tuple[int, ...]:
    """ "1,8" -> (1, 8). Raises: BadInputError unless it is a list of different positive integers."""
    items = [item.strip() for item in text.split(",")]
    if not all(item.isascii() and item.isdecimal() and int(item) > 0 for item in items):
        raise BadInputError(f"{flag} {text!r}: expected positive integers separated by commas, such as 1,8")
    _refuse_repeats(items, text, flag)
    return tuple(int(item) for item in items)


def parse_peers(text: str, flag: str) -> tuple[EngineName, ...]:
    """ "onnxruntime,openvino" -> their names, "none" -> (). Raises: BadInputError for unknown or repeated names."""
    items = [item.strip() for item in text.split(",")]
    if items == [NO_PEERS]:
        return ()
    _refuse_repeats(items, text, flag)
    for item in items:
        if item not in PEERS:
            raise BadInputError(f"{flag} {text!r}: {item!r} is not one of {', '.join(PEERS)}, {NO_PEERS}")
    return tuple(peer for item in items for peer in PEERS if peer == item)


def _refuse_repeats(items: list[str], text: str, flag: str) -> None:
    repeated = next((item for item in items if items.count(item) > 1), None)
    if repeated is not None:
        raise BadInputError(f"{flag} {text!r}: {repeated!r} is there twice")
