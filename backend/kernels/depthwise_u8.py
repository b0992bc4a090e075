"""Depthwise convolution of bytes: one filter per channel, sums of int32, requantised as requantize.py says.

A unit is `step.rows` output rows, counted over all images, as in rows.py.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.memory import operand_pointer, read_elements
from ..simd.tags import lanes_of
from ..simd.vector import I8, I32, I64, element_pointer, load_vector
from .halo import zero_halo
from .jit import jit
from .requantize import Requantizer
from .rows import unit_rows


@intrinsic
def _pixel(
    _typing: Any, tag: Any, arena: Any, weights: Any, x: Any, dr: Any, ds: Any, kernel_h: Any, kernel_w: Any, w: Any,
    bias: Any, y: Any, b: Any, has_b: Any, scale: Any, numbers: Any, inner: Any,
) -> Any:  # fmt: skip
    """One output pixel of one vector of channels. w: bytes, [r][s][lanes]; bias: int32, both among the weights."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, arena_type, weights_type = signature.args[:3]
        isa, operands, lanes = kind.isa, kind.operands, kind.isa.lanes
        _, arena_v, weights_v, x_v, dr_v, ds_v, kernel_h_v, kernel_w_v, w_v, bias_v, y_v, b_v, has_b_v = args[:13]
        scale_v, numbers_v, inner_v = args[13:]
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

        requantizer = Requantizer(builder, isa, weights_at(numbers_v))
        result = requantizer.scaled([[builder.load(total)]], weights_at(scale_v))
        value = cgutils.alloca_once_value(builder, result[0][0])
        with builder.if_then(builder.icmp_signed("!=", inner_v, I64(0))):
            builder.store(requantizer.rounded_inside([[builder.load(value)]])[0][0], value)
        with builder.if_then(builder.icmp_signed("!=", has_b_v, I64(0))):
            place = operand_pointer(context, builder, arena_type, arena_v, operands.b, b_v)
            other = read_elements(builder, operands.b, place, lanes)
            builder.store(requantizer.added([[builder.load(value)]], [[other]])[0][0], value)
        output = operand_pointer(context, builder, arena_type, arena_v, operands.y, y_v)
        requantizer.write([[builder.load(value)]], [output], operands.y)
        return context.get_dummy_value()

    del x, dr, ds, kernel_h, kernel_w, w, bias, y, b, has_b, scale, numbers, inner
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
    weight, bias, scale, numbers, inner, has_b = (
        step.weight, step.bias, step.scale, step.numbers, step.inner, step.has_b,
    )  # fmt: skip
    begin, end = unit_rows(step, images, unit)
    for row in range(begin, end):
        image, oh = divmod(row, step.out_h)
        x_row = step.x + image * step.x_image + (oh * step.stride_h - step.pad_top) * step.x_row
        x_row -= step.pad_left * step.x_pixel
        y_row = step.y + image * step.y_image + oh * step.y_row
        b_row = step.b + image * step.b_image + oh * step.b_row
        for ow in range(out_w):
            for c in range(0, out_c, lanes):
                _pixel(
                    isa, arena, weights, x_row + ow * dx + c, dr, ds, kernel_h, kernel_w,
                    weight + c * kernel_h * kernel_w // 4, bias + c, y_row + ow * dy + c, b_row + ow * db + c, has_b,
                    scale + c, numbers, inner,
                )  # fmt: skip
    zero_halo(isa, arena, step, begin * out_w, end * out_w)
