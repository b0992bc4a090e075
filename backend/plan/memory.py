"""Lifetimes of values -> offsets in the arena: values that are never alive together may share memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lifetime:
    """A value is written at step `first` and last read at step `last`; size in elements."""

    name: str
    size: int
    first: int
    last: int


def assign_offsets(lifetimes: list[Lifetime], align: int) -> tuple[dict[str, int], int]:
    """(offset of each value, elements of the arena), offsets multiples of `align`.

    Greedy by size: the largest value first, each at the lowest offset where it meets no value alive at the same
    time (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, section 4.2).
    """
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[str, int] = {}
    for value in sorted(lifetimes, key=lambda v: (-v.size, v.first, v.name)):
        size = -(-value.size // align) * align
        offset = 0
        for start, end, other in sorted(placed, key=lambda p: p[0]):
            alive_together = value.first <= other.last and other.first <= value.last
            if alive_together and start < offset + size and offset < end:
                offset = end
        placed.append((offset, offset + size, value))
        offsets[value.name] = offset
    return offsets, max((end for _, end, _ in placed), default=0)
