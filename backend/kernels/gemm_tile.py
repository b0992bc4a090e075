"""The micro-kernel of implicit GEMM, emitted as LLVM vector IR for every tile shape, ISA and element type.

    C[m, n] = (C[m, n] or bias[n]) + sum over taps t, depth k of X[m, t, k] * W[t, k, n]
    C[m, n] = clip(C[m, n] + residual[m, n], low, high)           if this is the last block of K

for MR output pixels m and NR vectors of output channels n, in float32, or in int32 if x is of bytes: then
requantize.py says what the last block of K does in place of the second line. Accumulators stay in registers over all
taps; each output element is one chain of dot products (simd/dot.py) in ascending (t, word of k), so neither the tile's
shape nor the cut of K into blocks changes a bit of the result.

Operands (offsets of x, y and residual in their own elements, others in words of four bytes):
  x        X[m, t, k] is x[x_offset + table[x_rows + m] + table[taps + t] + k]: rows by table, depth contiguous.
  w        packed [t][word of k][NR * lanes][element of the word], 64-byte aligned, zeros behind the last k.
  y        C[m, n] is y[y_offset + table[y_rows + m] + n]. Whole vectors are written.
  sums     where C waits between blocks of K: y itself if that is float32 (and `sums` means nothing), else MR rows of
           NR * lanes words. Written if not `last`, read if not `first`. (Of float32 or bfloat16, where they
           wait in y, any block may be a `last` one without residual and with bounds of -inf and inf: no bit changes,
           nor a NaN.)
  residual like y, by its own offset and rows; read only if `last` and has_residual.
  bias     NR * lanes words at w[bias]; read only if `first`.
  scale, numbers, stages  of a step with bytes for x: see requantize.py.
  prefetch w[prefetch + i * prefetch_step] is fetched into L2 during iteration i over depth (as many lines as the tag
           says, but no more than an iteration uses itself, or two); the planner points it at the weights that are
           needed next.
Weights are fetched into L1 a little ahead of their use.
The rows of y, and of residual if it will be added, are prefetched into L1 before the first multiply-add.
x, y, sums and residual lie in one array, the arena. Rows may repeat (the last tile of a picture does): equal values are
written to the same place.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.dot import Dot
from ..simd.element import BFLOAT16, FLOAT32, UINT8, Element
from ..simd.memory import operand_pointer, read_elements, write_elements
from ..simd.vector import I32, I64, clip_vector, element_pointer, load_vector, splat_vector, store_vector
from .requantize import Requantizer

UNROLL: Final = 4
"""Words of depth per loop iteration: amortises the counters and the reloads of row pointers that found no register."""

_AHEAD: Final = 2
"""Weights are fetched from L2 into L1 so many iterations ahead: the hardware's prefetcher alone leaves 3 to 10 % of
float32 layers, 2 to 5 % of those of bytes (ResNet50 on Cascade Lake; half or twice the distance is as good there)."""

_CACHE_LINE_BYTES: Final = 64
_CACHE_LINE_WORDS: Final = _CACHE_LINE_BYTES // 4


class _Emitter:
    """The state that the pieces of one tile share while its IR is written."""

    def __init__(self, builder: Any, tile_type: Any) -> None:
        self.builder = builder
        self.isa = tile_type.isa
        self.mr = tile_type.tile.mr
        self.nr = tile_type.tile.nr
        self.lines_ahead = tile_type.lines_ahead
        self.dot = Dot(builder, tile_type)
        self.sum = self.dot.sum

    def phi_tile(self, scalar: Any) -> list[list[Any]]:
        vector = ir.VectorType(scalar, self.isa.lanes)
        return [[self.builder.phi(vector) for _ in range(self.nr)] for _ in range(self.mr)]

    def add_incoming(self, phis: list[list[Any]], values: list[list[Any]], block: Any) -> None:
        for phi_row, value_row in zip(phis, values, strict=True):
            for phi, value in zip(phi_row, value_row, strict=True):
                phi.add_incoming(value, block)

    def sum_vectors(self, pointer: Any) -> list[Any]:
        """NR vectors of sums from `pointer` on, unaligned."""
        builder, lanes = self.builder, self.isa.lanes
        places = [builder.gep(pointer, [I64(n * lanes)]) for n in range(self.nr)]
        return [load_vector(builder, place, lanes, scalar=self.sum) for place in places]

    def row_vectors(self, pointer: Any, element: Element) -> list[Any]:
        """NR vectors of elements from `pointer` on, as float32."""
        builder, lanes = self.builder, self.isa.lanes
        return [read_elements(builder, element, builder.gep(pointer, [I64(n * lanes)]), lanes) for n in range(self.nr)]

    def write_rows(self, rows: list[Any], element: Element, values: list[list[Any]]) -> None:
        """The tile, a row of NR vectors to each pointer."""
        for pointer, row in zip(rows, values, strict=True):
            for n, vector in enumerate(row):
                place = self.builder.gep(pointer, [I64(n * self.isa.lanes)])
                write_elements(self.builder, self.isa, element, vector, place)

    def write_sums(self, rows: list[Any], values: list[list[Any]]) -> None:
        """The tile as it is, a row of NR vectors to each pointer."""
        for pointer, row in zip(rows, values, strict=True):
            for n, vector in enumerate(row):
                store_vector(self.builder, vector, self.builder.gep(pointer, [I64(n * self.isa.lanes)]))

    def choose(self, condition: Any, then: Any, otherwise: Any) -> list[list[Any]]:
        """A tile of values from one of two emitters, joined after a branch."""
        builder = self.builder
        blocks = [builder.append_basic_block(name) for name in ("then", "else", "join")]
        builder.cbranch(condition, blocks[0], blocks[1])
        ends = []
        for block, emit in zip(blocks[:2], (then, otherwise), strict=True):
            builder.position_at_end(block)
            values = emit()
            builder.branch(blocks[2])
            ends.append((values, builder.block))
        builder.position_at_end(blocks[2])
        joined = self.phi_tile(ends[0][0][0][0].type.element)
        for values, block in ends:
            self.add_incoming(joined, values, block)
        return joined

    def depth_loop(
        self,
        start: Any,
        end: Any,
        words: int,
        rows: list[Any],
        weights: Any,
        acc: list[list[Any]],
        prefetch: Any,
        read: Any,
    ) -> tuple[Any, Any, Any, list[list[Any]]]:
        """Dot products for depth in [start, end), so many words at a time; returns where depth, weights, prefetch and
        acc end. read: makes a word in every lane of a row of x, depth, and the number of the word behind that."""
        builder, lanes = self.builder, self.isa.lanes
        pointer, pointer_step = prefetch
        entry = builder.block
        loop, done = builder.append_basic_block("depth"), builder.append_basic_block("depth_done")
        builder.cbranch(builder.icmp_signed("<", start, end), loop, done)

        builder.position_at_end(loop)
        k, w, p = builder.phi(I64), builder.phi(weights.type), builder.phi(pointer.type)
        tile = self.phi_tile(self.sum)
        for phi, value in ((k, start), (w, weights), (p, pointer)):
            phi.add_incoming(value, entry)
        self.add_incoming(tile, acc, entry)
        sums = [list(row) for row in tile]
        for word in range(words):
            panel = [self.dot.weights(builder.gep(w, [I64((word * self.nr + n) * lanes)])) for n in range(self.nr)]
            if words == UNROLL:
                for at in range(word * self.nr * lanes, (word + 1) * self.nr * lanes):
                    if at % _CACHE_LINE_WORDS == 0:
                        self.prefetch(builder.gep(w, [I64(at + _AHEAD * UNROLL * self.nr * lanes)]), locality=3)
            for m in range(self.mr):
                value = read(rows[m], k, word)
                for n in range(self.nr):
                    sums[m][n] = self.dot.accumulate(value, panel[n], sums[m][n])
        if words == UNROLL:
            own = -(-UNROLL * self.nr * lanes // _CACHE_LINE_WORDS)
            for line in range(min(self.lines_ahead, max(2, own))):
                self.prefetch(builder.gep(p, [I64(line * _CACHE_LINE_WORDS)]))
        k_next = builder.add(k, I64(words * self.dot.depth))
        w_next = builder.gep(w, [I64(words * self.nr * lanes)])
        p_next = builder.gep(p, [pointer_step])
        for phi, value in ((k, k_next), (w, w_next), (p, p_next)):
            phi.add_incoming(value, builder.block)
        self.add_incoming(tile, sums, builder.block)
        builder.cbranch(builder.icmp_signed("<", k_next, end), loop, done)

        builder.position_at_end(done)
        ends = []
        for before, after in ((start, k_next), (weights, w_next), (pointer, p_next)):
            phi = builder.phi(before.type)
            phi.add_incoming(before, entry)
            phi.add_incoming(after, loop)
            ends.append(phi)
        result = self.phi_tile(self.sum)
        self.add_incoming(result, acc, entry)
        self.add_incoming(result, sums, loop)
        return ends[0], ends[1], ends[2], result

    def prefetch(self, pointer: Any, *, locality: int = 2, write: bool = False) -> None:
        """A read or write that will happen: into L1 (locality 3) or L2 (2)."""
        byte_pointer = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), [byte_pointer, I32, I32, I32]), "llvm.prefetch.p0"
        )
        data_cache = I32(1)
        self.builder.call(
            function, [self.builder.bitcast(pointer, byte_pointer), I32(int(write)), I32(locality), data_cache]
        )

    def prefetch_rows(self, rows: list[Any], element: Element, *, write: bool) -> None:
        """Every cache line of the tile's rows, into L1."""
        width = self.nr * self.isa.lanes
        for row in rows:
            for n in range(0, width, min(_CACHE_LINE_BYTES // element.bytes, width)):
                self.prefetch(self.builder.gep(row, [I64(n)]), locality=3, write=write)


@intrinsic
def gemm_tile(
    _typing: Any,
    tile: Any,
    arena: Any,
    weights: Any,
    tables: Any,
    x: Any,
    x_rows: Any,
    w: Any,
    taps: Any,
    tap_count: Any,
    depth: Any,
    y: Any,
    y_rows: Any,
    bias: Any,
    sums: Any,
    residual: Any,
    residual_rows: Any,
    has_residual: Any,
    first: Any,
    last: Any,
    low: Any,
    high: Any,
    scale: Any,
    numbers: Any,
    stages: Any,
    prefetch: Any,
    prefetch_step: Any,
) -> Any:
    """Emits one tile; the contract is the module's docstring. tap_count >= 1, depth >= 0; flags are int64 0 or 1."""
    integer = types.int64
    signature = types.void(
        tile,
        arena,
        weights,
        tables,
        *([integer] * 15),
        types.float32,
        types.float32,
        *([integer] * 5),
    )
    del x, x_rows, w, taps, tap_count, depth, y, y_rows, bias, sums, residual, residual_rows
    del has_residual, first, last, low, high, scale, numbers, stages, prefetch, prefetch_step

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (
            (_, arena_v, weights_v, tables_v),
            (x_v, x_rows_v, w_v, taps_v, tap_count_v, depth_v, y_v, y_rows_v, bias_v, sums_v),
            (residual_v, residual_rows_v, has_residual_v, first_v, last_v, low_v, high_v),
            (scale_v, numbers_v, stages_v, prefetch_v, prefetch_step_v),
        ) = (args[:4], args[4:14], args[14:21], args[21:])
        emitter, operands = _Emitter(builder, sig.args[0]), sig.args[0].operands
        mr, nr, lanes, dot = emitter.mr, emitter.nr, emitter.isa.lanes, emitter.dot

        def arena_at(offset: Any, element: Element) -> Any:
            return operand_pointer(context, builder, sig.args[1], arena_v, element, offset)

        def weights_at(offset: Any) -> Any:
            return element_pointer(context, builder, sig.args[2], weights_v, offset)

        def table_rows(start: Any) -> list[Any]:
            pointer = element_pointer(context, builder, sig.args[3], tables_v, start)
            return [builder.sext(builder.load(builder.gep(pointer, [I64(m)])), I64) for m in range(mr)]

        x_offsets = table_rows(x_rows_v)
        outputs = [builder.gep(arena_at(y_v, operands.y), [row]) for row in table_rows(y_rows_v)]
        if operands.y == FLOAT32:
            waiting = outputs
        else:
            waiting = [builder.gep(arena_at(sums_v, FLOAT32), [I64(m * nr * lanes)]) for m in range(mr)]

        emitter.prefetch_rows(outputs, operands.y, write=True)
        with builder.if_then(builder.icmp_signed("!=", has_residual_v, I64(0))):
            base = arena_at(residual_v, operands.b)
            added_rows = [builder.gep(base, [row]) for row in table_rows(residual_rows_v)]
            emitter.prefetch_rows(added_rows, operands.b, write=False)

        def from_bias() -> list[list[Any]]:
            row = emitter.sum_vectors(weights_at(bias_v))
            return [list(row) for _ in range(mr)]

        def from_sums() -> list[list[Any]]:
            return [emitter.sum_vectors(pointer) for pointer in waiting]

        is_first = builder.icmp_signed("!=", first_v, I64(0))
        start = emitter.choose(is_first, from_bias, from_sums)

        tap_table = element_pointer(context, builder, sig.args[3], tables_v, taps_v)
        word_pointer = dot.word.as_pointer()
        first_weights, first_prefetch = (builder.bitcast(weights_at(at), word_pointer) for at in (w_v, prefetch_v))
        unrolled_end = builder.and_(depth_v, I64(~(UNROLL * dot.depth - 1)))
        words_end = builder.and_(depth_v, I64(~(dot.depth - 1))) if dot.depth > 1 else depth_v
        entry = builder.block
        loop, done = builder.append_basic_block("tap"), builder.append_basic_block("taps_done")
        builder.branch(loop)

        builder.position_at_end(loop)
        tap, w_phi, p_phi = builder.phi(I64), builder.phi(word_pointer), builder.phi(word_pointer)
        acc = emitter.phi_tile(emitter.sum)
        for phi, value in ((tap, I64(0)), (w_phi, first_weights), (p_phi, first_prefetch)):
            phi.add_incoming(value, entry)
        emitter.add_incoming(acc, start, entry)
        window = builder.gep(
            arena_at(x_v, operands.x), [builder.sext(builder.load(builder.gep(tap_table, [tap])), I64)]
        )
        rows = [builder.gep(window, [offset]) for offset in x_offsets]
        k, w_next, p_next, sums = emitter.depth_loop(
            I64(0), unrolled_end, UNROLL, rows, w_phi, acc, (p_phi, prefetch_step_v), dot.broadcast_of_many
        )
        k, w_next, _, sums = emitter.depth_loop(k, words_end, 1, rows, w_next, sums, (p_next, I64(0)), dot.broadcast)
        if operands.x == BFLOAT16:  # an odd element is left over
            _, w_next, _, sums = emitter.depth_loop(
                k, depth_v, 1, rows, w_next, sums, (p_next, I64(0)), dot.broadcast_one
            )
        tap_next = builder.add(tap, I64(1))
        for phi, value in ((tap, tap_next), (w_phi, w_next), (p_phi, p_next)):
            phi.add_incoming(value, builder.block)
        emitter.add_incoming(acc, sums, builder.block)
        builder.cbranch(builder.icmp_signed("<", tap_next, tap_count_v), loop, done)

        builder.position_at_end(done)
        finish, raw, end = (builder.append_basic_block(name) for name in ("finish", "raw", "end"))
        builder.cbranch(builder.icmp_signed("!=", last_v, I64(0)), finish, raw)

        builder.position_at_end(raw)
        emitter.write_sums(waiting, sums)
        builder.branch(end)

        builder.position_at_end(finish)
        has_residual = builder.icmp_signed("!=", has_residual_v, I64(0))

        def residual_rows() -> list[list[Any]]:
            pointer = arena_at(residual_v, operands.b)
            places = [builder.gep(pointer, [offset]) for offset in table_rows(residual_rows_v)]
            return [emitter.row_vectors(place, operands.b) for place in places]

        if operands.x == UINT8:
            requantizer = Requantizer(builder, emitter.isa, weights_at(numbers_v))
            total = requantizer.result(sums, weights_at(scale_v), stages_v, has_residual_v, residual_rows)
            requantizer.write(total, outputs, operands.y)
            builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        def add_residual() -> list[list[Any]]:
            return [
                [builder.fadd(v, b) for v, b in zip(row, other, strict=True)]
                for row, other in zip(sums, residual_rows(), strict=True)
            ]

        total = emitter.choose(has_residual, add_residual, lambda: sums)
        lowest, highest = splat_vector(builder, low_v, lanes), splat_vector(builder, high_v, lanes)
        clipped = [[clip_vector(builder, vector, lowest, highest) for vector in row] for row in total]
        emitter.write_rows(outputs, operands.y, clipped)
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, emit
