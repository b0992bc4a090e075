"""The NumPy twin of every op: slow, obvious, and the oracle that kernels are judged by.

Used by tests and by debug runs, never by the executor. Every function takes arrays in ONNX order (N C H W) and
computes in the dtype of what it is given; `run_reference` chooses that dtype.

May import: graph.ir, errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .graph.ir import (
    ABSENT,
    BATCH,
    ArgMax,
    BatchNorm,
    Binary,
    Clip,
    Conv,
    Dense,
    Dequantize,
    Epilogue,
    Graph,
    Mean,
    Op,
    Pad,
    Pool,
    Quantize,
    QuantizedAdd,
    QuantizedAverage,
    Requantize,
    Reshape,
    Softmax,
    Transpose,
)

Array: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = Mapping[str, Array]


def run_reference(
    graph: Graph, inputs: Mapping[str, Array], dtype: type[np.float32] | type[np.float64] = np.float32
) -> list[Array]:
    """The graph's outputs, in its order, of the types that the graph says.

    inputs: one float32 array per graph input, of its shape with any batch size. dtype: what every op computes in and
    stores between ops; float64 makes this an oracle for float32 kernels. What concerns quantisation is float32 and
    exact integers whatever dtype is.
    Raises InputError if an input is missing, unknown or of another shape.
    """
    values: dict[str, Array] = {name: _computed(array, dtype) for name, array in graph.constants.items()}
    if set(inputs) != set(graph.inputs):
        raise InputError(f"inputs {sorted(inputs)} given; model {graph.name!r} has {sorted(graph.inputs)}")
    for name, array in inputs.items():
        shape = graph.values[name].shape
        if len(shape) != array.ndim or any(m not in (n, BATCH) for m, n in zip(shape, array.shape, strict=True)):
            raise InputError(f"input {name!r} has shape {list(array.shape)}, model {graph.name!r} needs {list(shape)}")
        values[name] = _computed(array, dtype)
    for op in graph.ops:
        values[op.output] = evaluate(op, values, graph)
    return [values[name].astype(graph.values[name].dtype) for name in graph.outputs]


def evaluate(op: Op, values: Values, graph: Graph) -> Array:
    """What `op` writes, given the arrays of what it reads."""
    with np.errstate(all="ignore"):  # infinities and NaN are results like any other
        if isinstance(op, Reshape):
            return _reshape(op, values, graph)
        return _EVALUATORS[type(op)](op, values)


def _computed(array: Array, dtype: type[np.float32] | type[np.float64]) -> Array:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _clipped(x: Array, low: float, high: float) -> Array:
    return np.asarray(np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high)))


_F32: Final = np.float32


def _requantized(accumulator: Array, epilogue: Requantize, values: Values, channel_axis: int) -> Array:
    """`ir.Requantize`, operation by operation; accumulator: exact integers."""
    aligned = [-1 if axis == channel_axis else 1 for axis in range(accumulator.ndim)]
    t = accumulator.astype(np.int32).astype(_F32) * values[epilogue.scale].reshape(aligned)
    if epilogue.inner is not None:
        t = np.clip(np.rint(t), _F32(epilogue.inner.low), _F32(epilogue.inner.high)) * _F32(epilogue.inner.scale)
    if epilogue.residual != ABSENT:
        steps = values[epilogue.residual].astype(np.int32) - epilogue.residual_zero_point
        t = t + steps.astype(_F32) * _F32(epilogue.residual_scale)
    if epilogue.dtype == "float32":
        return np.asarray(_clipped(t, epilogue.low, epilogue.high))
    return _stored(t, epilogue)


def _stored(t: Array, op: Requantize | QuantizedAdd | QuantizedAverage) -> Array:
    steps = np.clip(np.rint(t), _F32(op.low), _F32(op.high)).astype(np.int32)
    return np.asarray((steps + op.zero_point).astype(op.dtype))


def _centred(x: Array, zero_point: int) -> Array:
    """x - zero_point, in float64, where products of small integers and their sums are exact."""
    return x.astype(np.float64) - zero_point


def _finished(accumulator: Array, epilogue: Epilogue, values: Values) -> Array:
    if epilogue.residual != ABSENT:
        accumulator = accumulator + values[epilogue.residual]
    return _clipped(accumulator, epilogue.low, epilogue.high)


def _padded(x: Array, pads: tuple[int, int, int, int], value: float) -> Array:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _taps(x: Array, op: Conv | Pool | QuantizedAverage, kernel: tuple[int, int]) -> list[tuple[int, int, Array]]:
    """For each tap (r, s) of the window, the N C OH OW elements of the padded picture that it meets."""
    out = [(x.shape[2 + i] - op.dilations[i] * (kernel[i] - 1) - 1) // op.strides[i] + 1 for i in range(2)]
    taps = []
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            top, left = r * op.dilations[0], s * op.dilations[1]
            rows = slice(top, top + op.strides[0] * (out[0] - 1) + 1, op.strides[0])
            columns = slice(left, left + op.strides[1] * (out[1] - 1) + 1, op.strides[1])
            taps.append((r, s, x[:, :, rows, columns]))
    return taps


def _conv(op: Conv, values: Values) -> Array:
    """Sum over taps of weight[:, :, r, s] @ picture, group by group."""
    weight, x = values[op.weight], values[op.x]
    if isinstance(op.epilogue, Requantize):
        weight, x = weight.astype(np.float64), _centred(x, op.x_zero_point)
    filters, channels = weight.shape[0] // op.group, weight.shape[1]
    padded = _padded(x, op.pads, 0)
    kernel = (weight.shape[2], weight.shape[3])
    grouped_weight = weight.reshape(op.group, filters, channels, *kernel)
    total: Array | None = None
    for r, s, tap in _taps(padded, op, kernel):
        n, _, oh, ow = tap.shape
        pixels = tap.reshape(n, op.group, channels, oh * ow)
        product = (grouped_weight[:, :, :, r, s] @ pixels).reshape(n, op.group * filters, oh, ow)
        total = product if total is None else total + product
    assert total is not None
    if op.bias != ABSENT:
        total = total + values[op.bias].reshape(1, -1, 1, 1)
    if isinstance(op.epilogue, Requantize):
        return _requantized(total, op.epilogue, values, 1)
    return _finished(total, op.epilogue, values)


def _dense(op: Dense, values: Values) -> Array:
    if isinstance(op.epilogue, Requantize):
        exact = _centred(values[op.x], op.x_zero_point) @ values[op.weight].astype(np.float64) + values[op.bias]
        return _requantized(exact, op.epilogue, values, exact.ndim - 1)
    product = values[op.x] @ values[op.weight]
    if op.bias != ABSENT:
        product = product + values[op.bias]
    return _finished(product, op.epilogue, values)


def _batch_norm(op: BatchNorm, values: Values) -> Array:
    x = values[op.x]
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    return x * values[op.scale].reshape(per_channel) + values[op.shift].reshape(per_channel)


def _pool(op: Pool, values: Values) -> Array:
    x = values[op.x]
    if op.kind == "max":
        padded = _padded(x, op.pads, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min)
        return np.asarray(np.max([tap for _, _, tap in _taps(padded, op, op.kernel)], axis=0))
    total = np.sum([tap for _, _, tap in _taps(_padded(x, op.pads, 0), op, op.kernel)], axis=0)
    # The divisor is the same sum over a picture of ones: inside the picture, counted pads included, 0 beyond.
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    uncounted = op.pads
    if op.count_include_pad:
        counted = tuple(min(a, b) for a, b in zip(op.counted_pads, op.pads, strict=True))
        ones = _padded(ones, (counted[0], counted[1], counted[2], counted[3]), 1)
        uncounted = tuple(a - b for a, b in zip(op.pads, counted, strict=True))  # type: ignore[assignment]
    divisor = np.sum([tap for _, _, tap in _taps(_padded(ones, uncounted, 0), op, op.kernel)], axis=0)
    return np.asarray(total / divisor)


def _mean(op: Mean, values: Values) -> Array:
    return np.asarray(np.mean(values[op.x], axis=op.axes, keepdims=op.keepdims))


def _binary(op: Binary, values: Values) -> Array:
    assert isinstance(op.epilogue, Epilogue)
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide}[op.kind]
    return _finished(np.asarray(function(values[op.a], values[op.b])), op.epilogue, values)


def _clip(op: Clip, values: Values) -> Array:
    return _clipped(values[op.x], op.low, op.high)


def _softmax(op: Softmax, values: Values) -> Array:
    x = values[op.x]
    powers = np.exp(x - np.max(x, axis=op.axis, keepdims=True))
    return np.asarray(powers / np.sum(powers, axis=op.axis, keepdims=True))


def _argmax(op: ArgMax, values: Values) -> Array:
    x = values[op.x]
    if op.select_last:
        index = np.asarray(x.shape[op.axis] - 1 - np.argmax(np.flip(x, op.axis), axis=op.axis, keepdims=True))
    else:
        index = np.asarray(np.argmax(x, axis=op.axis, keepdims=True))
    return index if op.keepdims else np.squeeze(index, op.axis)


def _pad(op: Pad, values: Values) -> Array:
    x = values[op.x]
    cropped = x[tuple(slice(max(-b, 0), x.shape[i] - max(-a, 0)) for i, (b, a) in enumerate(op.pads))]
    return np.pad(cropped, [(max(b, 0), max(a, 0)) for b, a in op.pads], constant_values=op.value)


def _transpose(op: Transpose, values: Values) -> Array:
    return np.transpose(values[op.x], op.perm)


def _reshape(op: Reshape, values: Values, graph: Graph) -> Array:
    x = values[op.x]
    return x.reshape([x.shape[0] if size == BATCH else size for size in graph.values[op.output].shape])


def _per_axis(items: tuple[float, ...], x: Array, axis: int, dtype: type[Any]) -> Array:
    shape = [1] * x.ndim
    if len(items) > 1:
        shape[axis] = -1
    return np.array(items, dtype).reshape(shape)


def _quantize(op: Quantize, values: Values) -> Array:
    x, q = values[op.x].astype(_F32), op.quantization
    zero_point = _per_axis(q.zero_point, x, q.axis, np.int64)
    steps = np.rint(x / _per_axis(q.scale, x, q.axis, _F32))
    low, high = np.iinfo(q.dtype).min - zero_point, np.iinfo(q.dtype).max - zero_point
    steps = np.where(np.isnan(steps), low, np.clip(steps, low, high))
    return np.asarray((steps.astype(np.int64) + zero_point).astype(q.dtype))


def _dequantize(op: Dequantize, values: Values) -> Array:
    x, q = values[op.x], op.quantization
    steps = x.astype(np.int64) - _per_axis(q.zero_point, x, q.axis, np.int64)
    return np.asarray(steps.astype(_F32) * _per_axis(q.scale, x, q.axis, _F32))


def _quantized_add(op: QuantizedAdd, values: Values) -> Array:
    a = (values[op.a].astype(np.int32) - op.a_zero_point).astype(_F32) * _F32(op.a_scale)
    b = (values[op.b].astype(np.int32) - op.b_zero_point).astype(_F32) * _F32(op.b_scale)
    return _stored(a + b, op)


def _quantized_average(op: QuantizedAverage, values: Values) -> Array:
    padded = _padded(_centred(values[op.x], op.x_zero_point), op.pads, 0)
    total = np.sum([tap for _, _, tap in _taps(padded, op, op.kernel)], axis=0)
    return _stored(total.astype(np.int32).astype(_F32) * _F32(op.factor), op)


_EVALUATORS: Final[dict[type, Callable[..., Array]]] = {
    Conv: _conv,
    Dense: _dense,
    BatchNorm: _batch_norm,
    Pool: _pool,
    Mean: _mean,
    Binary: _binary,
    Clip: _clip,
    Softmax: _softmax,
    ArgMax: _argmax,
    Pad: _pad,
    Transpose: _transpose,
    Quantize: _quantize,
    Dequantize: _dequantize,
    QuantizedAdd: _quantized_add,
    QuantizedAverage: _quantized_average,
}
