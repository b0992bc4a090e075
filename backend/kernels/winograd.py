"""conv_winograd: stride-1 3x3 convolutions by F(4x4, 3x3), 2.25 multiplications per output in place of 9.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, with points 0, a, -a, b, -b and infinity
(`step.interpolation_points`): Y = A^T [sum over channels (G g G^T) * (B^T d B)] A for input patches d of 6x6 and
outputs Y of 4x4 pixels.

A unit takes `mc` patches through all three phases, so that everything between input and output stays in the
worker's scratch memory, in L2:
    U[point][patch][channel]          input patches, transformed
    M[point] = U[point] @ W[point]    36 small GEMMs by the micro-kernel, for one panel of output channels
    Y                                 that panel transformed back, bias, residual and clip applied, stored
U has the element type of the input, M is float32, as are the transforms. Weights are packed [panel][point][word of
depth][NR * lanes][element of the word], in the order in which they are used.

Patches tile the picture from its top left corner; the last row and column of them may overhang. There the input's
halo is wide enough to be read (zeros), and what lies outside the output is not kept.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.element import FLOAT32
from ..simd.memory import operand_pointer, read_elements, write_elements
from ..simd.tags import lanes_of, mr_of, width_of, with_sums, x_per_word
from ..simd.vector import (
    F32,
    I64,
    clip_vector,
    element_pointer,
    fma_vector,
    load_vector,
    splat_vector,
)
from .gemm_tile import UNROLL, gemm_tile
from .halo import zero_halo
from .jit import jit
from .step import PATCH_OUT, PATCH_POINTS, interpolation_points


class _Lines:
    """One-dimensional transforms of six or four vectors, written as IR. tag: its type of x decides about the points."""

    def __init__(self, builder: Any, tag: Any) -> None:
        self.builder, self.isa = builder, tag.isa
        self.vector = ir.VectorType(F32, tag.isa.lanes)
        self.a, self.b = interpolation_points(tag.operands.x)

    def _constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.isa.lanes)

    def fma(self, scale: float, a: Any, b: Any) -> Any:
        """scale * a + b, without a multiplication if that is by 1 or -1."""
        if abs(scale) == 1:
            return self.builder.fadd(b, a) if scale > 0 else self.builder.fsub(b, a)
        return fma_vector(self.builder, self.isa, self._constant(scale), a, b)

    def scaled(self, scale: float, a: Any) -> Any:
        """scale * a"""
        return a if scale == 1 else self.builder.fmul(self._constant(scale), a)

    def input(self, d: list[Any]) -> list[Any]:
        """B^T d, six to six."""
        a, b = self.a, self.b
        aa, bb = a * a, b * b
        even_a, odd_a = self.fma(-bb, d[2], d[4]), self.fma(-bb, d[1], d[3])
        even_b, odd_b = self.fma(-aa, d[2], d[4]), self.fma(-aa, d[1], d[3])
        return [
            self.fma(aa * bb, d[0], self.fma(-aa - bb, d[2], d[4])),
            self.fma(a, odd_a, even_a),
            self.fma(-a, odd_a, even_a),
            self.fma(b, odd_b, even_b),
            self.fma(-b, odd_b, even_b),
            self.fma(aa * bb, d[1], self.fma(-aa - bb, d[3], d[5])),
        ]

    def output(self, m: list[Any]) -> list[Any]:
        """A^T m, six to four."""
        add, sub = self.builder.fadd, self.builder.fsub
        a, b = self.a, self.b
        sum_a, difference_a = add(m[1], m[2]), sub(m[1], m[2])
        sum_b, difference_b = add(m[3], m[4]), sub(m[3], m[4])
        return [
            add(add(m[0], sum_a), sum_b),
            self.fma(b, difference_b, self.scaled(a, difference_a)),
            self.fma(b * b, sum_b, self.scaled(a * a, sum_a)),
            add(self.fma(b * b * b, difference_b, self.scaled(a * a * a, difference_a)), m[5]),
        ]


@intrinsic
def _transform_input(_typing: Any, tag: Any, arena: Any, x: Any, x_row: Any, x_pixel: Any, u: Any, u_point: Any) -> Any:
    """U[point] for one patch and one vector of channels: reads 6x6 pixels at x, writes u + point * u_point."""
    signature = types.void(tag, arena, *([types.int64] * 5))

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, arena_v, x_v, row_v, pixel_v, u_v, point_v = args
        isa, element = sig.args[0].isa, sig.args[0].operands.x
        lines = _Lines(builder, sig.args[0])
        source, target = (
            operand_pointer(context, builder, sig.args[1], arena_v, element, offset) for offset in (x_v, u_v)
        )

        def pixel(i: int, j: int) -> Any:
            offset = builder.add(builder.mul(row_v, I64(i)), builder.mul(pixel_v, I64(j)))
            return read_elements(builder, element, builder.gep(source, [offset]), isa.lanes)

        columns = [lines.input([pixel(i, j) for i in range(6)]) for j in range(6)]
        for i in range(6):
            for j, vector in enumerate(lines.input([columns[j][i] for j in range(6)])):
                write_elements(
                    builder, isa, element, vector, builder.gep(target, [builder.mul(point_v, I64(6 * i + j))])
                )
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def _transform_output(
    _typing: Any, tag: Any, arena: Any, weights: Any, m: Any, m_point: Any, bias: Any, y: Any, y_row: Any,
    y_pixel: Any, b: Any, b_row: Any, b_pixel: Any, has_b: Any, rows: Any, columns: Any, low: Any, high: Any,
) -> Any:  # fmt: skip
    """Y for one patch and one vector of channels: reads m + point * m_point, writes rows x columns pixels at y."""
    signature = types.void(tag, arena, weights, *([types.int64] * 12), types.float32, types.float32)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, arena_v, weights_v, m_v, point_v, bias_v, y_v, row_v, pixel_v = args[:9]
        b_v, b_row_v, b_pixel_v, has_b_v, rows_v, columns_v = args[9:15]
        lines, lanes = _Lines(builder, sig.args[0]), sig.args[0].isa.lanes
        operands = sig.args[0].operands
        source, target, other = (
            operand_pointer(context, builder, sig.args[1], arena_v, element, offset)
            for element, offset in ((FLOAT32, m_v), (operands.y, y_v), (operands.b, b_v))
        )
        bias_vector = load_vector(builder, element_pointer(context, builder, sig.args[2], weights_v, bias_v), lanes)
        low_vector, high_vector = (splat_vector(builder, bound, lanes) for bound in args[15:])

        def point(i: int, j: int) -> Any:
            return load_vector(builder, builder.gep(source, [builder.mul(point_v, I64(6 * i + j))]), lanes)

        def last_inside(count: Any) -> list[Any]:
            """0 to 3, those outside the output replaced by the last one inside."""
            last = builder.sub(count, I64(1))
            return [builder.select(builder.icmp_signed("<", I64(i), count), I64(i), last) for i in range(PATCH_OUT)]

        row_at, column_at = last_inside(rows_v), last_inside(columns_v)

        def place(pointer: Any, row: Any, pixel: Any, i: int, j: int) -> Any:
            return builder.gep(pointer, [builder.add(builder.mul(row, row_at[i]), builder.mul(pixel, column_at[j]))])

        columns = [lines.output([point(i, j) for i in range(6)]) for j in range(6)]
        sums = [lines.output([columns[j][i] for j in range(6)]) for i in range(PATCH_OUT)]
        sums = [[builder.fadd(vector, bias_vector) for vector in row] for row in sums]

        def write(residual: bool) -> None:
            # Backwards, so that the last pixel inside is written after those outside that share its place.
            for i, j in reversed(list(product(range(PATCH_OUT), repeat=2))):
                vector = sums[i][j]
                if residual:
                    added = place(other, b_row_v, b_pixel_v, i, j)
                    vector = builder.fadd(vector, read_elements(builder, operands.b, added, lanes))
                clipped = clip_vector(builder, vector, low_vector, high_vector)
                write_elements(builder, lines.isa, operands.y, clipped, place(target, row_v, pixel_v, i, j))

        with builder.if_else(builder.icmp_signed("!=", has_b_v, I64(0))) as (then, otherwise):
            with then:
                write(residual=True)
            with otherwise:
                write(residual=False)
        return context.get_dummy_value()

    return signature, emit


@jit
def _patch_grid(step: Any) -> tuple[int, int]:
    """(rows, columns) of patches that cover a picture."""
    return (step.out_h + PATCH_OUT - 1) // PATCH_OUT, (step.out_w + PATCH_OUT - 1) // PATCH_OUT


@jit
def winograd_units(step: Any, images: int) -> int:
    """Units of a step for so many images."""
    return _patch_blocks(step, images) * ((step.panels + step.nc_panels - 1) // step.nc_panels)


@jit
def _patch_blocks(step: Any, images: int) -> int:
    patch_rows, patch_columns = _patch_grid(step)
    return (images * patch_rows * patch_columns + step.mc - 1) // step.mc


@jit
def conv_winograd(
    tile: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """One unit: mc patches, counted over all images in N, row, column order, x nc_panels panels of output channels."""
    lanes, mr, width = lanes_of(tile), mr_of(tile), width_of(tile)
    patch_rows, patch_columns = _patch_grid(step)
    per_image = patch_rows * patch_columns
    jc, ic = divmod(unit, _patch_blocks(step, images))  # neighbouring units share their panels
    begin = ic * step.mc
    count = min(step.mc, images * per_image - begin)
    rounded = (step.mc + mr - 1) // mr * mr
    in_c, depth, low, high = step.in_c, step.depth, step.low, step.high
    scratch, per_word = step.scratch + worker * step.scratch_size, x_per_word(tile)
    u_point, m_point = rounded * in_c, rounded * width
    u, m = scratch * per_word, scratch + PATCH_POINTS * u_point // per_word
    sums = with_sums(tile)
    x_row, x_pixel, y_row, y_pixel = step.x_row, step.x_pixel, step.y_row, step.y_pixel
    b_row, b_pixel, has_b = step.b_row, step.b_pixel, step.has_b

    for patch in range(count):
        image, place = divmod(begin + patch, per_image)
        i, j = divmod(place, patch_columns)
        x = step.x + image * step.x_image + i * PATCH_OUT * x_row + j * PATCH_OUT * x_pixel
        for c in range(0, in_c, lanes):
            _transform_input(tile, arena, x + c, x_row, x_pixel, u + patch * in_c + c, u_point)
    panel_begin = jc * step.nc_panels
    panel_end = min(panel_begin + step.nc_panels, step.panels)
    block = (depth + per_word - 1) // per_word * width
    tiles = (count + mr - 1) // mr
    prefetch_step = UNROLL * width // tiles
    w = step.weight + panel_begin * PATCH_POINTS * block
    for panel in range(panel_begin, panel_end):
        n = panel * width
        for point in range(PATCH_POINTS):
            for row in range(0, count, mr):
                gemm_tile(
                    sums, arena, weights, tables,
                    u + point * u_point, step.x_rows + row, w, step.taps, 1, depth,
                    m + point * m_point, step.y_rows + row, step.zeros,
                    0, 0, step.y_rows, 0, 1, 0, low, high, 0, 0, 0,
                    w + block + row // mr * (block // tiles), prefetch_step,
                )  # fmt: skip
            w += block
        for patch in range(count):
            image, place = divmod(begin + patch, per_image)
            i, j = divmod(place, patch_columns)
            rows = min(PATCH_OUT, step.out_h - i * PATCH_OUT)
            columns = min(PATCH_OUT, step.out_w - j * PATCH_OUT)
            y = step.y + image * step.y_image + i * PATCH_OUT * y_row + j * PATCH_OUT * y_pixel + n
            b = step.b + image * step.b_image + i * PATCH_OUT * b_row + j * PATCH_OUT * b_pixel + n
            for c in range(0, width, lanes):
                _transform_output(
                    tile, arena, weights, m + patch * width + c, m_point, step.bias + n + c,
                    y + c, y_row, y_pixel, b + c, b_row, b_pixel, has_b, rows, columns, low, high,
                )  # fmt: skip
    for patch in range(count if jc == 0 else 0):
        image, place = divmod(begin + patch, per_image)
        i, j = divmod(place, patch_columns)
        if j == 0:
            first = (image * step.out_h + i * PATCH_OUT) * step.out_w
            zero_halo(tile, arena, step, first, first + min(PATCH_OUT, step.out_h - i * PATCH_OUT) * step.out_w, worker)
