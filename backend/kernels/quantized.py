"""Row-wise kernels between real numbers and quantised ones: quantise, dequantise, add, average.

float32 arithmetic in the order that the IR's records state, every operation rounded by itself, halves to even.
A unit is `step.rows` output rows. Numbers of bytes are the stored 0 to 255; the planner moves zero points of int8
accordingly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.integers import rounded
from ..simd.memory import load_b, load_x, operand_pointer, store_y
from ..simd.tags import lanes_of
from ..simd.vector import I8, add, div, load, load_vector, mul, splat, store_vector, sub
from .halo import zero_halo
from .jit import jit
from .rows import unit_rows, window


@jit
def quantize(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = rint(clip(x / weights[scale + c], 0 - z, 255 - z)) + z, where z = weights[bias + c]."""
    lanes = lanes_of(isa)
    out_w, out_c, dx, dy, scale, zero = step.out_w, step.out_c, step.x_pixel, step.y_pixel, step.scale, step.bias
    least, most = splat(isa, 0.0), splat(isa, 255.0)
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x_row = step.x + image * step.x_image + oh * step.x_row
        y_row = step.y + image * step.y_image + oh * step.y_row
        for ow in range(out_w):
            for c in range(0, out_c, lanes):
                z = load(isa, weights, zero + c)
                steps = div(load_x(isa, arena, x_row + ow * dx + c), load(isa, weights, scale + c))
                store_y(isa, arena, y_row + ow * dy + c, add(rounded(steps, sub(least, z), sub(most, z)), z))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def dequantize(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = (x - weights[bias + c]) * weights[scale + c]."""
    lanes = lanes_of(isa)
    out_w, out_c, dx, dy, scale, zero = step.out_w, step.out_c, step.x_pixel, step.y_pixel, step.scale, step.bias
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x_row = step.x + image * step.x_image + oh * step.x_row
        y_row = step.y + image * step.y_image + oh * step.y_row
        for ow in range(out_w):
            for c in range(0, out_c, lanes):
                steps = sub(load_x(isa, arena, x_row + ow * dx + c), load(isa, weights, zero + c))
                store_y(isa, arena, y_row + ow * dy + c, mul(steps, load(isa, weights, scale + c)))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def quantized_add(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = rint(clip((x - zx) * sx + (b - zb) * sb, low, high)) + zero; weights[numbers:] = zx, sx, zb, sb, zero."""
    lanes = lanes_of(isa)
    out_w, out_c, dx, dy, db = step.out_w, step.out_c, step.x_pixel, step.y_pixel, step.b_pixel
    low, high, zero = splat(isa, step.low), splat(isa, step.high), splat(isa, weights[step.numbers + 4])
    x_zero, x_scale = splat(isa, weights[step.numbers]), splat(isa, weights[step.numbers + 1])
    b_zero, b_scale = splat(isa, weights[step.numbers + 2]), splat(isa, weights[step.numbers + 3])
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x_row = step.x + image * step.x_image + oh * step.x_row
        b_row = step.b + image * step.b_image + oh * step.b_row
        y_row = step.y + image * step.y_image + oh * step.y_row
        for ow in range(out_w):
            for c in range(0, out_c, lanes):
                a = mul(sub(load_x(isa, arena, x_row + ow * dx + c), x_zero), x_scale)
                b = mul(sub(load_b(isa, arena, b_row + ow * db + c), b_zero), b_scale)
                store_y(isa, arena, y_row + ow * dy + c, add(rounded(add(a, b), low, high), zero))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def quantized_average(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = rint(clip(sum of (x - zx) over the window's pixels inside the picture * factor, low, high)) + zero;
    weights[numbers:] = zx, factor, zero. Sums are whole numbers below 2 ** 24, exact in float32."""
    lanes = lanes_of(isa)
    out_w, out_c, in_w, kernel_w, stride_w = step.out_w, step.out_c, step.in_w, step.kernel_w, step.stride_w
    dilation_w, pad_left = step.dilation_w, step.pad_left
    dr, dx, dy = step.dilation_h * step.x_row, step.x_pixel, step.y_pixel
    low, high, zero = splat(isa, step.low), splat(isa, step.high), splat(isa, weights[step.numbers + 2])
    x_zero, factor = weights[step.numbers], splat(isa, weights[step.numbers + 1])
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        h0 = oh * step.stride_h - step.pad_top
        r_first, r_last = window(h0, step.kernel_h, step.dilation_h, step.in_h)
        x_row = step.x + image * step.x_image + h0 * step.x_row
        y_row = step.y + image * step.y_image + oh * step.y_row
        for ow in range(out_w):
            w0 = ow * stride_w - pad_left
            s_first, s_last = window(w0, kernel_w, dilation_w, in_w)
            zeros = splat(isa, np.float32((r_last - r_first) * (s_last - s_first)) * x_zero)
            for c in range(0, out_c, lanes):
                total = splat(isa, 0.0)
                for r in range(r_first, r_last):
                    x = x_row + r * dr + w0 * dx + c
                    for s in range(s_first, s_last):
                        total = add(total, load_x(isa, arena, x + s * dilation_w * dx))
                average = mul(sub(total, zeros), factor)
                store_y(isa, arena, y_row + ow * dy + c, add(rounded(average, low, high), zero))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


def _largest_bytes(vectors: int) -> Any:
    """The body of `max_pool_u8` for so many vectors' worth of bytes at once."""

    @intrinsic
    def largest_bytes(
        _typing: Any, tag: Any, arena: Any, x: Any, y: Any, rows: Any, columns: Any, x_row: Any, x_column: Any
    ) -> Any:  # fmt: skip
        """y[:] = the largest of x[r * x_row + s * x_column :] over r < rows, s < columns; 0 of none."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind, arena_type = signature.args[:2]
            _, arena_v, x_v, y_v, rows_v, columns_v, x_row_v, x_column_v = args
            count = vectors * kind.isa.lanes
            source = operand_pointer(context, builder, arena_type, arena_v, kind.operands.x, x_v)
            best = cgutils.alloca_once_value(builder, ir.Constant(ir.VectorType(I8, count), [0] * count))
            with cgutils.for_range(builder, rows_v) as r, cgutils.for_range(builder, columns_v) as s:
                place = builder.add(builder.mul(r.index, x_row_v), builder.mul(s.index, x_column_v))
                value, old = load_vector(builder, builder.gep(source, [place]), count, 1, I8), builder.load(best)
                builder.store(builder.select(builder.icmp_unsigned(">", value, old), value, old), best)
            target = operand_pointer(context, builder, arena_type, arena_v, kind.operands.y, y_v)
            store_vector(builder, builder.load(best), target, 1)
            return context.get_dummy_value()

        del x, y, rows, columns, x_row, x_column
        return types.void(tag, arena, *([types.int64] * 6)), emit

    return largest_bytes


_largest_bytes_4 = _largest_bytes(4)
_largest_bytes_1 = _largest_bytes(1)


@jit
def max_pool_u8(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """`max_pool` of bytes, which keep their order whatever they stand for; 0 over padding alone."""
    lanes = lanes_of(isa)
    out_w, out_c, in_w, kernel_w, stride_w = step.out_w, step.out_c, step.in_w, step.kernel_w, step.stride_w
    dilation_w, pad_left = step.dilation_w, step.pad_left
    dr, dx, dy = step.dilation_h * step.x_row, step.x_pixel, step.y_pixel
    ds = dilation_w * dx
    whole = out_c - out_c % (4 * lanes)
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        h0 = oh * step.stride_h - step.pad_top
        r_first, r_last = window(h0, step.kernel_h, step.dilation_h, step.in_h)
        x_row = step.x + image * step.x_image + h0 * step.x_row + r_first * dr
        y_row = step.y + image * step.y_image + oh * step.y_row
        for ow in range(out_w):
            w0 = ow * stride_w - pad_left
            s_first, s_last = window(w0, kernel_w, dilation_w, in_w)
            x, y, rows, columns = x_row + w0 * dx + s_first * ds, y_row + ow * dy, r_last - r_first, s_last - s_first
            for c in range(0, whole, 4 * lanes):
                _largest_bytes_4(isa, arena, x + c, y + c, rows, columns, dr, ds)
            for c in range(whole, out_c, lanes):
                _largest_bytes_1(isa, arena, x + c, y + c, rows, columns, dr, ds)
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)
