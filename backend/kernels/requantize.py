"""What becomes of sums of integers before they are stored: float32 arithmetic, each operation rounded by itself.

    t = float32(sum) * scale[c]
    t = rint(clip(t, inner_low, inner_high)) * inner_scale       only if the step says `inner`
    t = t + (b - b_zero) * b_scale                               only if there is a b
    y = rint(clip(t, low, high)) + zero                          y of bytes
    y = clip(t, low, high)                                       y of float32

No multiply-add is fused, so that the result is the same on every instruction set. The bounds keep y within its type.
`scale` stands among the weights, one float32 per channel, and so do the NUMBERS.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..simd.element import UINT8, Element
from ..simd.integers import nearest_integers, packed_bytes, packed_unpacked, to_floats
from ..simd.memory import write_elements
from ..simd.vector import I32, I64, clip_vector, load_vector, splat_vector, store_vector
from .step import NUMBERS


class Requantizer:
    """Emits the formula's pieces for vectors of one ISA. numbers: pointer to float32, see NUMBERS."""

    def __init__(self, builder: Any, isa: Any, numbers: Any) -> None:
        self.builder, self.isa, self.numbers = builder, isa, numbers

    def _number(self, name: str) -> Any:
        return self.builder.load(self.builder.gep(self.numbers, [I64(NUMBERS.index(name))]))

    def _splat(self, name: str) -> Any:
        return splat_vector(self.builder, self._number(name), self.isa.lanes)

    def scaled(self, sums: list[list[Any]], scale: Any) -> list[list[Any]]:
        """Rows of vectors of int32 times the scales from a pointer on."""
        builder, lanes = self.builder, self.isa.lanes
        scales = [load_vector(builder, builder.gep(scale, [I64(n * lanes)]), lanes) for n in range(len(sums[0]))]
        return [[builder.fmul(to_floats(builder, v), s) for v, s in zip(row, scales, strict=True)] for row in sums]

    def rounded_inside(self, rows: list[list[Any]]) -> list[list[Any]]:
        """The model's own quantisation before an add."""
        builder = self.builder
        low, high, scale = self._splat("inner_low"), self._splat("inner_high"), self._splat("inner_scale")
        return [
            [
                builder.fmul(to_floats(builder, nearest_integers(builder, clip_vector(builder, v, low, high))), scale)
                for v in row
            ]
            for row in rows
        ]

    def added(self, rows: list[list[Any]], others: list[list[Any]]) -> list[list[Any]]:
        """Plus b, whose vectors are float32 of stored numbers."""
        builder, zero, scale = self.builder, self._splat("b_zero"), self._splat("b_scale")
        return [
            [builder.fadd(v, builder.fmul(builder.fsub(b, zero), scale)) for v, b in zip(row, other, strict=True)]
            for row, other in zip(rows, others, strict=True)
        ]

    def write(self, rows: list[list[Any]], places: list[Any], element: Element, unpacked: bool = False) -> None:
        """Each row of vectors to its place, a pointer to elements of y.

        unpacked: rows of four vectors to bytes, whose channels are in the order that unpacking left.
        """
        builder, lanes = self.builder, self.isa.lanes
        low, high = self._splat("low"), self._splat("high")
        flat = [(m, n, clip_vector(builder, v, low, high)) for m, row in enumerate(rows) for n, v in enumerate(row)]
        if element != UINT8:
            for m, n, vector in flat:
                write_elements(builder, self.isa, element, vector, builder.gep(places[m], [I64(n * lanes)]))
            return
        zero = builder.fptosi(self._number("zero"), I32)
        if unpacked:
            for first in range(0, len(flat), 4):
                group = [nearest_integers(builder, vector) for _, _, vector in flat[first : first + 4]]
                store_vector(builder, packed_unpacked(builder, group, zero), places[first // 4], 1)
            return
        for first in range(0, len(flat), 4):
            group = flat[first : first + 4]
            packed = packed_bytes(builder, [nearest_integers(builder, vector) for _, _, vector in group], zero)
            for (m, n), run in _runs([(m, n) for m, n, _ in group], packed):
                store_vector(builder, _joined(builder, run), builder.gep(places[m], [I64(n * lanes)]), 1)


def _runs(where: list[tuple[int, int]], vectors: list[Any]) -> list[tuple[tuple[int, int], list[Any]]]:
    """Vectors that lie side by side in one row, together: two and two, or four, so that stores are of such sizes."""
    runs: list[tuple[tuple[int, int], list[Any]]] = []
    index = 0
    while index < len(where):
        m, n = where[index]
        length = 1
        while index + length < len(where) and where[index + length] == (m, n + length):
            length += 1
        length = 4 if length == 4 else 2 if length >= 2 else 1
        runs.append(((m, n), vectors[index : index + length]))
        index += length
    return runs


def _joined(builder: Any, vectors: list[Any]) -> Any:
    """One vector of one, two or four."""
    while len(vectors) > 1:
        count = 2 * vectors[0].type.count
        mask = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        vectors = [builder.shuffle_vector(a, b, mask) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]
