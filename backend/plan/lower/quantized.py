"""Ops between real numbers and quantised ones, and those that stay quantised: row by row."""

from __future__ import annotations

import numpy as np

from ...graph.ir import Dequantize, Quantize, QuantizedAdd, QuantizedAverage
from ...kernels.step import KernelKey, KernelName
from ..layout import Layout
from ..planning import Planning, unsupported
from .fields import window_fields


def lower_quantize(planning: Planning, op: Quantize) -> None:
    """Nothing if the input was quantised as it was imported."""
    if planning.quantized_input(op.x) is None:
        _convert(planning, op, "quantize", op.output)


def lower_dequantize(planning: Planning, op: Dequantize) -> None:
    """To float32."""
    _convert(planning, op, "dequantize", op.x)


def _convert(planning: Planning, op: Quantize | Dequantize, kernel: KernelName, stored: str) -> None:
    """One step with a scale and a zero point for each stored channel. stored: the value of integers."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    quantization = op.quantization
    if not quantization.per_tensor and y.strides[quantization.axis] != 1:
        raise unsupported(op, f"has scales along axis {quantization.axis}; only along the channels can be run")
    scale, zero = np.ones(y.channels_stored, np.float32), np.zeros(y.channels_stored, np.float32)
    scale[: y.c] = quantization.scale
    zero[: y.c] = [planning.stored_zero(stored, zero_point) for zero_point in quantization.zero_point]
    planning.step(
        KernelKey(kernel),
        op.name,
        x=(op.x, x.inside),
        y=(op.output, y.inside),
        scale=planning.buffers.add_weights(scale),
        bias=planning.buffers.add_weights(zero),
        **_window(x, y),
    )


def lower_quantized_add(planning: Planning, op: QuantizedAdd) -> None:
    """Of two pictures of one shape."""
    a, b, y = (planning.layout(name) for name in (op.a, op.b, op.output))
    zero = planning.stored_zero(op.output, op.zero_point)
    zeros = planning.stored_zero(op.a, op.a_zero_point), planning.stored_zero(op.b, op.b_zero_point)
    numbers = np.array([zeros[0], op.a_scale, zeros[1], op.b_scale, zero], np.float32)
    planning.step(
        KernelKey("quantized_add"),
        op.name,
        x=(op.a, a.inside),
        b=(op.b, b.inside),
        y=(op.output, y.inside),
        b_image=b.image,
        b_row=b.row,
        b_pixel=b.pixel,
        low=op.low,
        high=op.high,
        numbers=planning.buffers.add_weights(numbers),
        **_window(a, y),
    )


def lower_quantized_average(planning: Planning, op: QuantizedAverage) -> None:
    """Average pooling; a global average is one window."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    zeros = planning.stored_zero(op.x, op.x_zero_point), planning.stored_zero(op.output, op.zero_point)
    numbers = np.array([zeros[0], op.factor, zeros[1]], np.float32)
    planning.step(
        KernelKey("quantized_average"),
        op.name,
        x=(op.x, x.inside),
        y=(op.output, y.inside),
        low=op.low,
        high=op.high,
        numbers=planning.buffers.add_weights(numbers),
        **window_fields(x, y, op.kernel, op.strides, op.dilations, op.pads[:2]),
    )


def _window(x: Layout, y: Layout) -> dict[str, int]:
    return window_fields(x, y, (1, 1), (1, 1), (1, 1), (0, 0))
