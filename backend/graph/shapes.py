"""What every op writes (shape and element type), and the one padding formula.

The reader calls `output_value` for each op it makes, the verifier calls it again after each pass, so a shape rule
exists once. Formulas are those of the ONNX operator specification (https://onnx.ai/onnx/operators/). A rule that
cannot hold raises `ModelError` naming the op and the numbers.

May import: ir, errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from ..errors import ModelError
from .ir import (
    ABSENT,
    BATCH,
    ArgMax,
    BatchNorm,
    Binary,
    Clip,
    Conv,
    Dense,
    Dequantize,
    DType,
    Mean,
    Op,
    Pad,
    Pads,
    Pool,
    Quantize,
    QuantizedAdd,
    QuantizedAverage,
    Requantize,
    Reshape,
    Shape,
    Softmax,
    Transpose,
    Value,
    reads,
)

UNKNOWN_BATCH: Final = -(2**62)
"""Stands for the batch size inside a Reshape target that the model computes with Shape (-1 means "the rest" there)."""

AutoPad: TypeAlias = Literal["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]


def window_count(size: int, kernel: int, stride: int, pad_begin: int, pad_end: int, dilation: int) -> int:
    """Output size along one axis: floor((size + pads - (dilation * (kernel - 1) + 1)) / stride) + 1.

    Zero or less where not even one window fits.
    """
    return (size + pad_begin + pad_end - (dilation * (kernel - 1) + 1)) // stride + 1


def resolve_pads(
    auto_pad: AutoPad,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    stated: Pads,
) -> Pads:
    """The pads (top, left, bottom, right) that `auto_pad` means for a picture of `size` = (H, W).

    SAME: OH = ceil(H / stride), total = max((OH - 1) * stride + extent - H, 0), halved, the odd row below
    (SAME_UPPER) or above (SAME_LOWER). `stated` is the model's own `pads`, used for NOTSET only.
    """
    if auto_pad == "NOTSET":
        return stated
    if auto_pad == "VALID":
        return (0, 0, 0, 0)
    begin, end = [], []
    for axis in range(2):
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        windows = -(-size[axis] // strides[axis])
        total = max((windows - 1) * strides[axis] + extent - size[axis], 0)
        less, more = total // 2, total - total // 2
        begin.append(less if auto_pad == "SAME_UPPER" else more)
        end.append(more if auto_pad == "SAME_UPPER" else less)
    return (begin[0], begin[1], end[0], end[1])


def ceil_mode_pads(
    size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], pads: Pads
) -> Pads:
    """`pads` with bottom and right such that the ordinary (floor) count gives the `ceil_mode` count.

    A window that would start behind the picture and its leading pad does not count (as in the specification).
    """
    end = []
    for axis in range(2):
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        padded = size[axis] + pads[axis]
        windows = -(-(padded + pads[axis + 2] - extent) // strides[axis]) + 1
        if (windows - 1) * strides[axis] >= padded:
            windows -= 1
        end.append(max((windows - 1) * strides[axis] + extent - padded, 0))
    return (pads[0], pads[1], end[0], end[1])


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """NumPy broadcasting with BATCH as a size of its own; None where the shapes do not fit."""
    rank = max(len(a), len(b))
    padded_a = (1,) * (rank - len(a)) + a
    padded_b = (1,) * (rank - len(b)) + b
    result = []
    for m, n in zip(padded_a, padded_b, strict=True):
        if m != n and 1 not in (m, n):
            return None
        result.append(n if m == 1 else m)
    shape = tuple(result)
    return None if BATCH in shape[1:] else shape


def resolve_reshape(x: Shape, target: tuple[int, ...], allowzero: bool) -> Shape | None:
    """The shape that ONNX Reshape gives an input of shape `x`; None where there is none.

    0 copies the size of the same axis (an empty axis if `allowzero`, which is refused), one -1 takes the rest,
    UNKNOWN_BATCH is the batch. A batched input must stay batched: its axis 0 may not be merged, split or fixed.
    """
    sizes: list[int | None] = []
    for axis, size in enumerate(target):
        if size == 0 and not allowzero and axis < len(x):
            sizes.append(x[axis])
        elif size == UNKNOWN_BATCH:
            sizes.append(BATCH)
        elif size > 0:
            sizes.append(size)
        elif size == -1 and None not in sizes:
            sizes.append(None)
        else:
            return None
    total = element_count(x)
    known = math.prod(size for size in sizes if size is not None and size != BATCH)
    if is_batched(x) and sizes[:1] == [None] and known == total:
        return (BATCH, *(size for size in sizes[1:] if size is not None))
    shape = tuple(total // known if size is None else size for size in sizes)
    fits = element_count(shape) == total and is_batched(shape) == is_batched(x) and BATCH not in shape[1:]
    return shape if fits else None


def element_count(shape: Shape) -> int:
    """Number of elements, per sample if the shape is batched."""
    return math.prod(size for size in shape if size != BATCH)


def is_batched(shape: Shape) -> bool:
    """Whether axis 0 is BATCH."""
    return shape[:1] == (BATCH,)


def shape_text(shape: Shape) -> str:
    """A shape as users write it: [N, 3, 224, 224]."""
    return "[" + ", ".join("N" if size == BATCH else str(size) for size in shape) + "]"


def output_value(op: Op, values: Mapping[str, Value]) -> Value:
    """Name, shape and dtype of what `op` writes, given the values that it reads.

    For Reshape the shape is the one that `values` already states for its output: the op itself names no shape.
    Raises ModelError where the op does not fit what it reads.
    """
    dtype = _dtype(op, values)
    shape = _RULES[type(op)](op, values)
    for axis, size in enumerate(shape):
        if size < 1 and not (axis == 0 and size == BATCH):
            raise _misfit(op, f"the output would have shape {shape_text(shape)}")
    return Value(op.output, shape, dtype)


def _misfit(op: Op, problem: str) -> ModelError:
    return ModelError(f"node {op.name!r} ({type(op).__name__}): {problem}")


_SMALL: Final = ("uint8", "int8")


def _dtype(op: Op, values: Mapping[str, Value]) -> DType:
    if isinstance(op, (Reshape, Transpose)):
        return values[op.x].dtype
    if isinstance(op, Pad) or (isinstance(op, Pool) and op.kind == "max"):
        _expect(op, values, op.x, ("float32", *_SMALL))
        return values[op.x].dtype
    if isinstance(op, (Conv, Dense)) and isinstance(op.epilogue, Requantize):
        _expect(op, values, op.weight, ("int8",))
        _expect(op, values, op.bias, ("int32",))
        _expect(op, values, op.epilogue.scale, ("float32",))
        _expect(op, values, op.epilogue.residual, _SMALL)
    elif not isinstance(op, (Dequantize, QuantizedAdd, QuantizedAverage)):
        for name in reads(op):
            _expect(op, values, name, ("float32",))
        if isinstance(op, Quantize):
            return op.quantization.dtype
        return "int64" if isinstance(op, ArgMax) else "float32"
    for name in (op.a, op.b) if isinstance(op, QuantizedAdd) else (op.x,):
        _expect(op, values, name, (op.quantization.dtype,) if isinstance(op, Dequantize) else _SMALL)
    if isinstance(op, Dequantize):
        return "float32"
    return op.epilogue.dtype if isinstance(op, (Conv, Dense)) else op.dtype  # type: ignore[union-attr]


def _expect(op: Op, values: Mapping[str, Value], name: str, allowed: tuple[str, ...]) -> None:
    if name != ABSENT and values[name].dtype not in allowed:
        raise _misfit(op, f"input {name!r} is {values[name].dtype}; only {' or '.join(allowed)} is supported here")


def _conv(op: Conv, values: Mapping[str, Value]) -> Shape:
    x, weight = values[op.x].shape, values[op.weight].shape
    if len(x) != 4 or len(weight) != 4:
        raise _misfit(
            op, f"input {shape_text(x)}, weight {shape_text(weight)}; only 2-D convolution (rank 4) is supported"
        )
    filters, channels, kernel = weight[0], weight[1], weight[2:]
    if op.group < 1 or x[1] != channels * op.group or filters % op.group:
        raise _misfit(op, f"input {shape_text(x)} does not fit weight {shape_text(weight)} with group {op.group}")
    if op.bias != ABSENT and values[op.bias].shape != (filters,):
        raise _misfit(op, f"bias {shape_text(values[op.bias].shape)} should be [{filters}]")
    return (x[0], filters, *_windows(op, x, (kernel[0], kernel[1])))


def _windows(op: Conv | Pool | QuantizedAverage, x: Shape, kernel: tuple[int, int]) -> tuple[int, int]:
    if min(kernel + op.strides + op.dilations) < 1 or min(op.pads) < 0:
        raise _misfit(
            op,
            f"kernel {kernel}, strides {op.strides}, dilations {op.dilations} must be positive, pads {op.pads} >= 0",
        )
    out = [
        window_count(x[2 + i], kernel[i], op.strides[i], op.pads[i], op.pads[i + 2], op.dilations[i]) for i in range(2)
    ]
    if min(out) < 1:
        raise _misfit(
            op,
            f"kernel {kernel} with dilations {op.dilations} exceeds input {shape_text(x)} with pads {op.pads}",
        )
    return out[0], out[1]


def _dense(op: Dense, values: Mapping[str, Value]) -> Shape:
    x, weight = values[op.x].shape, values[op.weight].shape
    if len(x) < 2 or len(weight) != 2 or x[-1] != weight[0]:
        raise _misfit(op, f"input {shape_text(x)} does not fit weight {shape_text(weight)}")
    if op.bias != ABSENT and values[op.bias].shape != (weight[1],):
        raise _misfit(op, f"bias {shape_text(values[op.bias].shape)} should be [{weight[1]}]")
    return (*x[:-1], weight[1])


def _batch_norm(op: BatchNorm, values: Mapping[str, Value]) -> Shape:
    x = values[op.x].shape
    if len(x) < 2 or any(values[name].shape != (x[1],) for name in (op.scale, op.shift)):
        raise _misfit(
            op,
            f"input {shape_text(x)} does not fit scale {shape_text(values[op.scale].shape)} "
            f"and shift {shape_text(values[op.shift].shape)}",
        )
    return x


def _pool(op: Pool | QuantizedAverage, values: Mapping[str, Value]) -> Shape:
    x = values[op.x].shape
    if len(x) != 4:
        raise _misfit(op, f"input {shape_text(x)}; only 2-D pooling (rank 4) is supported")
    return (*x[:2], *_windows(op, x, op.kernel))


def _mean(op: Mean, values: Mapping[str, Value]) -> Shape:
    return _reduced(op, values[op.x].shape, op.axes, op.keepdims)


def _argmax(op: ArgMax, values: Mapping[str, Value]) -> Shape:
    return _reduced(op, values[op.x].shape, (op.axis,), op.keepdims)


def _reduced(op: Op, x: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    _own_axes(op, x, axes)
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(x))
    return tuple(size for axis, size in enumerate(x) if axis not in axes)


def _own_axes(op: Op, x: Shape, axes: tuple[int, ...]) -> None:
    """Refuses axes that the input does not have, and the batch axis: samples must not depend on one another."""
    for axis in axes:
        if not 0 <= axis < len(x):
            raise _misfit(op, f"axis {axis} of input {shape_text(x)} does not exist")
        if x[axis] == BATCH:
            raise _misfit(op, f"works across the batch (axis {axis} of input {shape_text(x)}); this is not supported")


def _binary(op: Binary, values: Mapping[str, Value]) -> Shape:
    a, b = values[op.a].shape, values[op.b].shape
    shape = broadcast(a, b)
    if shape is None:
        raise _misfit(op, f"shapes {shape_text(a)} and {shape_text(b)} do not broadcast")
    return shape


def _same(op: Clip | Quantize | Dequantize, values: Mapping[str, Value]) -> Shape:
    return values[op.x].shape


def _quantized_add(op: QuantizedAdd, values: Mapping[str, Value]) -> Shape:
    a, b = values[op.a].shape, values[op.b].shape
    if a != b:
        raise _misfit(op, f"shapes {shape_text(a)} and {shape_text(b)} differ")
    return a


def _softmax(op: Softmax, values: Mapping[str, Value]) -> Shape:
    x = values[op.x].shape
    _own_axes(op, x, (op.axis,))
    return x


def _pad(op: Pad, values: Mapping[str, Value]) -> Shape:
    x = values[op.x].shape
    if len(op.pads) != len(x):
        raise _misfit(op, f"{len(op.pads)} pairs of pads for input {shape_text(x)}")
    _own_axes(op, x, tuple(axis for axis, pair in enumerate(op.pads) if pair != (0, 0)))
    return tuple(size + sum(pair) for size, pair in zip(x, op.pads, strict=True))


def _transpose(op: Transpose, values: Mapping[str, Value]) -> Shape:
    x = values[op.x].shape
    if sorted(op.perm) != list(range(len(x))):
        raise _misfit(op, f"perm {op.perm} is not a permutation of the axes of input {shape_text(x)}")
    if is_batched(x) and op.perm[0] != 0:
        raise _misfit(op, f"perm {op.perm} moves the batch axis of input {shape_text(x)}; this is not supported")
    return tuple(x[axis] for axis in op.perm)


def _reshape(op: Reshape, values: Mapping[str, Value]) -> Shape:
    x, target = values[op.x].shape, values[op.output].shape
    if is_batched(x) != is_batched(target) or element_count(x) != element_count(target):
        raise _misfit(op, f"input {shape_text(x)} cannot take shape {shape_text(target)}")
    return target


_RULES: Final[dict[type, Callable[..., Shape]]] = {
    Conv: _conv,
    Dense: _dense,
    BatchNorm: _batch_norm,
    Pool: _pool,
    Mean: _mean,
    Binary: _binary,
    Clip: _same,
    Softmax: _softmax,
    ArgMax: _argmax,
    Pad: _pad,
    Transpose: _transpose,
    Reshape: _reshape,
    Quantize: _same,
    Dequantize: _same,
    QuantizedAdd: _quantized_add,
    QuantizedAverage: _pool,
}
