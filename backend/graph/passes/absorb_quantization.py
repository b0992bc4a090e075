r"""Turns float32 ops between Dequantize and Quantize into integer ops.

    before                                                        after
    q -> Dequantize -> Conv | Dense [clip] -> Quantize -> r       q -> Conv | Dense [Requantize] -> r
    q -> Dequantize -> Conv | Dense [clip] -> y                   q -> Conv | Dense [Requantize to float32] -> y
    q -> Conv [Requantize] -> Dequantize --\                      q -> Conv [Requantize, inner, + s] -> r
                                            Add -> Quantize -> r
                         s -> Dequantize --/
    q -> Conv [Requantize] -> Dequantize -> Clip -> Quantize -> r q -> Conv [Requantize, inner or clipped] -> r
    q -> Dequantize -> Mean (2, 3) | average Pool -> Quantize     q -> QuantizedAverage
    q -> Dequantize -> max Pool | Reshape | Transpose | Pad -> y  q -> the same on integers -> Dequantize -> y

Weights must be constants that the model states as integers (`Graph.quantized`). A bias may be any constant, as some
quantisers leave it in float32: where it is not stated in steps of the accumulator (x's scale times the weight's), it is
rounded to them, by half a step at most: no more than the rounding of a single x does to the sum. A channel without
weights, whose scale means nothing, takes one from its bias. Weights whose distance from their zero point does not fit
int8, sums that might not fit int32, scales along another axis than the output channels': such ops stay as they are, and
compute what the model says in float32. The arithmetic of quantising in between is kept, so that fused and unfused
differ by float32 rounding, and by that half step of a bias, alone.

May import: ir, prune, rewrite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..ir import (
    ABSENT,
    Binary,
    Clip,
    Conv,
    Dense,
    Dequantize,
    DType,
    Epilogue,
    Graph,
    InnerRounding,
    Mean,
    Op,
    Pad,
    Pads,
    Pool,
    Quantization,
    Quantize,
    QuantizedAdd,
    QuantizedAverage,
    QuantizedConstant,
    Requantize,
    Reshape,
    Shape,
    Transpose,
    Value,
)
from ..prune import rebuild
from .rewrite import fresh, private_values

_Array: TypeAlias = npt.NDArray[Any]


def absorb_quantization(graph: Graph) -> Graph:
    """The graph with integer ops wherever they compute the same; see the module's docstring."""
    absorbing = _Absorbing(graph)
    for op in graph.ops:
        absorbing.take(op)
    ops, values, constants = absorbing.ops.values(), absorbing.values, absorbing.constants
    return replace(rebuild(graph, ops, values, constants), quantized={})


@dataclass(frozen=True)
class _Integers:
    """An integer value and what its elements stand for, one scale for all."""

    name: str
    dtype: DType
    scale: float
    zero_point: int


class _Absorbing:
    """The ops written so far, by output, and the values and constants that they use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values = dict(graph.values)
        self.constants = dict(graph.constants)
        self.private = private_values(graph)
        self.ops: dict[str, Op] = {}
        self.moved: dict[str, str] = {}  # float32 values -> the integers that they stand for, where these were moved
        self.padding: dict[str, int] = {}  # integer values -> what convolutions read around them

    def take(self, op: Op) -> None:
        """Appends the op, or what replaces it and ops before it."""
        if isinstance(op, (Conv, Dense)):
            op = self._integer_product(op) or op
        elif isinstance(op, Quantize) and op.quantization.per_tensor and op.x in self.private:
            merging = self._quantized_product, self._clipped_product, self._quantized_add, self._quantized_average
            for merge in merging:
                merged = merge(op)
                if merged is not None:
                    op = merged
                    break
        self.ops[op.output] = op

    def integers(self, name: str) -> _Integers | None:
        """The integers that a float32 value stands for, found behind a Dequantize and ops that only move numbers."""
        op = self.ops.get(name)
        if isinstance(op, Dequantize) and op.quantization.per_tensor:
            return _Integers(op.x, op.quantization.dtype, op.quantization.scale[0], op.quantization.zero_point[0])
        moves = isinstance(op, (Reshape, Transpose)) or (isinstance(op, Pool) and op.kind == "max")
        if not moves and not (isinstance(op, Pad) and op.value == 0):
            return None
        assert isinstance(op, (Reshape, Transpose, Pool, Pad))
        source = self.integers(op.x)
        if source is None:
            return None
        if name not in self.moved:
            output = self.moved[name] = fresh(f"{name}.stored", self.values)
            self.values[output] = replace(self.values[name], name=output, dtype=source.dtype)
            moved = replace(op, x=source.name, output=output)
            self.ops[output] = replace(moved, value=float(source.zero_point)) if isinstance(moved, Pad) else moved
        return replace(source, name=self.moved[name])

    def constant(self, base: str, array: _Array) -> str:
        """Files an array; returns its name."""
        name = fresh(base, self.values)
        array = np.ascontiguousarray(array)
        array.setflags(write=False)
        self.constants[name] = array
        self.values[name] = Value(name, array.shape, array.dtype.name)
        return name

    def _integer_product(self, op: Conv | Dense) -> Op | None:
        """The op on integers, still with a float32 result."""
        x, stated = self.integers(op.x), self.graph.quantized.get(op.weight)
        if x is None or stated is None or not isinstance(op.epilogue, Epilogue):
            return None
        residual = self.integers(op.epilogue.residual) if op.epilogue.residual != ABSENT else None
        if residual is None and op.epilogue.residual != ABSENT:
            return None
        pads = isinstance(op, Conv) and any(op.pads)
        if pads and self.padding.get(x.name, x.zero_point) != x.zero_point:
            return None
        folded = _int8_weight(stated, 0 if isinstance(op, Conv) else 1)
        if folded is None:
            return None
        weight, weight_scale = folded
        scale = self._accumulator_scale(op, x.scale * weight_scale, weight)
        bias = self._int32_bias(op, scale)
        if bias is None or not _fits_int32(op, x, weight, bias):
            return None
        if pads:
            self.padding[x.name] = x.zero_point
        return replace(
            op,
            x=x.name,
            weight=self.constant(f"{op.weight}.int8", weight),
            bias=self.constant(f"{op.output}.int32", bias),
            x_zero_point=x.zero_point,
            epilogue=Requantize(
                scale=self.constant(f"{op.output}.scale", scale.astype(np.float32)),
                dtype="float32",
                zero_point=0,
                low=op.epilogue.low,
                high=op.epilogue.high,
                residual=ABSENT if residual is None else residual.name,
                residual_scale=0.0 if residual is None else residual.scale,
                residual_zero_point=0 if residual is None else residual.zero_point,
            ),
        )

    def _accumulator_scale(self, op: Conv | Dense, scale: _Array, weight: _Array) -> _Array:
        """x's scale times the weights', but for channels whose weights are all zero and whose bias is not stated in
        steps of it: one in which the bias is a whole number, so that float32 loses nothing of it."""
        if op.bias == ABSENT or self._stated_bias(op, scale) is not None:
            return scale
        dead = ~weight.any(axis=tuple(range(1, weight.ndim)) if isinstance(op, Conv) else 0)
        bias = np.abs(self.constants[op.bias].astype(np.float64))
        return np.where(dead & (bias > 0), bias / 2**24, scale)

    def _stated_bias(self, op: Conv | Dense, scale: _Array) -> _Array | None:
        """The bias as the model has it, if it is in steps of `scale`."""
        stated = self.graph.quantized.get(op.bias)
        if stated is None or stated.stored.dtype != np.int32 or any(stated.quantization.zero_point):
            return None
        own = np.broadcast_to(np.array(stated.quantization.scale), scale.shape)
        return stated.stored if np.allclose(own, scale, rtol=1e-6, atol=0) else None

    def _int32_bias(self, op: Conv | Dense, scale: _Array) -> _Array | None:
        """The bias in steps of the accumulator; None if they would not fit int32."""
        if op.bias == ABSENT:
            return np.zeros(scale.shape, np.int32)
        stated = self._stated_bias(op, scale)
        if stated is not None:
            return stated
        steps = np.rint(self.constants[op.bias].astype(np.float64) / scale)
        return steps.astype(np.int32) if np.abs(steps).max() < 2**31 else None

    def _quantized_product(self, op: Quantize) -> Op | None:
        """Conv | Dense with the Quantize in its epilogue."""
        producer = self.ops.get(op.x)
        if not isinstance(producer, (Conv, Dense)) or not isinstance(producer.epilogue, Requantize):
            return None
        before, step = producer.epilogue, op.quantization.scale[0]
        low, high = _bounds(op.quantization, before.low, before.high)
        del self.ops[op.x]
        scale = self.constants[before.scale].astype(np.float64) / step
        epilogue = replace(
            before,
            scale=self.constant(f"{op.output}.scale", scale.astype(np.float32)),
            dtype=op.quantization.dtype,  # type: ignore[arg-type]
            zero_point=op.quantization.zero_point[0],
            low=low,
            high=high,
            residual_scale=float(np.float32(before.residual_scale / step)),
        )
        return replace(producer, output=op.output, epilogue=epilogue)

    def _clipped_product(self, op: Quantize) -> Op | None:
        """An integer product whose result is dequantised, perhaps clipped, and quantised again."""
        clip = self.ops.get(op.x)
        name = clip.x if isinstance(clip, Clip) else op.x
        value = self.integers(name)
        if name not in self.private or value is None or value.name not in self.private:
            return None
        producer, step = self.ops.get(value.name), op.quantization.scale[0]
        if not isinstance(producer, (Conv, Dense)) or not isinstance(producer.epilogue, Requantize):
            return None
        before = producer.epilogue
        low, high = _bounds(op.quantization, *((clip.low, clip.high) if isinstance(clip, Clip) else (-np.inf, np.inf)))
        inner = before.inner
        if value.scale == step:  # both are bounds of the same steps
            low, high = (min(max(bound, low), high) for bound in (before.low, before.high))
        elif self._may_add(producer):
            inner = InnerRounding(before.low, before.high, float(np.float32(value.scale / step)))
        else:
            return None
        for swallowed in {op.x, name, value.name}:
            self.ops.pop(swallowed)
        epilogue = replace(
            before,
            dtype=op.quantization.dtype,  # type: ignore[arg-type]
            zero_point=op.quantization.zero_point[0],
            low=low,
            high=high,
            inner=inner,
        )
        return replace(producer, output=op.output, epilogue=epilogue)

    def _quantized_add(self, op: Quantize) -> Op | None:
        """An add of two integer values: in the epilogue of the later one's product, or by itself."""
        add = self.ops.get(op.x)
        if not isinstance(add, Binary) or add.kind != "add":
            return None
        a, b = self.integers(add.a), self.integers(add.b)
        shape = self.values[op.output].shape
        if a is None or b is None or not self.values[a.name].shape == self.values[b.name].shape == shape:
            return None
        step = op.quantization.scale[0]
        assert isinstance(add.epilogue, Epilogue)
        low, high = _bounds(op.quantization, add.epilogue.low, add.epilogue.high)
        del self.ops[op.x]
        order = list(self.ops)
        own = [
            (order.index(value.name), value, other)
            for name, value, other in ((add.a, a, b), (add.b, b, a))
            if name in self.private and value.name in self.private and self._may_add(self.ops.get(value.name))
        ]
        if own and a != b:
            _, value, other = max(own, key=lambda item: item[0])
            producer = self.ops.pop(value.name)
            assert isinstance(producer, (Conv, Dense)) and isinstance(producer.epilogue, Requantize)
            before = producer.epilogue
            epilogue = replace(
                before,
                dtype=op.quantization.dtype,  # type: ignore[arg-type]
                zero_point=op.quantization.zero_point[0],
                low=low,
                high=high,
                residual=other.name,
                residual_scale=float(np.float32(other.scale / step)),
                residual_zero_point=other.zero_point,
                inner=InnerRounding(before.low, before.high, float(np.float32(value.scale / step))),
            )
            return replace(producer, output=op.output, epilogue=epilogue)
        return QuantizedAdd(
            name=add.name,
            a=a.name,
            b=b.name,
            output=op.output,
            a_scale=float(np.float32(a.scale / step)),
            a_zero_point=a.zero_point,
            b_scale=float(np.float32(b.scale / step)),
            b_zero_point=b.zero_point,
            dtype=op.quantization.dtype,  # type: ignore[arg-type]
            zero_point=op.quantization.zero_point[0],
            low=low,
            high=high,
        )

    def _may_add(self, op: Op | None) -> bool:
        """Whether the op's epilogue can take an add behind what it does already."""
        if not isinstance(op, (Conv, Dense)) or not isinstance(op.epilogue, Requantize):
            return False
        return op.epilogue.dtype != "float32" and op.epilogue.residual == ABSENT and op.epilogue.inner is None

    def _quantized_average(self, op: Quantize) -> Op | None:
        """Average pooling whose windows all have the same divisor."""
        found = self._average_behind(op.x)
        x = None if found is None else self.integers(found.op.x)
        if found is None or x is None:
            return None
        shape = self.values[x.name].shape
        window = _whole_window(found.op, shape)
        if window is None:
            return None
        area, step = window.kernel[0] * window.kernel[1], op.quantization.scale[0]
        low, high = _bounds(op.quantization, found.low, found.high)
        output = op.output
        if found.flattens:
            output = fresh(f"{op.output}.picture", self.values)
            self.values[output] = replace(self.values[op.output], name=output, shape=(*shape[:2], 1, 1))
        result = QuantizedAverage(
            name=found.op.name,
            x=x.name,
            output=output,
            kernel=window.kernel,
            strides=window.strides,
            pads=window.pads,
            dilations=window.dilations,
            x_zero_point=x.zero_point,
            factor=float(np.float32(x.scale / step / area)),
            dtype=op.quantization.dtype,  # type: ignore[arg-type]
            zero_point=op.quantization.zero_point[0],
            low=low,
            high=high,
        )
        if not found.flattens:
            return result
        self.ops[output] = result
        return Reshape(f"{found.op.name}.flatten", output, op.output)

    def _average_behind(self, name: str) -> _Average | None:
        """What a Quantize reads, if it is an average, perhaps squeezed, and perhaps clipped after that."""
        op, low, high, squeezed = self.ops.get(name), -np.inf, np.inf, False
        if isinstance(op, Clip) and op.x in self.private:
            low, high, op = op.low, op.high, self.ops.get(op.x)
        if isinstance(op, Reshape) and op.x in self.private:
            squeezed, op = True, self.ops.get(op.x)
        if isinstance(op, Mean):
            return _Average(op, squeezed or not op.keepdims, low, high)
        return _Average(op, False, low, high) if isinstance(op, Pool) and not squeezed else None


@dataclass(frozen=True)
class _Average:
    """An average and what follows it. flattens: its result is no picture of one pixel but a row of channels."""

    op: Mean | Pool
    flattens: bool
    low: float
    high: float


@dataclass(frozen=True)
class _Window:
    """Fields of `Pool`."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads
    dilations: tuple[int, int]


def _whole_window(op: Mean | Pool, shape: Shape) -> _Window | None:
    """The window of an average over pictures of this shape; None if windows have different divisors, or so many
    pixels that float32 does not hold every sum of bytes."""
    if len(shape) != 4:
        return None
    if isinstance(op, Mean):
        window = _Window((shape[2], shape[3]), (1, 1), (0, 0, 0, 0), (1, 1)) if op.axes == (2, 3) else None
    else:
        uniform = op.kind == "average" and op.counted_pads == op.pads
        window = _Window(op.kernel, op.strides, op.pads, op.dilations) if uniform else None
    if window is None or window.kernel[0] * window.kernel[1] * 255 >= 1 << 24:
        return None
    return window


def _bounds(quantization: Quantization, low: float, high: float) -> tuple[float, float]:
    """A clip to [low, high] and then to the range of the type, in steps from the zero point."""
    step, zero_point = np.float32(quantization.scale[0]), quantization.zero_point[0]
    range_ = np.iinfo(quantization.dtype)
    least, most = float(range_.min - zero_point), float(range_.max - zero_point)
    with np.errstate(over="ignore"):
        in_steps = [float(np.rint(np.float32(bound) / step)) for bound in (low, high)]
    return min(max(in_steps[0], least), most), min(max(in_steps[1], least), most)


def _int8_weight(constant: QuantizedConstant, channel_axis: int) -> tuple[_Array, _Array] | None:
    """Weights as int8 with zero point 0, and their scales per output channel; None if int8 cannot hold them."""
    stored, quantization = constant.stored, constant.quantization
    if stored.dtype == np.int32 or not (quantization.per_tensor or quantization.axis == channel_axis):
        return None
    aligned = [-1 if axis == quantization.axis else 1 for axis in range(stored.ndim)]
    zero_point = np.array(quantization.zero_point, np.int32)
    centred = stored.astype(np.int32) - (zero_point[0] if quantization.per_tensor else zero_point.reshape(aligned))
    if centred.min() < -128 or centred.max() > 127:
        return None
    scale = np.broadcast_to(np.array(quantization.scale, np.float64), (stored.shape[channel_axis],))
    return centred.astype(np.int8), scale


def _fits_int32(op: Conv | Dense, x: _Integers, weight: _Array, bias: _Array) -> bool:
    """Whether no accumulator can leave int32, whatever the inputs."""
    range_ = np.iinfo(x.dtype)
    most = max(range_.max - x.zero_point, x.zero_point - range_.min)
    sums = np.abs(weight.astype(np.int64)).sum(axis=tuple(range(1, weight.ndim)) if isinstance(op, Conv) else 0)
    return bool((sums * int(most) + np.abs(bias.astype(np.int64)) < 2**31).all())
