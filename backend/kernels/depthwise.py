"""Depthwise convolution: one filter per channel, vectors of channels side by side.

A unit is `step.rows` output rows, counted over all images, as in rows.py.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..simd.element import Element
from ..simd.memory import load_b, load_x, operand_pointer, read_elements, store_y, write_elements
from ..simd.tags import lanes_of, mr_of
from ..simd.vector import (
    I64,
    add,
    clip,
    clip_vector,
    element_pointer,
    fma,
    fma_vector,
    load,
    load_vector,
    splat,
    splat_vector,
)
from .halo import zero_halo
from .jit import jit
from .rows import unit_rows


def _tile_3x3(stride_w: int) -> Any:
    """The micro-kernel for one stride: MR neighbouring output pixels of one vector of channels, in registers.

    The stride is known here, so that windows that overlap share the loads of their columns.
    """

    @intrinsic
    def tile_3x3(
        _typing: Any, tile: Any, arena: Any, weights: Any, x: Any, x_row: Any, x_pixel: Any, w: Any, bias: Any, y: Any,
        y_pixel: Any, b: Any, b_pixel: Any, has_b: Any, low: Any, high: Any,
    ) -> Any:  # fmt: skip
        """y[m] = clip(bias + sum over r, s < 3 of x[m * stride_w + s, r] * w[r, s] + b[m], low, high), m < MR."""

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            tag, arena_type, weights_type = signature.args[:3]
            isa, mr, lanes = tag.isa, tag.tile.mr, tag.isa.lanes
            (_, arena_v, weights_v, x_v, x_row_v, x_pixel_v, w_v, bias_v, y_v, y_pixel_v), rest = args[:10], args[10:]
            b_v, b_pixel_v, has_b_v, low_v, high_v = rest

            operands = tag.operands

            def pixels(element: Element, offset: Any, pitch: Any) -> list[Any]:
                first = operand_pointer(context, builder, arena_type, arena_v, element, offset)
                return [builder.gep(first, [builder.mul(pitch, I64(m))]) for m in range(mr)]

            source = operand_pointer(context, builder, arena_type, arena_v, operands.x, x_v)
            taps = element_pointer(context, builder, weights_type, weights_v, w_v)
            start = load_vector(builder, element_pointer(context, builder, weights_type, weights_v, bias_v), lanes)
            sums = [start] * mr
            for r in range(3):
                row = builder.gep(source, [builder.mul(x_row_v, I64(r))])
                columns = [
                    read_elements(builder, operands.x, builder.gep(row, [builder.mul(x_pixel_v, I64(column))]), lanes)
                    for column in range((mr - 1) * stride_w + 3)
                ]
                for s in range(3):
                    tap = load_vector(builder, builder.gep(taps, [I64((3 * r + s) * lanes)]), lanes)
                    for m in range(mr):
                        sums[m] = fma_vector(builder, isa, columns[m * stride_w + s], tap, sums[m])

            before, added, finish = builder.block, builder.append_basic_block("b"), builder.append_basic_block("finish")
            builder.cbranch(builder.icmp_signed("!=", has_b_v, I64(0)), added, finish)
            builder.position_at_end(added)
            totals = [
                builder.fadd(total, read_elements(builder, operands.b, place, lanes))
                for total, place in zip(sums, pixels(operands.b, b_v, b_pixel_v), strict=True)
            ]
            builder.branch(finish)
            builder.position_at_end(finish)
            results = []
            for total, with_b in zip(sums, totals, strict=True):
                result = builder.phi(ir.VectorType(ir.FloatType(), lanes))
                result.add_incoming(total, before)
                result.add_incoming(with_b, added)
                results.append(result)
            lowest, highest = splat_vector(builder, low_v, lanes), splat_vector(builder, high_v, lanes)
            for result, place in zip(results, pixels(operands.y, y_v, y_pixel_v), strict=True):
                write_elements(builder, isa, operands.y, clip_vector(builder, result, lowest, highest), place)
            return context.get_dummy_value()

        signature = types.void(tile, arena, weights, *([types.int64] * 10), types.float32, types.float32)
        del x, x_row, x_pixel, w, bias, y, y_pixel, b, b_pixel, has_b, low, high
        return signature, emit

    return tile_3x3


_tile_3x3_stride_1 = _tile_3x3(1)
_tile_3x3_stride_2 = _tile_3x3(2)


@jit
def depthwise_3x3(
    tile: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """`depthwise` for 3x3 windows without dilation whose stride_w is 1 or 2, MR pixels of a row at a time; the last
    tile of a row overlaps its neighbour, so out_w >= MR.

    nc_panels vectors of channels go down all rows of the unit before the next ones do: as many as let the rows of a
    window stay in L1, so that each row is read once from beyond.
    """
    mr, lanes = mr_of(tile), lanes_of(tile)
    out_w, out_c, x_row, x_pixel = step.out_w, step.out_c, step.x_row, step.x_pixel
    stride_h, stride_w, weight, bias, has_b = step.stride_h, step.stride_w, step.weight, step.bias, step.has_b
    dy, db, low, high, nc = step.y_pixel, step.b_pixel, step.low, step.high, step.nc_panels * lanes
    x0, y0 = step.x + worker * step.x_worker, step.y + worker * step.y_worker
    begin, end = unit_rows(step, images, unit)
    for jc in range(0, out_c, nc):
        channel_end = min(jc + nc, out_c)
        for row in range(begin, end):
            image, oh = divmod(row, step.out_h)
            x = x0 + image * step.x_image + (oh * stride_h - step.pad_top) * x_row - step.pad_left * x_pixel
            y = y0 + image * step.y_image + oh * step.y_row
            b = step.b + image * step.b_image + oh * step.b_row
            for first in range(0, out_w, mr):
                ow = min(first, out_w - mr)
                for c in range(jc, channel_end, lanes):
                    if stride_w == 1:
                        _tile_3x3_stride_1(
                            tile, arena, weights, x + ow * x_pixel + c, x_row, x_pixel, weight + 9 * c, bias + c,
                            y + ow * dy + c, dy, b + ow * db + c, db, has_b, low, high,
                        )  # fmt: skip
                    else:
                        _tile_3x3_stride_2(
                            tile, arena, weights, x + 2 * ow * x_pixel + c, x_row, x_pixel, weight + 9 * c, bias + c,
                            y + ow * dy + c, dy, b + ow * db + c, db, has_b, low, high,
                        )  # fmt: skip
    zero_halo(tile, arena, step, begin * out_w, end * out_w, worker)


@jit
def depthwise(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y[oh, ow, c] = clip(bias[c] + sum over r, s of x[oh, ow window, c] * w[r, s, c] + b[oh, ow, c], low, high),
    b only if has_b.

    Weights are packed [channel vector][r][s][lanes], the bias [channel vector][lanes]. Sums run in ascending
    (r, s) from the bias. The halo of x holds the padding. Channels are the inner loop, so that every stream of
    reads is sequential.
    """
    lanes = lanes_of(isa)
    low, high = splat(isa, step.low), splat(isa, step.high)
    kernel_h, kernel_w, out_w, out_c = step.kernel_h, step.kernel_w, step.out_w, step.out_c
    weight, bias = step.weight, step.bias
    dr, ds = step.dilation_h * step.x_row, step.dilation_w * step.x_pixel
    dx, dy, db, has_b = step.stride_w * step.x_pixel, step.y_pixel, step.b_pixel, step.has_b != 0
    x0, y0 = step.x + worker * step.x_worker, step.y + worker * step.y_worker
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x_row = x0 + image * step.x_image + (oh * step.stride_h - step.pad_top) * step.x_row
        x_row -= step.pad_left * step.x_pixel
        y_row = y0 + image * step.y_image + oh * step.y_row
        b_row = step.b + image * step.b_image + oh * step.b_row
        for ow in range(out_w):
            for c in range(0, out_c, lanes):
                total = load(isa, weights, bias + c)
                w = weight + c * kernel_h * kernel_w
                for r in range(kernel_h):
                    x = x_row + r * dr + ow * dx + c
                    for _ in range(kernel_w):
                        total = fma(isa, load_x(isa, arena, x), load(isa, weights, w), total)
                        x += ds
                        w += lanes
                if has_b:
                    total = add(total, load_b(isa, arena, b_row + ow * db + c))
                store_y(isa, arena, y_row + ow * dy + c, clip(total, low, high))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)
