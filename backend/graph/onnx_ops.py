"""One function per ONNX op type: node -> records of the intermediate representation, every attribute resolved.

The table `OPERATORS` is what the reader supports beside the nodes it computes itself (`onnx_constants`). Differences
between operator-set versions 7 to 28 are decided here, and nowhere else. Specification:
https://onnx.ai/onnx/operators/ . Knows no onnx object.

May import: ir, shapes, builder, errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, cast

import numpy as np

from .builder import GraphBuilder, Node
from .ir import (
    ABSENT,
    BATCH,
    ArgMax,
    BatchNorm,
    Binary,
    Clip,
    Conv,
    Dense,
    Mean,
    Pad,
    Pads,
    Pool,
    Shape,
    Softmax,
    Transpose,
    Value,
)
from .onnx_quantization import dequantize_linear, quantize_linear, transposed
from .shapes import (
    UNKNOWN_BATCH,
    AutoPad,
    ceil_mode_pads,
    element_count,
    is_batched,
    resolve_pads,
    resolve_reshape,
    shape_text,
)

_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_FLOAT: Final = 1
_INT64: Final = 7


def _axis(node: Node, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise node.error(f"axis {axis} does not exist in an input of rank {rank}")
    return axis % rank


def _axes(node: Node, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    resolved = tuple(sorted(_axis(node, axis, rank) for axis in axes))
    if len(set(resolved)) != len(resolved):
        raise node.error(f"axes {list(axes)} repeat an axis")
    return resolved


def _axes_argument(b: GraphBuilder, node: Node, input_since: int) -> tuple[int, ...] | None:
    """Axes given as an attribute, or since opset `input_since` as input 1; None where the node leaves them out."""
    if b.opset < input_since:
        return node.integers("axes", ()) if "axes" in node.attributes else None
    return b.integers(node, 1) if node.input(1) else None


def _stated_pads(node: Node) -> Pads:
    pads = node.integers("pads", (0, 0, 0, 0))
    if len(pads) != 4 or min(pads) < 0:
        raise node.error(f"attribute 'pads' is {list(pads)}; expected four numbers that are not negative")
    return pads[0], pads[1], pads[2], pads[3]


def _auto_pad(node: Node) -> AutoPad:
    value = node.text("auto_pad", "NOTSET")
    if value not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.error(f"attribute 'auto_pad' is {value!r}; supported: NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    return cast(AutoPad, value)


def _picture(b: GraphBuilder, node: Node) -> Value:
    x = b.tensor(node, 0)
    if len(x.shape) != 4:
        raise node.error(f"input {x.name!r} has shape {shape_text(x.shape)}; only 2-D pictures (rank 4) are supported")
    return x


def _positive(node: Node, **pairs: tuple[int, int]) -> None:
    for key, pair in pairs.items():
        if min(pair) < 1:
            raise node.error(f"attribute {key!r} is {list(pair)}; expected positive numbers")


def _conv(b: GraphBuilder, node: Node) -> None:
    x = _picture(b, node)
    weight = b.weight(node, 1)
    shape = b.values[weight].shape
    if len(shape) != 4:
        raise node.error(f"weight {weight!r} has shape {list(shape)}; only 2-D convolution (rank 4) is supported")
    kernel = shape[2], shape[3]
    if node.pair("kernel_shape", kernel) != kernel:
        raise node.error(
            f"attribute 'kernel_shape' is {node.attributes['kernel_shape']}, weight {weight!r} has {kernel}"
        )
    strides, dilations = node.pair("strides", (1, 1)), node.pair("dilations", (1, 1))
    _positive(node, strides=strides, dilations=dilations)
    b.emit(
        Conv(
            name=node.name,
            x=x.name,
            weight=weight,
            bias=b.weight(node, 2) if node.input(2) else ABSENT,
            output=node.outputs[0],
            strides=strides,
            pads=resolve_pads(
                _auto_pad(node), (x.shape[2], x.shape[3]), kernel, strides, dilations, _stated_pads(node)
            ),
            dilations=dilations,
            group=node.integer("group", 1),
        )
    )


def _pool(kind: Literal["max", "average"], b: GraphBuilder, node: Node) -> None:
    x = _picture(b, node)
    size = (x.shape[2], x.shape[3])
    kernel = node.pair("kernel_shape", None)
    strides, dilations = node.pair("strides", (1, 1)), node.pair("dilations", (1, 1))
    _positive(node, kernel_shape=kernel, strides=strides, dilations=dilations)
    auto_pad = _auto_pad(node)
    counted = pads = resolve_pads(auto_pad, size, kernel, strides, dilations, _stated_pads(node))
    if node.integer("ceil_mode", 0) and auto_pad == "NOTSET":
        pads = ceil_mode_pads(size, kernel, strides, dilations, pads)
    include = kind == "average" and node.integer("count_include_pad", 0) == 1
    b.emit(
        Pool(
            name=node.name,
            kind=kind,
            x=x.name,
            output=node.outputs[0],
            kernel=kernel,
            strides=strides,
            pads=pads,
            dilations=dilations,
            count_include_pad=include,
            counted_pads=counted if include else (0, 0, 0, 0),
        )
    )


def _global_average_pool(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    if len(x.shape) < 3:
        raise node.error(f"input {x.name!r} has shape {shape_text(x.shape)}; expected N, C and at least one more axis")
    b.emit(Mean(node.name, x.name, node.outputs[0], tuple(range(2, len(x.shape))), keepdims=True))


def _batch_normalization(b: GraphBuilder, node: Node) -> None:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta as x * scale + shift, derived in float64."""
    if node.integer("training_mode", 0) or not node.integer("spatial", 1):
        raise node.error("only the inference form (training_mode=0, spatial=1) is supported")
    x = b.tensor(node, 0)
    gamma, beta, mean, variance = (b.numbers(node, i).astype(np.float64) for i in range(1, 5))
    channels = x.shape[1:2]
    if not gamma.shape == beta.shape == mean.shape == variance.shape == channels:
        shapes = [list(array.shape) for array in (gamma, beta, mean, variance)]
        raise node.error(f"scale, bias, mean and variance have shapes {shapes}; input {shape_text(x.shape)} needs [C]")
    floor = variance + node.number("epsilon", 1e-5)
    if not (floor > 0).all():
        raise node.error(f"variance + epsilon falls to {floor.min()}; it must be positive")
    scale = gamma / np.sqrt(floor)
    b.emit(
        BatchNorm(
            name=node.name,
            x=x.name,
            scale=b.add_weight(f"{node.outputs[0]}.scale", scale),
            shift=b.add_weight(f"{node.outputs[0]}.shift", beta - mean * scale),
            output=node.outputs[0],
        )
    )


def _relu(b: GraphBuilder, node: Node) -> None:
    b.emit(Clip(node.name, b.tensor(node, 0).name, node.outputs[0], 0.0, math.inf))


def _clip(b: GraphBuilder, node: Node) -> None:
    if b.opset < 11:
        low, high = node.number("min", -_FLOAT32_MAX), node.number("max", _FLOAT32_MAX)
    else:
        low = b.scalar(node, 1) if node.input(1) else -_FLOAT32_MAX
        high = b.scalar(node, 2) if node.input(2) else _FLOAT32_MAX
    if math.isnan(low) or math.isnan(high):
        raise node.error(f"bounds {low} and {high}: NaN bounds nothing")
    low = -math.inf if low <= -_FLOAT32_MAX else low
    high = math.inf if high >= _FLOAT32_MAX else high
    b.emit(Clip(node.name, b.tensor(node, 0).name, node.outputs[0], low, high))


def _gemm(b: GraphBuilder, node: Node) -> None:
    """alpha * A' @ B' + beta * C; alpha, beta and the transpose of B go into the constants."""
    a = b.tensor(node, 0)
    if len(a.shape) != 2:
        raise node.error(f"input {a.name!r} has shape {shape_text(a.shape)}, expected rank 2")
    x = a.name
    if node.integer("transA", 0):
        x = b.fresh(f"{node.outputs[0]}.transposed")
        b.emit(Transpose(f"{node.name}.transpose", a.name, x, (1, 0)))
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    weight = b.weight(node, 1)
    matrix = b.constants[weight].astype(np.float64)
    if matrix.ndim != 2:
        raise node.error(f"input 1 ({weight!r}) has shape {list(matrix.shape)}, expected rank 2")
    if node.integer("transB", 0) or alpha != 1.0:
        stated = b.quantized.get(weight)
        matrix = alpha * (matrix.T if node.integer("transB", 0) else matrix)
        weight = b.add_weight(f"{node.outputs[0]}.weight", matrix)
        if stated is not None and alpha == 1.0:
            b.quantized[weight] = transposed(stated)
    _dense(b, node, x, weight, 2 if node.input(2) and beta != 0.0 else None, beta)


def _dense(b: GraphBuilder, node: Node, x: str, weight: str, addend_index: int | None, beta: float) -> None:
    """Dense, with beta * input `addend_index` as its bias where that is one number per output, else added behind it."""
    output, bias, addend = node.outputs[0], ABSENT, ABSENT
    columns = b.values[weight].shape[1]
    if addend_index is not None and node.input(addend_index) in b.known:
        source = b.weight(node, addend_index)
        array = beta * b.constants[source].astype(np.float64)
        if array.size in (1, columns) and array.shape[-1:] in ((), (1,), (columns,)):
            bias = b.add_weight(f"{output}.bias", np.broadcast_to(array.reshape(-1), (columns,)))
            if source in b.quantized and beta == 1.0 and array.shape == (columns,):
                b.quantized[bias] = b.quantized[source]
        else:
            addend = b.add_weight(f"{output}.addend", array)
    elif addend_index is not None:
        addend = b.tensor(node, addend_index).name
        if beta != 1.0:
            scaled = b.fresh(f"{output}.addend")
            factor = b.add_weight(f"{output}.beta", np.array(beta))
            b.emit(Binary(f"{node.name}.scale", "mul", addend, factor, scaled))
            addend = scaled
    product = output if addend == ABSENT else b.fresh(f"{output}.product")
    shape = b.emit(Dense(node.name, x, weight, bias, product)).shape
    if addend != ABSENT and b.emit(Binary(f"{node.name}.add", "add", product, addend, output)).shape != shape:
        raise node.error(f"input {addend_index} does not broadcast to the product's shape {shape_text(shape)}")


def _matmul(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    weight = b.weight(node, 1)
    if len(x.shape) < 2 or len(b.values[weight].shape) != 2:
        raise node.error(
            f"input {shape_text(x.shape)} times {shape_text(b.values[weight].shape)}; supported is a matrix (or a "
            "stack of them) times a constant matrix"
        )
    _dense(b, node, x.name, weight, None, 1.0)


def _binary(kind: Literal["add", "sub", "mul", "div"], b: GraphBuilder, node: Node) -> None:
    b.emit(Binary(node.name, kind, b.operand(node, 0).name, b.operand(node, 1).name, node.outputs[0]))


def _sum(b: GraphBuilder, node: Node) -> None:
    total = b.operand(node, 0).name
    if len(node.inputs) == 1:
        b.reshape(node.name, total, node.outputs[0], b.values[total].shape)
    for index in range(1, len(node.inputs)):
        last = index == len(node.inputs) - 1
        output = node.outputs[0] if last else b.fresh(f"{node.outputs[0]}.{index}")
        b.emit(Binary(node.name if last else f"{node.name}.{index}", "add", total, b.operand(node, index).name, output))
        total = output


def _pad(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    rank = len(x.shape)
    if node.text("mode", "constant") != "constant":
        raise node.error(f"attribute 'mode' is {node.attributes['mode']!r}; only 'constant' is supported")
    if b.opset < 11:
        pads, value = node.integers("pads", None), node.number("value", 0.0)
    else:
        pads, value = b.integers(node, 1), b.scalar(node, 2) if node.input(2) else 0.0
    axes = tuple(range(rank))
    if b.opset >= 18 and node.input(3):
        axes = tuple(_axis(node, axis, rank) for axis in b.integers(node, 3))
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise node.error(f"{len(pads)} pads for {len(axes)} axes {list(axes)}; expected two for each axis")
    pairs = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pairs[axis] = (pads[i], pads[i + len(axes)])
    b.emit(Pad(node.name, x.name, node.outputs[0], tuple(pairs), value))


def _reduce_mean(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    axes = _axes_argument(b, node, 18)
    if not axes:
        if node.integer("noop_with_empty_axes", 0):
            _copy(b, node)
            return
        axes = tuple(range(len(x.shape)))
    axes = _axes(node, axes, len(x.shape))
    b.emit(Mean(node.name, x.name, node.outputs[0], axes, node.integer("keepdims", 1) == 1))


def _softmax(b: GraphBuilder, node: Node) -> None:
    """Over one axis since opset 13; before, over all axes from `axis` on, taken as one."""
    x = b.tensor(node, 0)
    rank = len(x.shape)
    axis = _axis(node, node.integer("axis", -1 if b.opset >= 13 else 1), rank)
    wide = [i for i in range(axis, rank) if x.shape[i] != 1]
    if b.opset >= 13 or len(wide) <= 1:
        b.emit(Softmax(node.name, x.name, node.outputs[0], axis if b.opset >= 13 or not wide else wide[0]))
        return
    if is_batched(x.shape) and axis == 0:
        raise node.error(f"axis 0 of input {shape_text(x.shape)} works across the batch; this is not supported")
    flat, result = b.fresh(f"{node.outputs[0]}.flat"), b.fresh(f"{node.outputs[0]}.softmax")
    b.reshape(f"{node.name}.flatten", x.name, flat, (*x.shape[:axis], element_count(x.shape[axis:])))
    b.emit(Softmax(node.name, flat, result, axis))
    b.reshape(f"{node.name}.restore", result, node.outputs[0], x.shape)


def _arg_max(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    axis = _axis(node, node.integer("axis", 0), len(x.shape))
    keepdims, select_last = node.integer("keepdims", 1) == 1, node.integer("select_last_index", 0) == 1
    b.emit(ArgMax(node.name, x.name, node.outputs[0], axis, keepdims, select_last))


def _transpose(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    perm = node.integers("perm", tuple(reversed(range(len(x.shape)))))
    b.emit(Transpose(node.name, x.name, node.outputs[0], perm))


def _reshape_to(b: GraphBuilder, node: Node, target: tuple[int, ...], allowzero: bool = False) -> None:
    x = b.tensor(node, 0)
    shape = resolve_reshape(x.shape, target, allowzero)
    if shape is None:
        wanted = ["N" if size == UNKNOWN_BATCH else size for size in target]
        hint = "; the batch must stay in axis 0 of a model with a dynamic batch" if is_batched(x.shape) else ""
        raise node.error(f"input {x.name!r} of shape {shape_text(x.shape)} cannot take shape {wanted}{hint}")
    b.reshape(node.name, x.name, node.outputs[0], shape)


def _reshape(b: GraphBuilder, node: Node) -> None:
    _reshape_to(b, node, b.integers(node, 1), node.integer("allowzero", 0) == 1)


def _flatten(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    axis = node.integer("axis", 1)
    if axis != len(x.shape):
        axis = _axis(node, axis, len(x.shape))
    if is_batched(x.shape[:axis]) and element_count(x.shape[:axis]) == 1:
        _reshape_to(b, node, (UNKNOWN_BATCH, element_count(x.shape[axis:])))
    elif is_batched(x.shape):
        raise node.error(f"axis {axis} of input {shape_text(x.shape)} merges the batch with other axes")
    else:
        _reshape_to(b, node, (element_count(x.shape[:axis]), element_count(x.shape[axis:])))


def _target(shape: Shape) -> tuple[int, ...]:
    return tuple(UNKNOWN_BATCH if size == BATCH else size for size in shape)


def _squeeze(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    stated = _axes_argument(b, node, 13)
    if stated is None:
        axes: tuple[int, ...] = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    else:
        axes = _axes(node, stated, len(x.shape))
    if any(x.shape[axis] != 1 for axis in axes):
        raise node.error(f"axes {list(axes)} of input {shape_text(x.shape)} are not all of size 1")
    _reshape_to(b, node, _target(tuple(size for axis, size in enumerate(x.shape) if axis not in axes)))


def _unsqueeze(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    stated = _axes_argument(b, node, 13) or ()
    axes = _axes(node, stated, len(x.shape) + len(stated))
    sizes = iter(x.shape)
    shape = tuple(1 if axis in axes else next(sizes) for axis in range(len(x.shape) + len(axes)))
    _reshape_to(b, node, _target(shape))


def _copy(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    b.reshape(node.name, x.name, node.outputs[0], x.shape)


def _dropout(b: GraphBuilder, node: Node) -> None:
    if node.input(2) and b.scalar(node, 2):
        raise node.error("training_mode is true; only inference is supported")
    _copy(b, node)


def _cast(b: GraphBuilder, node: Node) -> None:
    x = b.tensor(node, 0)
    if node.integer("to", 0) != {"float32": _FLOAT, "int64": _INT64}.get(x.dtype):
        raise node.error(
            f"casts {x.name!r} from {x.dtype} to element type {node.integer('to', 0)} of ONNX's TensorProto; "
            "only casts that change nothing are supported"
        )
    _copy(b, node)


OPERATORS: Final[dict[str, Callable[[GraphBuilder, Node], None]]] = {
    "Add": partial(_binary, "add"),
    "ArgMax": _arg_max,
    "AveragePool": partial(_pool, "average"),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "DequantizeLinear": dequantize_linear,
    "Div": partial(_binary, "div"),
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _copy,
    "MatMul": _matmul,
    "MaxPool": partial(_pool, "max"),
    "Mul": partial(_binary, "mul"),
    "Pad": _pad,
    "QuantizeLinear": quantize_linear,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": partial(_binary, "sub"),
    "Sum": _sum,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
