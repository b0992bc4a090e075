"""What becomes of sums of integers before they are stored: float32 arithmetic, each operation rounded by itself.

    t = float32(sum) * scale[c]
    t = rint(clip(t, inner_low, inner_high)) * inner_scale       only if the step's stages have INNER
    t = t + (b - b_zero) * b_scale                               only if there is a b
    t = clip(t, low, high)                                       only if they have CLIP
    y = saturate(rint(t) + zero)                                 y of bytes
    y = t                                                        y of float32

No multiply-add is fused, so that the result is the same on every instruction set. Without CLIP the planner knows that t
is within int32, and that its bounds are those of y's type. `scale` stands among the weights, one float32 per channel,
and so do the NUMBERS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from llvmlite import ir

from ..simd.element import UINT8, Element
from ..simd.integers import nearest_integers, packed_bytes, packed_unpacked, to_floats
from ..simd.memory import write_elements
from ..simd.vector import I32, I64, clip_vector, load_vector, splat_vector, store_vector
from .step import CLIP, INNER, NUMBERS

_Rows: TypeAlias = list[list[Any]]


class Requantizer:
    """Emits the formula's pieces for vectors of one ISA. numbers: pointer to float32, see NUMBERS."""

    def __init__(self, builder: Any, isa: Any, numbers: Any) -> None:
        self.builder, self.isa, self.numbers = builder, isa, numbers

    def _number(self, name: str) -> Any:
        return self.builder.load(self.builder.gep(self.numbers, [I64(NUMBERS.index(name))]))

    def _splat(self, name: str) -> Any:
        return splat_vector(self.builder, self._number(name), self.isa.lanes)

    def result(self, sums: _Rows, scale: Any, stages: Any, has_b: Any, b_rows: Callable[[], _Rows] | None) -> _Rows:
        """t of rows of vectors of int32. scale: pointer to those of a row. b_rows: emits the loads of b as float32."""
        builder = self.builder
        rows = self._scaled(sums, scale)
        rows = self._only_if(self._has(stages, INNER), self._rounded_inside, rows)
        if b_rows is not None:
            rows = self._only_if(builder.icmp_signed("!=", has_b, I64(0)), lambda t: self._added(t, b_rows()), rows)
        return self._only_if(self._has(stages, CLIP), self._clipped, rows)

    def _has(self, stages: Any, stage: int) -> Any:
        return self.builder.icmp_signed("!=", self.builder.and_(stages, I64(stage)), I64(0))

    def _only_if(self, condition: Any, change: Callable[[_Rows], _Rows], rows: _Rows) -> _Rows:
        builder, before = self.builder, self.builder.block
        changing, joined = builder.append_basic_block("stage"), builder.append_basic_block("staged")
        builder.cbranch(condition, changing, joined)
        builder.position_at_end(changing)
        changed, after = change(rows), builder.block
        builder.branch(joined)
        builder.position_at_end(joined)
        results = []
        for row, changed_row in zip(rows, changed, strict=True):
            results.append([builder.phi(vector.type) for vector in row])
            for phi, old, new in zip(results[-1], row, changed_row, strict=True):
                phi.add_incoming(old, before)
                phi.add_incoming(new, after)
        return results

    def _scaled(self, sums: _Rows, scale: Any) -> _Rows:
        """Rows of vectors of int32 times the scales from a pointer on."""
        builder, lanes = self.builder, self.isa.lanes
        scales = [load_vector(builder, builder.gep(scale, [I64(n * lanes)]), lanes) for n in range(len(sums[0]))]
        return [[builder.fmul(to_floats(builder, v), s) for v, s in zip(row, scales, strict=True)] for row in sums]

    def _rounded_inside(self, rows: _Rows) -> _Rows:
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

    def _added(self, rows: _Rows, others: _Rows) -> _Rows:
        """Plus b, whose vectors are float32 of stored numbers."""
        builder, zero, scale = self.builder, self._splat("b_zero"), self._splat("b_scale")
        return [
            [builder.fadd(v, builder.fmul(builder.fsub(b, zero), scale)) for v, b in zip(row, other, strict=True)]
            for row, other in zip(rows, others, strict=True)
        ]

    def _clipped(self, rows: _Rows) -> _Rows:
        low, high = self._splat("low"), self._splat("high")
        return [[clip_vector(self.builder, vector, low, high) for vector in row] for row in rows]

    def write(self, rows: _Rows, places: list[Any], element: Element, unpacked: bool = False) -> None:
        """Each row of vectors to its place, a pointer to elements of y.

        unpacked: rows of four vectors to bytes, whose channels are in the order that unpacking left.
        """
        builder, lanes = self.builder, self.isa.lanes
        flat = [(m, n, vector) for m, row in enumerate(rows) for n, vector in enumerate(row)]
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
