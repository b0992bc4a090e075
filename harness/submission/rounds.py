"""The rules of a round as data: one TOML file per round in `rounds/`, read into a record.

A new round is a new file. What LoadGen itself enforces (seeds, durations) stands there too, because checkers compare
logs with it; tests compare the present round's file with what is compiled into LoadGen.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from ..config import ComplianceTest, Scenario
from ..errors import BadInputError

Division: TypeAlias = Literal["closed", "open"]

_FOLDER: Final = Path(__file__).parent / "rounds"
ROUNDS: Final = tuple(sorted((path.stem for path in _FOLDER.glob("*.toml")), reverse=True))
"""Names of the rounds that are known, the latest first."""


@dataclass(frozen=True)
class Limits:
    """Numbers that logs and files are held against; units are in the names."""

    performance_sample_count: int
    accuracy_sample_count: int
    min_duration_ms: int
    offline_samples_per_query: int
    server_target_latency_ns: int
    accuracy_percent: float
    accuracy_log_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Layout:
    """Where things lie below <division>/<submitter>/."""

    source: str
    system: str
    results: str
    measurements: str
    compliance: str
    calibration: str


@dataclass(frozen=True)
class Fields:
    """Keys of a JSON file: those that must say something, those that must be there, those that must be integers."""

    filled: tuple[str, ...]
    present: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    """A round of MLPerf Inference, as far as it concerns ResNet50.

    scenarios: of the closed division by system type, all required and no others allowed.
    inferred: measured scenario -> those whose results may be inferred from it.
    """

    name: str
    benchmark: str
    compliance_tests: tuple[ComplianceTest, ...]
    system_status: tuple[str, ...]
    calibration_required: bool
    seeds: Mapping[str, int]
    scenarios: Mapping[str, tuple[Scenario, ...]]
    inferred: Mapping[Scenario, tuple[Scenario, ...]]
    limits: Limits
    layout: Layout
    system: Fields
    measurements: Fields

    def scenarios_of(self, system_type: str) -> tuple[Scenario, ...]:
        """Of the closed division. Raises: BadInputError for a type that this benchmark has not."""
        if system_type not in self.scenarios:
            raise BadInputError(
                f"system type {system_type!r}: {self.benchmark} has none in the closed division of {self.name}; it has "
                f"{' and '.join(self.scenarios)}"
            )
        return self.scenarios[system_type]


def load_round(name: str) -> Round:
    """Read a round's file. Raises: BadInputError for an unknown name."""
    if name not in ROUNDS:
        raise BadInputError(f"round {name!r} is none of those known: {', '.join(ROUNDS)}")
    data = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return Round(
        name=data["name"],
        benchmark=data["benchmark"],
        compliance_tests=tuple(data["compliance_tests"]),
        system_status=tuple(data["system_status"]),
        calibration_required=data["calibration_required"],
        seeds={key: int(value) for key, value in data["seeds"].items()},
        scenarios={key: tuple(value) for key, value in data["scenarios"].items()},
        inferred={key: tuple(value) for key, value in data["inferred"].items()},
        limits=Limits(**data["limits"]),
        layout=Layout(**data["layout"]),
        system=_fields(data["system"]),
        measurements=_fields(data["measurements"]),
    )


def read_toml(path: Path, flag: str) -> dict[str, Any]:
    """A user's TOML file. Raises: BadInputError, naming the flag it came by."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise BadInputError(f"{flag} {path}: {reason}") from error
    return data


def _fields(data: Mapping[str, list[str]]) -> Fields:
    return Fields(**{key: tuple(value) for key, value in data.items()})
