"""Kernels that go over a picture row by row with vectors of channels: pooling, affine map, clip.

A unit is `step.rows` output rows, counted over all images. Channels are padded to whole vectors in the arena, so
there is no tail: what the padding lanes hold is computed along and never read. Fields of a step that inner loops
use are read into locals first: for all LLVM knows, a store into the arena may change the record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from ..simd.memory import load_x, operand_pointer, read_elements, store_y
from ..simd.tags import lanes_of
from ..simd.vector import (
    I64,
    add,
    clip,
    fma,
    load,
    maximum,
    maximum_vector,
    mul,
    splat,
)
from .halo import zero_halo
from .jit import jit


@jit
def row_units(step: Any, images: int) -> int:
    """Units of a row-wise step for so many images."""
    return (images * step.out_h + step.rows - 1) // step.rows


@jit
def unit_rows(step: Any, images: int, unit: int) -> tuple[int, int]:
    """The output rows [begin, end) of a unit."""
    begin = unit * step.rows
    return begin, min(begin + step.rows, images * step.out_h)


@jit
def window(start: int, size: int, dilation: int, limit: int) -> tuple[int, int]:
    """The taps [first, last) of a window that fall inside [0, limit)."""
    first = 0 if start >= 0 else (-start + dilation - 1) // dilation
    last = min(size, (limit - start + dilation - 1) // dilation)
    return first, max(first, last)


@intrinsic
def _largest_3x3(_typing: Any, isa: Any, arena: Any, x: Any, dr: Any, ds: Any, start: Any) -> Any:
    """The maximum of start and arena[x + r * dr + s * ds :] over r, s < 3, in that order."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, arena_v, x_v, dr_v, ds_v, best = args
        lanes, element = signature.args[0].isa.lanes, signature.args[0].operands.x
        source = operand_pointer(context, builder, signature.args[1], arena_v, element, x_v)
        for r in range(3):
            for s in range(3):
                offset = builder.add(builder.mul(dr_v, I64(r)), builder.mul(ds_v, I64(s)))
                value = read_elements(builder, element, builder.gep(source, [offset]), lanes)
                best = maximum_vector(builder, best, value)
        return best

    return start(isa, arena, *([types.int64] * 3), start), emit


@jit
def max_pool(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = maximum over the window's pixels inside the picture; padding never wins. -inf over padding alone.

    3x3 windows that lie inside the picture, which is nearly all of them, are written out.
    """
    lanes = lanes_of(isa)
    lowest = splat(isa, -np.inf)
    out_w, out_c, in_w, kernel_w, stride_w = step.out_w, step.out_c, step.in_w, step.kernel_w, step.stride_w
    dilation_w, pad_left = step.dilation_w, step.pad_left
    dr, dx, dy = step.dilation_h * step.x_row, step.x_pixel, step.y_pixel
    ds = dilation_w * dx
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
            if (r_last - r_first) * (s_last - s_first) == 9 and step.kernel_h == 3 and kernel_w == 3:
                x, y = x_row + w0 * dx, y_row + ow * dy
                for c in range(0, out_c, lanes):
                    store_y(isa, arena, y + c, _largest_3x3(isa, arena, x + c, dr, ds, lowest))
                continue
            for c in range(0, out_c, lanes):
                best = lowest
                for r in range(r_first, r_last):
                    x = x_row + r * dr + w0 * dx + c
                    for s in range(s_first, s_last):
                        best = maximum(best, load_x(isa, arena, x + s * ds))
                store_y(isa, arena, y_row + ow * dy + c, best)
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def average_pool(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = sum over the window's pixels inside the picture / divisor.

    The divisor of output pixel (oh, ow) is tables[y_rows + oh] * tables[x_rows + ow]: the planner counts the rows
    and columns that a window's mean is over, padding included or not.
    """
    lanes = lanes_of(isa)
    out_w, out_c, in_w, kernel_w, stride_w = step.out_w, step.out_c, step.in_w, step.kernel_w, step.stride_w
    dilation_w, pad_left = step.dilation_w, step.pad_left
    dr, dx, dy = step.dilation_h * step.x_row, step.x_pixel, step.y_pixel
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
            scale = splat(isa, 1.0 / (tables[step.y_rows + oh] * tables[step.x_rows + ow]))
            for c in range(0, out_c, lanes):
                total = splat(isa, 0.0)
                for r in range(r_first, r_last):
                    x = x_row + r * dr + w0 * dx + c
                    for s in range(s_first, s_last):
                        total = add(total, load_x(isa, arena, x + s * dilation_w * dx))
                store_y(isa, arena, y_row + ow * dy + c, mul(total, scale))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def global_average(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y[0, 0, c] = mean of x[:, :, c]; out_h and out_w are 1. Sums run in the order of pixels, four
    vectors at a time."""
    lanes = lanes_of(isa)
    in_w, out_c, dx = step.in_w, step.out_c, step.x_pixel
    zero, scale = splat(isa, 0.0), splat(isa, 1.0 / (step.in_h * in_w))
    begin, end = unit_rows(step, images, unit)
    for image in range(begin, end):
        x_image, y = step.x + image * step.x_image, step.y + image * step.y_image
        whole = out_c - out_c % (4 * lanes)
        for c in range(0, whole, 4 * lanes):
            s0 = s1 = s2 = s3 = zero
            for h in range(step.in_h):
                x = x_image + h * step.x_row + c
                for _ in range(in_w):
                    s0 = add(s0, load_x(isa, arena, x))
                    s1 = add(s1, load_x(isa, arena, x + lanes))
                    s2 = add(s2, load_x(isa, arena, x + 2 * lanes))
                    s3 = add(s3, load_x(isa, arena, x + 3 * lanes))
                    x += dx
            store_y(isa, arena, y + c, mul(s0, scale))
            store_y(isa, arena, y + c + lanes, mul(s1, scale))
            store_y(isa, arena, y + c + 2 * lanes, mul(s2, scale))
            store_y(isa, arena, y + c + 3 * lanes, mul(s3, scale))
        for c in range(whole, out_c, lanes):
            total = zero
            for h in range(step.in_h):
                for w in range(in_w):
                    total = add(total, load_x(isa, arena, x_image + h * step.x_row + w * dx + c))
            store_y(isa, arena, y + c, mul(total, scale))
    zero_halo(isa, arena, step, begin, end, worker)


@jit
def affine(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y = clip(x * w[c] + bias[c], low, high): a BatchNormalization or Clip that found no convolution to join."""
    lanes = lanes_of(isa)
    low, high = splat(isa, step.low), splat(isa, step.high)
    out_w, out_c, dx, dy = step.out_w, step.out_c, step.x_pixel, step.y_pixel
    weight, bias, scaled = step.weight, step.bias, step.option != 0
    x0, y0 = step.x + worker * step.x_worker, step.y + worker * step.y_worker
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x_row = x0 + image * step.x_image + oh * step.x_row
        y_row = y0 + image * step.y_image + oh * step.y_row
        for ow in range(out_w):
            for c in range(0, out_c, lanes):
                value = load_x(isa, arena, x_row + ow * dx + c)
                if scaled:
                    value = fma(isa, value, load(isa, weights, weight + c), load(isa, weights, bias + c))
                store_y(isa, arena, y_row + ow * dy + c, clip(value, low, high))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)
