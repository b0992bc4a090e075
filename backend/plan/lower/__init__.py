"""Ops -> steps: the table of the functions that do it, one per op. They follow the choices made, and pack weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ...graph.ir import (
    ArgMax,
    BatchNorm,
    Binary,
    Clip,
    Conv,
    Dense,
    Dequantize,
    Mean,
    Pad,
    Pool,
    Quantize,
    QuantizedAdd,
    QuantizedAverage,
    Reshape,
    Softmax,
    Transpose,
)
from .conv import lower_conv, lower_dense
from .quantized import lower_dequantize, lower_quantize, lower_quantized_add, lower_quantized_average
from .rows import lower_batchnorm, lower_clip, lower_pool
from .strided import (
    lower_argmax,
    lower_binary,
    lower_mean,
    lower_pad,
    lower_reshape,
    lower_softmax,
    lower_transpose,
)

LOWER: Final[Mapping[type, Callable[..., None]]] = {
    Conv: lower_conv,
    Dense: lower_dense,
    BatchNorm: lower_batchnorm,
    Pool: lower_pool,
    Mean: lower_mean,
    Binary: lower_binary,
    Clip: lower_clip,
    Softmax: lower_softmax,
    ArgMax: lower_argmax,
    Pad: lower_pad,
    Transpose: lower_transpose,
    Reshape: lower_reshape,
    Quantize: lower_quantize,
    Dequantize: lower_dequantize,
    QuantizedAdd: lower_quantized_add,
    QuantizedAverage: lower_quantized_average,
}
