"""The intermediate representation: one frozen record per op, attributes resolved, no ONNX object in sight.

Shapes are logical and in ONNX order: a picture is N C H W whatever way it is stored (how values lie in memory is
the planner's business). `BATCH` stands for the batch size that `run` will see and occurs in axis 0 only. A graph
is either batched (its input has `BATCH` in axis 0, and so has every value that depends on it) or fixed (no
`BATCH` anywhere).

An op names the values it reads and the one value it writes. Constants (weights, biases) are values too: their
arrays are in `Graph.constants`. The empty string names no value (an absent bias or residual).

May import: nothing of ours but `errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

BATCH: Final = -1
"""The size of axis 0 that is known only when `run` is called."""

ABSENT: Final = ""
"""The name of a value that is not there."""

DType: TypeAlias = Literal["float32", "int64", "uint8", "int8", "int32"]
StoredType: TypeAlias = Literal["uint8", "int8"]
"""What quantised activations are stored as."""

Shape: TypeAlias = tuple[int, ...]
Pads: TypeAlias = tuple[int, int, int, int]
"""Top, left, bottom, right."""


@dataclass(frozen=True)
class Value:
    """A tensor: its name, logical shape (ONNX order, `BATCH` in axis 0 or nowhere) and element type."""

    name: str
    shape: Shape
    dtype: DType = "float32"


@dataclass(frozen=True)
class Epilogue:
    """What happens to an accumulator before it is stored: `min(max(acc + residual, low), high)`.

    `residual` names a value of the output's shape or is ABSENT. ReLU is low=0, ReLU6 is low=0, high=6; the
    infinities mean no bound. A NaN stays NaN.
    """

    residual: str = ABSENT
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Quantization:
    """Which real numbers integers stand for: (stored - zero_point) * scale.

    scale (float32 values, positive) and zero_point: one of each for the whole tensor, or one per index of `axis`.
    """

    dtype: Literal["uint8", "int8", "int32"]
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    @property
    def per_tensor(self) -> bool:
        """Whether one scale holds for all elements."""
        return len(self.scale) == 1


@dataclass(frozen=True)
class QuantizedConstant:
    """What a float32 constant was made from, so that passes can do without the float32 form."""

    stored: npt.NDArray[np.generic]
    quantization: Quantization


@dataclass(frozen=True)
class InnerRounding:
    """t = clip(rint(t), low, high) * scale: the model's own quantisation of a result before another is added to it."""

    low: float
    high: float
    scale: float


@dataclass(frozen=True)
class Requantize:
    """What happens to an int32 accumulator before it is stored: float32 arithmetic, each operation rounded by itself.

        t = float32(accumulator) * scale[c]
        t = clip(rint(t), inner.low, inner.high) * inner.scale                 if there is `inner`
        t = t + (residual - residual_zero_point) * residual_scale              if there is a residual
        y = clip(rint(t), low, high) + zero_point                              uint8 or int8
        y = clip(t, low, high)                                                 float32

    rint rounds halves to even. scale: constant float32 [O]. low and high, in steps of the output, hold the range of
    its type and whatever ReLU or clip the model has; they are whole numbers unless the output is float32.
    """

    scale: str
    dtype: Literal["uint8", "int8", "float32"]
    zero_point: int
    low: float
    high: float
    residual: str = ABSENT
    residual_scale: float = 0.0
    residual_zero_point: int = 0
    inner: InnerRounding | None = None


@dataclass(frozen=True)
class Conv:
    """2-D convolution with fused epilogue. weight: constant [O, C/group, R, S]; bias: constant [O] or ABSENT.

    With a Requantize it is an integer convolution: x uint8 or int8, weight int8, bias int32, and the accumulator is
    the exact sum of (x - x_zero_point) * weight, plus bias. Padding then holds x_zero_point.
    """

    name: str
    x: str
    weight: str
    bias: str
    output: str
    strides: tuple[int, int]
    pads: Pads
    dilations: tuple[int, int]
    group: int
    epilogue: Epilogue | Requantize = Epilogue()
    x_zero_point: int = 0


@dataclass(frozen=True)
class Dense:
    """x [..., K] @ weight + bias with fused epilogue. weight: constant [K, O], bias: constant [O] or ABSENT.

    With a Requantize it is an integer product, as in `Conv`.
    """

    name: str
    x: str
    weight: str
    bias: str
    output: str
    epilogue: Epilogue | Requantize = Epilogue()
    x_zero_point: int = 0


@dataclass(frozen=True)
class BatchNorm:
    """Per-channel affine map, inference form: x * scale[c] + shift[c], c along axis 1. Both constants [C]."""

    name: str
    x: str
    scale: str
    shift: str
    output: str


@dataclass(frozen=True)
class Pool:
    """2-D max or average pooling of N C H W.

    `ceil_mode` and `auto_pad` are already expressed in `pads` (bottom/right enlarged). For "average", a window's
    divisor is the number of its elements inside the picture, or, if `count_include_pad`, inside the picture plus
    `counted_pads` (the pads as the model states them: the enlargement for ceil_mode never counts).
    For "max", padding never wins; it also takes integers.
    """

    name: str
    kind: Literal["max", "average"]
    x: str
    output: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads
    dilations: tuple[int, int] = (1, 1)
    count_include_pad: bool = False
    counted_pads: Pads = (0, 0, 0, 0)


@dataclass(frozen=True)
class Mean:
    """Mean over `axes` (ascending, non-negative). GlobalAveragePool is axes (2, 3) with keepdims."""

    name: str
    x: str
    output: str
    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class Binary:
    """Element-wise a (op) b with NumPy broadcasting, then the clip of `epilogue` (whose residual is ABSENT)."""

    name: str
    kind: Literal["add", "sub", "mul", "div"]
    a: str
    b: str
    output: str
    epilogue: Epilogue = Epilogue()


@dataclass(frozen=True)
class Clip:
    """min(max(x, low), high); ReLU is low=0. A NaN stays NaN."""

    name: str
    x: str
    output: str
    low: float
    high: float


@dataclass(frozen=True)
class Softmax:
    """exp(x - max) / sum over one axis (non-negative)."""

    name: str
    x: str
    output: str
    axis: int


@dataclass(frozen=True)
class ArgMax:
    """Index (int64) of the largest element along one axis; the first one wins a tie unless `select_last`."""

    name: str
    x: str
    output: str
    axis: int
    keepdims: bool
    select_last: bool = False


@dataclass(frozen=True)
class Pad:
    """Constant padding. pads: one (before, after) pair per axis; negative numbers crop."""

    name: str
    x: str
    output: str
    pads: tuple[tuple[int, int], ...]
    value: float


@dataclass(frozen=True)
class Transpose:
    """Axis i of the output is axis perm[i] of the input."""

    name: str
    x: str
    output: str
    perm: tuple[int, ...]


@dataclass(frozen=True)
class Reshape:
    """Same elements in the same (logical) order, shaped as the output value: Reshape, Flatten, Squeeze, Unsqueeze."""

    name: str
    x: str
    output: str


@dataclass(frozen=True)
class Quantize:
    """clip(rint(x / scale) + zero_point) to the range of the type, halves to even; a NaN becomes the lowest value."""

    name: str
    x: str
    output: str
    quantization: Quantization


@dataclass(frozen=True)
class Dequantize:
    """(x - zero_point) * scale as float32."""

    name: str
    x: str
    output: str
    quantization: Quantization


@dataclass(frozen=True)
class QuantizedAdd:
    """clip(rint((a - a_zero_point) * a_scale + (b - b_zero_point) * b_scale), low, high) + zero_point.

    a, b and the output have one shape; scales are relative to the output's. Arithmetic as in `Requantize`.
    """

    name: str
    a: str
    b: str
    output: str
    a_scale: float
    a_zero_point: int
    b_scale: float
    b_zero_point: int
    dtype: StoredType
    zero_point: int
    low: float
    high: float


@dataclass(frozen=True)
class QuantizedAverage:
    """Average pooling of integers: clip(rint(float32(sum of (x - x_zero_point)) * factor), low, high) + zero_point.

    Every window has the same divisor, which is in `factor`; pads count as zeros. A global average is one window of the
    picture's size. Arithmetic as in `Requantize`.
    """

    name: str
    x: str
    output: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads
    dilations: tuple[int, int]
    x_zero_point: int
    factor: float
    dtype: StoredType
    zero_point: int
    low: float
    high: float


Op: TypeAlias = (
    Conv
    | Dense
    | BatchNorm
    | Pool
    | Mean
    | Binary
    | Clip
    | Softmax
    | ArgMax
    | Pad
    | Transpose
    | Reshape
    | Quantize
    | Dequantize
    | QuantizedAdd
    | QuantizedAverage
)


@dataclass(frozen=True)
class Graph:
    """Ops in an order in which every value is written before it is read.

    inputs, outputs: names in the model's order. values: every value of the graph, constants included, by name.
    constants: C-contiguous arrays by name; never written to. quantized: float32 constants, by name, that the model
    states as integers; names of constants that are gone may remain.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    values: Mapping[str, Value]
    constants: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    quantized: Mapping[str, QuantizedConstant] = field(default_factory=dict)


_READS: Final = ("x", "a", "b", "weight", "bias", "scale", "shift")


def reads(op: Op) -> tuple[str, ...]:
    """Names of the values that an op reads, in field order, those of the epilogue last, ABSENT left out."""
    names = [getattr(op, item.name) for item in fields(op) if item.name in _READS]
    epilogue = getattr(op, "epilogue", None)
    if isinstance(epilogue, Requantize):
        names.append(epilogue.scale)
    if epilogue is not None:
        names.append(epilogue.residual)
    return tuple(name for name in names if name != ABSENT)
