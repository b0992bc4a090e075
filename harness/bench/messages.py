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
    """Everything an engine's process needs. cpus: logical CPUs, one per thread. seed, input_ranges: of the random
    input, see `random_inputs`.

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
    input_ranges: Mapping[str, tuple[float, float]]


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


def random_inputs(
    shapes: Mapping[str, tuple[int, ...]], seed: int, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, npt.NDArray[np.float32]]:
    """float32, the same in every process that asks with the same arguments: uniform over the range of an input that has
    one, else normally distributed.

    An input that a model quantises has one: normal numbers would be but a few steps of it, and what comes out of that
    mostly the noise of rounding.
    """
    generator = np.random.default_rng(seed)
    inputs = {}
    for name in sorted(shapes):
        if name in ranges:
            low, high = ranges[name]
            inputs[name] = np.float32(low) + np.float32(high - low) * generator.random(shapes[name], np.float32)
        else:
            inputs[name] = generator.standard_normal(shapes[name], np.float32)
    return inputs
