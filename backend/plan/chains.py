"""Chains: consecutive ops that run band by band, so that what lies between them never leaves a core's cache.

A unit of a chain is a part of the last op's output rows. It is worked through in bands of a few rows: each op computes
the rows that the next one's windows need, into memory of the worker's own, and keeps the rows that windows of two bands
share. Only where two parts meet are rows computed twice. A value that is also read elsewhere, a later residual, is
written to where it lies anyhow, and read from there while it is warm. Behind it a chain goes on row by row, so that all
of its rows are written, each by one part. Pure; changes no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..graph.ir import Conv, Graph, Op, reads

_TWICE: Final = 1 / 8
"""The share of the first op's rows that may be computed twice, where parts meet. A plan does not know its team: more
parts feed more threads."""

_FEWEST_ROWS: Final = 3
"""Output rows of a part, at least: in lower bands the last tile, which is not full, counts for more."""


@dataclass(frozen=True)
class Chain:
    """ops[first:last] run in `parts` units, each of them `rows` output rows of the last op at a time."""

    first: int
    last: int
    parts: int
    rows: int


@dataclass(frozen=True)
class Window:
    """Which input rows an op reads: output row r those from r * stride - pad on, `size` of them."""

    stride: int
    pad: int
    size: int

    def read(self, begin: int, end: int) -> tuple[int, int]:
        """The input rows that the output rows [begin, end) are made from; rows outside the picture are padding."""
        return begin * self.stride - self.pad, (end - 1) * self.stride - self.pad + self.size


ROW_BY_ROW: Final = Window(1, 0, 1)
"""Each row is read by the output row of its number, and by no other."""


@dataclass(frozen=True)
class Rows:
    """What one op does in a band: it computes the rows [begin, end) of its output.

    held: rows of its output, padding included, that are in memory afterwards, for the next op. kept: how many of them,
    the first ones, the band before has left; they lie `shift` rows further on and are moved first. The last op's output
    is not held.
    """

    begin: int
    end: int
    held: tuple[int, int] = (0, 0)
    kept: int = 0
    shift: int = 0


def window_of(op: Conv, kernel_h: int) -> Window:
    """A convolution's."""
    return Window(op.strides[0], op.pads[0], (kernel_h - 1) * op.dilations[0] + 1)


def cut_bands(heights: Sequence[int], windows: Sequence[Window], parts: int, rows: int) -> list[list[list[Rows]]]:
    """[part][band][op]. heights: of each op's output; windows: of each op; rows: most rows of a band."""
    height = heights[-1]
    cut = []
    for part in range(parts):
        first, last = height * part // parts, height * (part + 1) // parts
        count = -(-(last - first) // rows)
        bands: list[list[Rows]] = []
        for number in range(count):
            bounds = (first + (last - first) * number // count, first + (last - first) * (number + 1) // count)
            band = [Rows(*bounds)]
            for index in range(len(heights) - 2, -1, -1):
                start, stop = windows[index + 1].read(band[0].begin, band[0].end)
                before = bands[-1][index].held if bands else (start, start)
                kept = max(0, before[1] - start)
                begin, end = max(start + kept, 0), min(stop, heights[index])
                band.insert(0, Rows(begin, end, (start, stop), kept, start - before[0]))
            bands.append(band)
        cut.append(bands)
    return cut


def computes_nothing(cut: list[list[list[Rows]]]) -> bool:
    """Whether some op would have no row to compute in some band: such a cut cannot be run."""
    return any(rows.begin >= rows.end for bands in cut for band in bands for rows in band)


def held_rows(cut: list[list[list[Rows]]]) -> list[int]:
    """The most rows of each op's output that are held at once; of the last op none."""
    return [
        max(band[index].held[1] - band[index].held[0] for bands in cut for band in bands)
        for index in range(len(cut[0][0]))
    ]


def hands_over(before: Op, after: Op) -> bool:
    """Whether the next op reads an op's output as its picture, and as nothing else."""
    return isinstance(after, Conv) and after.x == before.output and after.epilogue.residual != before.output


def read_once(graph: Graph, name: str) -> bool:
    """Whether a single op reads a value, and nobody outside the graph: within a chain it need not be in the arena."""
    return name not in graph.outputs and sum(name in reads(op) for op in graph.ops) == 1


def choose_bands(
    heights: Sequence[int], row_bytes: Sequence[int], windows: Sequence[Window], weight_bytes: int, l2_bytes: int
) -> tuple[int, int] | None:
    """(parts, rows) for a chain: bands as high as fit half of L2 beside all weights, which every band reads again.

    heights, row_bytes: of each op's output. None if it cannot be cut into parts at that price, or if nothing fits.
    """
    parts = _most_parts(heights, windows)
    for rows in range(-(-heights[-1] // parts), 0, -1) if parts > 1 else ():
        cut = cut_bands(heights, windows, parts, rows)
        held_bytes = sum(size * held for size, held in zip(row_bytes, held_rows(cut), strict=True))
        if not computes_nothing(cut) and held_bytes + weight_bytes <= l2_bytes // 2:
            return parts, rows
    return None


def _most_parts(heights: Sequence[int], windows: Sequence[Window]) -> int:
    """The largest power of two, so that teams share evenly, whose parts are not too low and make the first op compute
    few rows twice."""
    parts = 1
    while 2 * parts * _FEWEST_ROWS <= heights[-1]:
        computed = sum(
            bands[0][0].end - bands[0][0].begin for bands in cut_bands(heights, windows, 2 * parts, heights[-1])
        )
        if computed > heights[0] * (1 + _TWICE):
            break
        parts *= 2
    return parts
