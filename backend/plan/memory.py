"""Lifetimes of values -> offsets in the arena: values that are never alive together may share memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.ir import BATCH, Graph, reads
from .pack import aligned


@dataclass(frozen=True)
class Lifetime:
    """A value is written at step `first` and last read at step `last`; size in words."""

    name: str
    size: int
    first: int
    last: int


def assign_offsets(lifetimes: list[Lifetime]) -> tuple[dict[str, int], int]:
    """(offset of each value, words of the arena), offsets `aligned`.

    Greedy by size: the largest value first, each at the lowest offset where it meets no value alive at the same
    time (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, section 4.2).
    """
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for value in sorted(lifetimes, key=lambda v: (-v.size, v.first, v.name)):
        size = aligned(value.size)
        offset = 0
        for start, end, other in sorted(placed, key=lambda p: p[0]):
            alive_together = value.first <= other.last and other.first <= value.last
            if alive_together and start < offset + size and offset < end:
                offset = end
        placed.append((offset, offset + size, value))
        offsets[value.name] = offset
    return offsets, max((end for _, end, _ in placed), default=0)


@dataclass(frozen=True)
class ModelBytes:
    """What a model needs by itself. weights: all constants. activations: the most that is alive at one time."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Both."""
        return self.weights + self.activations


def model_bytes(graph: Graph, max_batch: int) -> ModelBytes:
    """Of a graph after the passes, for max_batch: logical sizes, while its ops run one after the other, batch whole."""
    values = {name: value for name, value in graph.values.items() if name not in graph.constants}
    first, last = dict.fromkeys(values, 0), dict.fromkeys(values, 0)
    for index, op in enumerate(graph.ops):
        first[op.output] = last[op.output] = index
        last |= {name: index for name in reads(op) if name in values}
    for name in graph.outputs:
        last[name] = len(graph.ops)
    sizes = {
        name: int(np.prod([max_batch if size == BATCH else size for size in value.shape], dtype=np.int64))
        * np.dtype(value.dtype).itemsize
        for name, value in values.items()
    }
    alive = [
        sum(sizes[name] for name in values if first[name] <= index <= last[name]) for index in range(len(graph.ops) + 1)
    ]
    return ModelBytes(sum(array.nbytes for array in graph.constants.values()), max(alive))
