"""A plan: everything that the executor needs for one model on one ISA, as numbers and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph.ir import DType, Shape
from ..kernels.step import KernelKey
from ..machine import Machine


@dataclass(frozen=True)
class Port:
    """One input or output of the model: its shape has BATCH in axis 0 or is fixed."""

    name: str
    shape: Shape
    dtype: DType


@dataclass(frozen=True)
class StepInfo:
    """What a step is, for people: the node it came from, its kernel, and its costs per image.

    macs: multiply-adds. weight_bytes: packed size. activation_bytes: what it reads and writes once.
    """

    node: str
    kernel: str
    shape: str
    macs: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Plan:
    """Numbers and arrays for the executor, names and costs for people.

    steps: records of dtype `kernels.step.STEP`, their kernels by index into `kernels`. info_of_step: index into
    `infos` of each step; a step that runs in chunks of the batch is there once per chunk. arena_size: float32 elements
    of values; scratch_size: more of them behind those, for each thread.

    constants: (offset, array) to be written into the arena once. pixel_steps: the same steps for raw uint8 pixels in
    place of the first input, or None if the plan was made without pixels.
    """

    model: str
    machine: Machine
    max_batch: int
    batched: bool
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    kernels: tuple[KernelKey, ...]
    steps: npt.NDArray[Any]
    pixel_steps: npt.NDArray[Any] | None
    info_of_step: tuple[int, ...]
    infos: tuple[StepInfo, ...]
    weights: npt.NDArray[np.float32]
    tables: npt.NDArray[np.int32]
    arena_size: int
    scratch_size: int
    constants: tuple[tuple[int, npt.NDArray[np.float32]], ...]

    def arena_elements(self, threads: int) -> int:
        """float32 elements of the arena of a session: values, and scratch memory for each thread."""
        return self.arena_size + threads * self.scratch_size

    def owned_bytes(self, threads: int) -> int:
        """Memory of a session: packed weights, tables and arena."""
        return int(self.weights.nbytes + self.tables.nbytes + 4 * self.arena_elements(threads))
