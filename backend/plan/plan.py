"""A plan: everything that the executor needs for one model on one ISA, as numbers and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..graph.ir import DType, Shape
from ..kernels.step import KernelKey
from ..machine import Machine
from ..simd.element import Element
from .memory import ModelBytes
from .precision import multiplied_element
from .record import PlanRecord
from .table import PlanRow, Roofs, plan_rows, plan_text


@dataclass(frozen=True)
class Port:
    """One input or output of the model: its shape has BATCH in axis 0 or is fixed."""

    name: str
    shape: Shape
    dtype: DType


@dataclass(frozen=True)
class StepInfo:
    """What a step is, for people: the node it came from, its kernel, and its costs per image.

    op: type of the graph's op. macs: multiply-adds of the op as it is defined; executed_macs: those of the kernel, with
    channels rounded up to whole vectors and the depth of bytes to whole words, and for Winograd those between its
    transforms. weight_bytes: packed size,
    whatever the number of images. read_bytes, written_bytes: activations, each once. links: of a chain, the ops in it.
    """

    node: str
    op: str
    kernel: str
    shape: str
    macs: int
    executed_macs: int
    weight_bytes: int
    read_bytes: int
    written_bytes: int
    links: tuple[StepInfo, ...] = ()

    @classmethod
    def moving(cls, node: str, kernel: str) -> StepInfo:
        """Of a step that belongs to no op: it only moves what one has computed."""
        return cls(node, "Move", kernel, "", 0, 0, 0, 0, 0)

    @property
    def activation_bytes(self) -> int:
        """Read and written."""
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True, eq=False)
class Plan:
    """Numbers and arrays for the executor, names and costs for people.

    steps: records of dtype `kernels.step.STEP`, their kernels by index into `kernels`. info_of_step: index into
    `infos` of each step; a step that runs in chunks of the batch is there once per chunk. arena_size: words of four
    bytes for values; scratch_size: more of them behind those, for each thread.

    constants: (offset, array) to be written into the arena once. pixel_steps: the same steps for raw uint8 pixels in
    place of the first input, or None if the plan was made without pixels.

    record: the choices that the steps follow, fit for a file. model_bytes: what the model itself needs, for comparison:
    its constants, and the most of its values that are alive at one time, for max_batch, without any padding.
    """

    model: str
    machine: Machine
    record: PlanRecord
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
    model_bytes: ModelBytes

    def __str__(self) -> str:
        return self.text()

    def text(self, threads: int = 1, roofs: Roofs | None = None) -> str:
        """A table for people: a line per step, sums, and what a session of so many threads owns.

        roofs: what expected times are computed from; None leaves them out.
        """
        return plan_text(self, threads, roofs)

    def rows(self) -> tuple[PlanRow, ...]:
        """The table's content: what runs, step by step, with the tiles and blocks that the executor will use."""
        return plan_rows(self)

    @property
    def walked(self) -> int:
        """How many of the steps the executor walks through; behind them lie the links of chains."""
        return len(self.info_of_step)

    @property
    def multiplied(self) -> Element:
        """The element type of what convolutions and dense layers multiply: the peak that they are to be set against."""
        return multiplied_element(self.record.precision)

    def arena_elements(self, threads: int) -> int:
        """Words of the arena of a session: values, and scratch memory for each thread."""
        return self.arena_size + threads * self.scratch_size

    def owned_bytes(self, threads: int) -> int:
        """Memory of a session: packed weights, tables and arena."""
        return int(self.weights.nbytes + self.tables.nbytes + 4 * self.arena_elements(threads))
