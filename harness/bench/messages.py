"""What an engine's process and its parent tell each other. Plain picklable records.

Imports nothing that imports Numba: the process that runs our engine must be free to choose the ISA first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..config import Precision
from ..placement import PinnedInstance
from .config import EngineName

Array: TypeAlias = npt.NDArray[Any]
Settings: TypeAlias = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class EngineTask:
    """Everything an engine's process needs. cpus: logical CPUs, one per thread. seed: of the random input.

    precision: None for the model's. plan: a plan file for our engine.
    """

    engine: EngineName
    model: Path
    precision: Precision | None
    batch: int
    threads: int
    cpus: tuple[int, ...]
    isa: str | None
    seed: int
    plan: Path | None


@dataclass(frozen=True)
class Opened:
    """Child: the engine is open and has run. inputs: shape by name. outputs: of the random input, in model order."""

    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[Array, ...]
    settings: Settings
    pinned: PinnedInstance


@dataclass(frozen=True)
class RunSlice:
    """Parent: run inferences for so long, after an untimed warm-up."""

    seconds: float


@dataclass(frozen=True)
class Slice:
    """Child: what it did in a slice.

    inference_s: median seconds of one inference. cpu_seconds: CPU time of all its threads within `seconds` of wall
    clock.
    """

    images: int
    seconds: float
    inference_s: float
    cpu_seconds: float


@dataclass(frozen=True)
class MeasureLayers:
    """Parent: measure the layers and the machine's roofs, to our engine only."""


@dataclass(frozen=True)
class LayerTime:
    """One layer of our engine: a step of its plan, over a whole batch.

    operations: floating-point ones, a multiply-add is two. weight_bytes: as packed. activation_bytes: read and
    written once.
    """

    node: str
    kernel: str
    shape: str
    seconds: float
    operations: int
    weight_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """What must move between memory and registers at least once."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class Layers:
    """Child: all layers, and what this machine can do with as many threads on the same CPUs."""

    layers: tuple[LayerTime, ...]
    peak_gflops: float
    bandwidth_gb_s: float
    profile_rounds: int


@dataclass(frozen=True)
class Refused:
    """Child: it cannot go on. bad_input: it is what the user gave that cannot be run."""

    text: str
    traceback: str
    bad_input: bool


def random_inputs(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Normally distributed float32, the same in every process that asks with the same shapes and seed."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shapes[name], np.float32) for name in sorted(shapes)}
