"""Depthwise convolution of bytes: one filter per channel, sums of int32, requantised as requantize.py says.

The dot product of four bytes adds up taps of one channel, so taps must lie side by side: the three rows of a window's
column and a zero are interleaved to a word per channel, which serves every window that the column is part of. Unpacking
works within 128 bits, and so do the packs that make bytes of the sums again: the order of channels that the former
leave is what the latter undo. Weights, bias and scales come in that order (`step.unpacked_channels`).

A unit is `step.rows` output rows, counted over all images, as in rows.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.integers import byte_dots, dot_operand
from ..simd.memory import operand_pointer, read_elements
from ..simd.tags import lanes_of, mr_of, width_of, x_is_signed
from ..simd.vector import I8, I32, I64, element_pointer, load_vector
from .halo import zero_halo
from .jit import jit
from .requantize import Requantizer
from .rows import unit_rows


def _tile_3x3_u8(stride_w: int) -> Any:
    """The micro-kernel for one stride: MR neighbouring output pixels of NR * lanes channels, in registers."""

    @intrinsic
    def tile_3x3_u8(
        _typing: Any, tile: Any, arena: Any, weights: Any, x: Any, x_row: Any, x_pixel: Any, w: Any, bias: Any,
        scale: Any, y: Any, y_pixel: Any, numbers: Any, stages: Any,
    ) -> Any:  # fmt: skip
        """y[m] = requantised (bias + sum over r, s < 3 of x[m * stride_w + s, r] * w[s, r]), m < MR.

        w: words [s][vector][channel] of three bytes and a zero; bias, scale: [vector][channel].
        """

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            tag, arena_type, weights_type = signature.args[:3]
            _, arena_v, weights_v, x_v, x_row_v, x_pixel_v, w_v, bias_v, scale_v, y_v, y_pixel_v = args[:11]
            numbers_v, stages_v = args[11:]
            mr, channels = tag.tile.mr, tag.tile.nr * tag.isa.lanes
            isa, operands = replace(tag.isa, lanes=channels // 4), tag.operands

            def weights_at(offset: Any, words: int = 0) -> Any:
                pointer = element_pointer(context, builder, weights_type, weights_v, offset)
                return builder.gep(pointer, [I64(words)])

            def vectors_at(offset: Any, first: int = 0) -> list[Any]:
                places = [weights_at(offset, (first + vector) * isa.lanes) for vector in range(4)]
                return [load_vector(builder, place, isa.lanes, scalar=I32) for place in places]

            source = operand_pointer(context, builder, arena_type, arena_v, operands.x, x_v)
            start = vectors_at(bias_v)
            sums = [list(start) for _ in range(mr)]
            taps = [vectors_at(w_v, 4 * s) for s in range(3)]
            for column in range((mr - 1) * stride_w + 3):
                place = builder.gep(source, [builder.mul(x_pixel_v, I64(column))])
                rows = [builder.gep(place, [builder.mul(x_row_v, I64(r))]) for r in range(3)]
                bytes_ = [dot_operand(builder, isa, load_vector(builder, row, channels, 1, I8)) for row in rows]
                words = _interleaved(builder, bytes_)
                for s in range(3):
                    m, rest = divmod(column - s, stride_w)
                    if rest == 0 and 0 <= m < mr:
                        for vector in range(4):
                            total = sums[m][vector]
                            sums[m][vector] = byte_dots(builder, isa, words[vector], taps[s][vector], total)

            requantizer = Requantizer(builder, isa, weights_at(numbers_v))
            results = requantizer.result(sums, weights_at(scale_v), stages_v, None, None)
            first = operand_pointer(context, builder, arena_type, arena_v, operands.y, y_v)
            places = [builder.gep(first, [builder.mul(y_pixel_v, I64(m))]) for m in range(mr)]
            requantizer.write(results, places, operands.y, unpacked=True)
            return context.get_dummy_value()

        del x, x_row, x_pixel, w, bias, scale, y, y_pixel, numbers, stages
        return types.void(tile, arena, weights, *([types.int64] * 10)), emit

    return tile_3x3_u8


_tile_3x3_u8_stride_1 = _tile_3x3_u8(1)
_tile_3x3_u8_stride_2 = _tile_3x3_u8(2)


def _interleaved(builder: Any, rows: list[Any]) -> list[Any]:
    """Three vectors of bytes -> four of words [row 0, row 1, row 2, 0], channels as `step.unpacked_channels` says."""
    count = rows[0].type.count
    zero = ir.Constant(rows[0].type, [0] * count)

    def unpacked(a: Any, b: Any, high: bool, size: int) -> Any:
        """x86's PUNPCKL/H of elements of `size` bytes."""
        mask = []
        for part in range(0, count, 16):
            for index in range(8 // size):
                start = part + (8 if high else 0) + index * size
                mask += [*range(start, start + size), *range(count + start, count + start + size)]
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), mask))

    words = []
    for high in (False, True):
        pairs = unpacked(rows[0], rows[1], high, 1), unpacked(rows[2], zero, high, 1)
        words += [unpacked(*pairs, high=half, size=2) for half in (False, True)]
    return [builder.bitcast(word, ir.VectorType(I32, count // 4)) for word in words]


@jit
def depthwise_3x3_u8(
    tile: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """3x3 windows without dilation whose stride_w is 1 or 2, MR pixels of a row and NR * lanes channels at a time.

    The last tile of a row and the last block of channels overlap their neighbours, so out_w >= MR and
    out_c >= NR * lanes. Weights, bias and scales are packed for each block.
    """
    mr, width = mr_of(tile), width_of(tile)
    out_w, out_c, x_row, x_pixel, dy = step.out_w, step.out_c, step.x_row, step.x_pixel, step.y_pixel
    stride_h, stride_w, weight, scale = step.stride_h, step.stride_w, step.weight, step.scale
    bias = step.signed_bias if x_is_signed(tile) else step.bias
    numbers, stages = step.numbers, step.stages
    x0, y0 = step.x + worker * step.x_worker, step.y + worker * step.y_worker
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x = x0 + image * step.x_image + (oh * stride_h - step.pad_top) * x_row - step.pad_left * x_pixel
        y = y0 + image * step.y_image + oh * step.y_row
        for first in range(0, out_w, mr):
            ow = min(first, out_w - mr)
            for block in range((out_c + width - 1) // width):
                c, n = min(block * width, out_c - width), block * width
                if stride_w == 1:
                    _tile_3x3_u8_stride_1(
                        tile, arena, weights, x + ow * x_pixel + c, x_row, x_pixel, weight + 3 * n, bias + n, scale + n,
                        y + ow * dy + c, dy, numbers, stages,
                    )  # fmt: skip
                else:
                    _tile_3x3_u8_stride_2(
                        tile, arena, weights, x + 2 * ow * x_pixel + c, x_row, x_pixel, weight + 3 * n, bias + n,
                        scale + n, y + ow * dy + c, dy, numbers, stages,
                    )  # fmt: skip
    zero_halo(tile, arena, step, begin * out_w, end * out_w, worker)


@intrinsic
def _pixel(
    _typing: Any, tag: Any, arena: Any, weights: Any, x: Any, dr: Any, ds: Any, kernel_h: Any, kernel_w: Any, w: Any,
    bias: Any, y: Any, b: Any, has_b: Any, scale: Any, numbers: Any, stages: Any,
) -> Any:  # fmt: skip
    """One output pixel of one vector of channels. w: bytes, [r][s][lanes]; bias: int32, both among the weights."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, arena_type, weights_type = signature.args[:3]
        isa, operands, lanes = kind.isa, kind.operands, kind.isa.lanes
        _, arena_v, weights_v, x_v, dr_v, ds_v, kernel_h_v, kernel_w_v, w_v, bias_v, y_v, b_v, has_b_v = args[:13]
        scale_v, numbers_v, stages_v = args[13:]
        sums, words = ir.VectorType(I32, lanes), ir.VectorType(I8, lanes)

        def weights_at(offset: Any) -> Any:
            return element_pointer(context, builder, weights_type, weights_v, offset)

        source = operand_pointer(context, builder, arena_type, arena_v, operands.x, x_v)
        taps = builder.bitcast(weights_at(w_v), I8.as_pointer())
        total = cgutils.alloca_once_value(builder, load_vector(builder, weights_at(bias_v), lanes, scalar=I32))
        with cgutils.for_range(builder, kernel_h_v) as rows, cgutils.for_range(builder, kernel_w_v) as columns:
            place = builder.add(builder.mul(rows.index, dr_v), builder.mul(columns.index, ds_v))
            pixel = builder.load(builder.bitcast(builder.gep(source, [place]), words.as_pointer()), align=1)
            index = builder.add(builder.mul(rows.index, kernel_w_v), columns.index)
            tap = builder.gep(taps, [builder.mul(index, I64(lanes))])
            weight = builder.load(builder.bitcast(tap, words.as_pointer()), align=1)
            product = builder.mul(builder.zext(pixel, sums), builder.sext(weight, sums))
            builder.store(builder.add(builder.load(total), product), total)

        def other() -> list[list[Any]]:
            place = operand_pointer(context, builder, arena_type, arena_v, operands.b, b_v)
            return [[read_elements(builder, operands.b, place, lanes)]]

        requantizer = Requantizer(builder, isa, weights_at(numbers_v))
        result = requantizer.result([[builder.load(total)]], weights_at(scale_v), stages_v, has_b_v, other)
        output = operand_pointer(context, builder, arena_type, arena_v, operands.y, y_v)
        requantizer.write(result, [output], operands.y)
        return context.get_dummy_value()

    del x, dr, ds, kernel_h, kernel_w, w, bias, y, b, has_b, scale, numbers, stages
    return types.void(tag, arena, weights, *([types.int64] * 13)), emit


@jit
def depthwise_u8(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """Any window, pixel by pixel. Weights are packed [channel vector][r][s][lanes], in bytes."""
    lanes = lanes_of(isa)
    kernel_h, kernel_w, out_w, out_c = step.kernel_h, step.kernel_w, step.out_w, step.out_c
    dr, ds = step.dilation_h * step.x_row, step.dilation_w * step.x_pixel
    dx, dy, db = step.stride_w * step.x_pixel, step.y_pixel, step.b_pixel
    weight, bias, scale, numbers, stages, has_b = (
        step.weight, step.bias, step.scale, step.numbers, step.stages, step.has_b,
    )  # fmt: skip
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
                _pixel(
                    isa, arena, weights, x_row + ow * dx + c, dr, ds, kernel_h, kernel_w,
                    weight + c * kernel_h * kernel_w // 4, bias + c, y_row + ow * dy + c, b_row + ow * db + c, has_b,
                    scale + c, numbers, stages,
                )  # fmt: skip
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)
