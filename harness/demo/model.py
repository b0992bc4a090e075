"""ResNet50 v1.5 as an ONNX model in the signature and style of the official MLPerf file `resnet50_v1.onnx`.

That file is a TensorFlow graph converted by tf2onnx at opset 11 with channels-first input. Its traits are kept: tensor
names ending in ":0", an explicit Pad before every strided convolution of a block and the stem, MaxPool with SAME
padding (nothing at the top and left, one at the bottom and right), ReduceMean and Squeeze, MatMul and Add over 1001
classes, Softmax and ArgMax side by side, an Identity left over.

The architecture (He et al. 2016, arXiv:1512.03385; v1.5: the stride sits in the 3x3 convolution) is stated once, in
`backbone`, over an `Ops` of which there are two: the writer of ONNX nodes here and the calibration in `fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

F32Array: TypeAlias = npt.NDArray[np.float32]

INPUT: Final = "input_tensor:0"
"""float32 [N, 3, 224, 224], RGB, ImageNet means subtracted."""
PROBABILITIES: Final = "softmax_tensor:0"
"""float32 [N, 1001]; column 0 is background, column c + 1 is label c."""
CLASS: Final = "ArgMax:0"
"""int64 [N]: label + 1."""
FEATURES: Final = "resnet_model/Squeeze:0"
"""float32 [N, 2048]: what the last layer reads."""

OUTPUT_CLASSES: Final = 1001
FEATURE_COUNT: Final = 2048
_OPSET: Final = 11
EPSILON: Final = 1e-5
"""Of every BatchNormalization: (x - mean) / sqrt(variance + epsilon)."""
_BRANCH_GAIN: Final = 0.25
"""Scale of a residual branch beside its shortcut: keeps what early layers saw alive through 16 random blocks (at 1.0
half of the held-out images are classified wrongly)."""


def _smooth(weight: F32Array) -> F32Array:
    """Binomial filter (1, 2, 1) / 4 along both spatial axes of [O, I, R, S], zeros outside."""
    for axis in (2, 3):
        border = [(1, 1) if other == axis else (0, 0) for other in range(4)]
        left, middle, right = (
            np.take(np.pad(weight, border), range(shift, shift + weight.shape[axis]), axis) for shift in range(3)
        )
        weight = (left + 2 * middle + right) / np.float32(4)
    return weight


@dataclass(frozen=True)
class ConvLayer:
    """A convolution without bias and the BatchNormalization after it.

    position: place among the 53 in order of execution, which seeds the weights. gain: the normalisation's scale.
    """

    position: int
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    gain: float

    def _suffix(self) -> str:
        return f"_{self.position}" if self.position else ""

    @property
    def conv_name(self) -> str:
        """As TensorFlow counts: conv2d, conv2d_1, ..."""
        return f"resnet_model/conv2d{self._suffix()}"

    @property
    def norm_name(self) -> str:
        return f"resnet_model/batch_normalization{self._suffix()}"

    def weight(self, seed: int) -> F32Array:
        """He-normal random weights [O, I, R, S] (arXiv:1502.01852): variance 2 / (I R S).

        Those of the stem are smoothed, and most of their mean is taken away: white noise would answer to little but
        a patch's average, trained first layers (and these) to edges, waves and contrasts of colour.
        """
        shape = (self.out_channels, self.in_channels, self.kernel, self.kernel)
        weight = np.random.default_rng((seed, self.position)).standard_normal(shape, dtype=np.float32)
        if self.position == 0:
            weight = _smooth(_smooth(weight))
            weight -= np.float32(0.9) * weight.mean(axis=(1, 2, 3), keepdims=True)
            weight /= weight.std()
        weight *= np.float32(np.sqrt(2 / (self.in_channels * self.kernel**2)))
        return weight


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and variance of a convolution's output, each float32 [O]."""

    mean: F32Array
    variance: F32Array


@dataclass(frozen=True)
class Head:
    """The last layer: features @ weight + bias. weight: float32 [2048, 1001]; bias: float32 [1001]."""

    weight: F32Array
    bias: F32Array


T = TypeVar("T")


class Ops(Protocol[T]):
    """What the backbone is made of; T stands for a picture N C H W, or for its name."""

    def conv_norm(self, x: T, layer: ConvLayer) -> T: ...

    def relu(self, x: T) -> T: ...

    def add(self, a: T, b: T) -> T: ...

    def max_pool(self, x: T) -> T: ...


def backbone(ops: Ops[T], x: T) -> T:
    """ResNet50 v1.5 from the image [N, 3, 224, 224] to the last block's output [N, 2048, 7, 7]."""
    position = 0

    def conv_norm(x: T, in_channels: int, out_channels: int, kernel: int, stride: int, gain: float = 1.0) -> T:
        nonlocal position
        layer = ConvLayer(position, in_channels, out_channels, kernel, stride, gain)
        position += 1
        return ops.conv_norm(x, layer)

    x = ops.max_pool(ops.relu(conv_norm(x, 3, 64, 7, 2)))
    channels = 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            shortcut = conv_norm(x, channels, 4 * width, 1, stride) if block == 0 else x
            branch = ops.relu(conv_norm(x, channels, width, 1, 1))
            branch = ops.relu(conv_norm(branch, width, width, 3, stride))
            branch = conv_norm(branch, width, 4 * width, 1, 1, _BRANCH_GAIN)
            x = ops.relu(ops.add(branch, shortcut))
            channels = 4 * width
    return x


class _OnnxWriter:
    """Ops over tensor names: appends nodes and initialisers."""

    def __init__(self, seed: int, statistics: Mapping[int, ChannelStatistics]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._seed = seed
        self._statistics = statistics
        self._counts: dict[str, int] = {}

    def node(self, op_type: str, name: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{name}:0"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def unique(self, stem: str) -> str:
        """resnet_model/Relu, resnet_model/Relu_1, ... as TensorFlow names repeated ops."""
        count = self._counts.get(stem, 0)
        self._counts[stem] = count + 1
        return f"resnet_model/{stem}_{count}" if count else f"resnet_model/{stem}"

    def conv_norm(self, x: str, layer: ConvLayer) -> str:
        half = layer.kernel // 2
        pads = [half] * 4
        if layer.stride > 1 and half:
            # TensorFlow pads by hand here, because its own SAME padding would be lopsided.
            name = self.unique("Pad")
            amounts = np.array([0, 0, half, half, 0, 0, half, half], np.int64)
            x = self.node("Pad", name, [x, self.constant(f"{name}/paddings", amounts)], mode="constant")
            pads = [0] * 4
        weight = self.constant(f"{layer.conv_name}/kernel", layer.weight(self._seed))
        x = self.node(
            "Conv",
            f"{layer.conv_name}/Conv2D",
            [x, weight],
            dilations=[1, 1],
            group=1,
            kernel_shape=[layer.kernel] * 2,
            pads=pads,
            strides=[layer.stride] * 2,
        )
        statistics = self._statistics[layer.position]
        parameters = {
            "gamma": np.full(layer.out_channels, layer.gain, np.float32),
            "beta": np.zeros(layer.out_channels, np.float32),
            "moving_mean": statistics.mean,
            "moving_variance": statistics.variance,
        }
        names = [self.constant(f"{layer.norm_name}/{key}", values) for key, values in parameters.items()]
        return self.node(
            "BatchNormalization", f"{layer.norm_name}/FusedBatchNorm", [x, *names], epsilon=EPSILON, momentum=0.997
        )

    def relu(self, x: str) -> str:
        return self.node("Relu", self.unique("Relu"), [x])

    def add(self, a: str, b: str) -> str:
        return self.node("Add", self.unique("add"), [a, b])

    def max_pool(self, x: str) -> str:
        name = self.unique("max_pooling2d/MaxPool")
        return self.node("MaxPool", name, [x], kernel_shape=[3, 3], pads=[0, 0, 1, 1], strides=[2, 2])


def build_model(seed: int, statistics: Mapping[int, ChannelStatistics], head: Head | None) -> onnx.ModelProto:
    """The demo model with the random backbone of `seed`.

    statistics: by ConvLayer.position. With a head, the outputs are `ArgMax:0` and `softmax_tensor:0`; without, the
    graph ends at the features, `resnet_model/Squeeze:0`.
    """
    writer = _OnnxWriter(seed, statistics)
    pooled = writer.node("ReduceMean", "resnet_model/Mean", [backbone(writer, INPUT)], axes=[2, 3], keepdims=1)
    features = writer.node("Squeeze", "resnet_model/Squeeze", [pooled], axes=[2, 3])
    if head is None:
        outputs = [helper.make_tensor_value_info(features, TensorProto.FLOAT, ["N", FEATURE_COUNT])]
    else:
        weight = writer.constant("resnet_model/dense/kernel", head.weight)
        bias = writer.constant("resnet_model/dense/bias", head.bias)
        product = writer.node("MatMul", "resnet_model/dense/MatMul", [features, weight])
        logits = writer.node("Add", "resnet_model/dense/BiasAdd", [product, bias])
        logits = writer.node("Identity", "resnet_model/final_dense", [logits])
        writer.node("ArgMax", CLASS.removesuffix(":0"), [logits], axis=1, keepdims=0)
        writer.node("Softmax", PROBABILITIES.removesuffix(":0"), [logits], axis=1)
        outputs = [
            helper.make_tensor_value_info(CLASS, TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", OUTPUT_CLASSES]),
        ]
    graph = helper.make_graph(
        writer.nodes,
        "resnet50_v1.5_demo",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, 224, 224])],
        outputs,
        writer.initializers,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=6, producer_name="loadgen-numba demo"
    )
