"""QuantizeLinear and DequantizeLinear: activations become ops, constants are computed at once and remembered.

A constant behind DequantizeLinear reaches the graph as float32, so that every op and pass can use it; what it was made
from is in `GraphBuilder.quantized`. Supported are uint8 and int8, for constants also int32, per tensor or per index of
one axis. Everything else that ONNX knows (4-bit and 16-bit integers, 8-bit floats, blocks) is refused by name.

Specification: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html . Called through `onnx_ops.OPERATORS`.

May import: ir, builder, errors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from .builder import Array, GraphBuilder, Node
from .ir import Dequantize, Quantization, Quantize, QuantizedConstant

_TYPE_NAMES: Final = {
    2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 10: "FLOAT16", 16: "BFLOAT16", 17: "FLOAT8E4M3FN",
    18: "FLOAT8E4M3FNUZ", 19: "FLOAT8E5M2", 20: "FLOAT8E5M2FNUZ", 21: "UINT4", 22: "INT4", 23: "FLOAT4E2M1",
    24: "FLOAT8E8M0", 25: "UINT2", 26: "INT2",
}  # fmt: skip
"""ONNX TensorProto element types that quantisation uses."""

_OUTPUT_TYPES: Final = {0: None, 2: "uint8", 3: "int8"}
"""What `output_dtype` may say; 0 leaves it to the zero point."""


def quantize_linear(b: GraphBuilder, node: Node) -> None:
    """float32 -> uint8 or int8."""
    dtype = _output_dtype(node)
    x, output = node.input(0), node.outputs[0]
    if x in b.known:
        numbers = b.numbers(node, 0)
        quantization = _quantization(b, node, dtype, numbers.shape)
        b.known[output] = quantize(numbers, quantization)
        return
    value = b.tensor(node, 0)
    b.emit(Quantize(node.name, value.name, output, _quantization(b, node, dtype, value.shape)))


def dequantize_linear(b: GraphBuilder, node: Node) -> None:
    """uint8 or int8 -> float32; a constant, which may also be int32, becomes a float32 constant."""
    x, output = node.input(0), node.outputs[0]
    if _output_dtype(node, allowed=(0, 1)) is not None:
        raise node.error("attribute 'output_dtype' is not FLOAT; only float32 is supported")
    if x in b.known:
        stored = b.array(node, 0)
        if stored.dtype not in (np.uint8, np.int8, np.int32):
            raise node.error(f"constant {x!r} is {stored.dtype}; supported are uint8, int8 and int32")
        quantization = _quantization(b, node, str(stored.dtype), stored.shape)
        b.known[output] = dequantize(stored, quantization)
        b.quantized[output] = QuantizedConstant(np.ascontiguousarray(stored), quantization)
        return
    value = b.tensor(node, 0)
    if value.dtype not in ("uint8", "int8"):
        raise node.error(f"input {x!r} is {value.dtype}; supported are uint8 and int8")
    b.emit(Dequantize(node.name, x, output, _quantization(b, node, value.dtype, value.shape)))


def _output_dtype(node: Node, allowed: tuple[int, ...] = tuple(_OUTPUT_TYPES)) -> str | None:
    """What the attributes say about the output's type; refuses what is not supported."""
    block = node.integer("block_size", 0)
    if block:
        raise node.error(f"quantises in blocks of {block}; supported is one scale per tensor or per channel")
    if node.integer("precision", 0) not in (0, 1):
        raise node.error("attribute 'precision' is not FLOAT; only float32 is supported")
    stated = node.integer("output_dtype", 0)
    if stated not in allowed:
        name = _TYPE_NAMES.get(stated, str(stated))
        raise node.error(f"quantises to element type {name}; supported are UINT8 and INT8")
    return _OUTPUT_TYPES.get(stated)


def _quantization(b: GraphBuilder, node: Node, dtype: str | None, shape: tuple[int, ...]) -> Quantization:
    """Scale and zero point of a node whose input has this shape. dtype: None where the zero point decides."""
    scale = b.numbers(node, 1)
    zero_point = b.array(node, 2) if node.input(2) else np.zeros(scale.shape, dtype or "uint8")
    dtype = dtype or str(zero_point.dtype)
    if dtype not in ("uint8", "int8", "int32") or str(zero_point.dtype) != dtype:
        raise node.error(f"zero point is {zero_point.dtype} for {dtype}; supported are uint8 and int8, both alike")
    if zero_point.shape != scale.shape and not zero_point.size == scale.size == 1:
        raise node.error(f"scale has shape {list(scale.shape)}, zero point {list(zero_point.shape)}; they must agree")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise node.error(f"scale falls to {scale.min()}; scales are positive and finite")
    axis = 0
    if scale.size > 1:
        axis = node.integer("axis", 1) if b.opset >= 13 else 1
        axis += len(shape) if axis < 0 else 0
        if scale.ndim != 1 or not 0 <= axis < len(shape) or shape[axis] != scale.size:
            raise node.error(
                f"scale of shape {list(scale.shape)} along axis {axis} does not fit the input's shape {list(shape)}; "
                "supported is one scale per tensor or per channel"
            )
    return Quantization(
        cast(Any, dtype),
        tuple(float(item) for item in scale.reshape(-1)),
        tuple(int(item) for item in zero_point.reshape(-1)),
        axis,
    )


def _aligned(items: tuple[float, ...], rank: int, axis: int, dtype: type[Any]) -> npt.NDArray[Any]:
    array = np.array(items, dtype)
    return array.reshape([-1 if i == axis else 1 for i in range(rank)]) if len(items) > 1 else array.reshape(())


def quantize(x: npt.NDArray[np.floating[Any]], quantization: Quantization) -> Array:
    """clip(rint(x / scale) + zero_point), in float32; a NaN becomes the lowest value."""
    scale = _aligned(quantization.scale, x.ndim, quantization.axis, np.float32)
    zero_point = _aligned(quantization.zero_point, x.ndim, quantization.axis, np.int64)
    range_ = np.iinfo(quantization.dtype)
    with np.errstate(all="ignore"):
        steps = np.rint(np.asarray(x, np.float32) / scale)
        low, high = range_.min - zero_point, range_.max - zero_point
        steps = np.where(np.isnan(steps), low, np.clip(steps, low, high))
    return np.asarray(steps.astype(np.int64) + zero_point).astype(quantization.dtype)


def dequantize(stored: Array, quantization: Quantization) -> npt.NDArray[np.float32]:
    """(stored - zero_point) * scale, in float32."""
    scale = _aligned(quantization.scale, stored.ndim, quantization.axis, np.float32)
    zero_point = _aligned(quantization.zero_point, stored.ndim, quantization.axis, np.int64)
    return np.asarray((stored.astype(np.int64) - zero_point).astype(np.float32) * scale)


def transposed(constant: QuantizedConstant) -> QuantizedConstant:
    """Of a matrix, its transpose."""
    quantization = replace(constant.quantization, axis=1 - constant.quantization.axis)
    return QuantizedConstant(np.ascontiguousarray(constant.stored.T), quantization)
