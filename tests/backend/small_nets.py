"""Small graphs made of records of the intermediate representation, and how far float32 may be from their oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from backend.graph.builder import GraphBuilder
from backend.graph.check import check
from backend.graph.ir import (
    ABSENT,
    BATCH,
    ArgMax,
    BatchNorm,
    Binary,
    Clip,
    Conv,
    Dense,
    Epilogue,
    Graph,
    Mean,
    Pad,
    Pool,
    Softmax,
    Transpose,
    Value,
)
from backend.reference import run_reference

UNIT_ROUNDOFF = 2.0**-24
"""u: float32 rounds to nearest with a relative error of at most u."""


class Net:
    """A graph that is built op by op. Every method returns the name of the value it made, weights are random."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._builder = GraphBuilder(opset=13)
        self._inputs: list[str] = []

    def input(self, *shape: int, batch: int = BATCH) -> str:
        """An input of `shape` behind the batch axis; `batch` other than BATCH makes the model's shapes fixed."""
        name = f"input{len(self._inputs)}"
        self._builder.values[name] = Value(name, (batch, *shape))
        self._inputs.append(name)
        return name

    def shape(self, value: str) -> tuple[int, ...]:
        return self._builder.values[value].shape

    def constant(self, array: Any) -> str:
        return self._builder.add_weight("constant", np.asarray(array, np.float32))

    def random(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * self._rng.standard_normal(shape)).astype(np.float32)

    def conv(
        self,
        x: str,
        filters: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1),
        group: int = 1,
        bias: bool = True,
        residual: str = ABSENT,
        low: float = -np.inf,
        high: float = np.inf,
        weight: np.ndarray | None = None,
    ) -> str:
        """Convolution; random weights are scaled so that the output is about as large as the input."""
        if weight is None:
            channels = self.shape(x)[1] // group
            taps = channels * kernel[0] * kernel[1]
            weight = self.random(filters, channels, *kernel, scale=taps**-0.5)
        bias_name = self.constant(self.random(filters)) if bias else ABSENT
        epilogue = Epilogue(residual, low, high)
        weight_name = self.constant(weight)
        return self._emit(Conv, x, weight_name, bias_name, strides=strides, pads=pads, dilations=dilations, group=group,
                          epilogue=epilogue)  # fmt: skip

    def dense(
        self, x: str, columns: int, *, bias: bool = True, residual: str = ABSENT, low: float = -np.inf,
        high: float = np.inf, weight: np.ndarray | None = None,
    ) -> str:  # fmt: skip
        rows = self.shape(x)[-1]
        if weight is None:
            weight = self.random(rows, columns, scale=rows**-0.5)
        bias_name = self.constant(self.random(columns)) if bias else ABSENT
        return self._emit(Dense, x, self.constant(weight), bias_name, epilogue=Epilogue(residual, low, high))

    def pool(self, kind: str, x: str, kernel: tuple[int, int], **attributes: Any) -> str:
        return self._emit(Pool, x, kind=kind, kernel=kernel, **{"strides": (1, 1), "pads": (0, 0, 0, 0)} | attributes)

    def batch_norm(self, x: str) -> str:
        channels = self.shape(x)[1]
        scale, shift = self.constant(self.random(channels)), self.constant(self.random(channels))
        return self._emit(BatchNorm, x, scale, shift)

    def binary(self, kind: str, a: str, b: str, low: float = -np.inf, high: float = np.inf) -> str:
        return self._emit(Binary, kind=kind, a=a, b=b, epilogue=Epilogue(ABSENT, low, high))

    def mean(self, x: str, axes: tuple[int, ...], keepdims: bool = True) -> str:
        return self._emit(Mean, x, axes=axes, keepdims=keepdims)

    def clip(self, x: str, low: float, high: float) -> str:
        return self._emit(Clip, x, low=low, high=high)

    def softmax(self, x: str, axis: int) -> str:
        return self._emit(Softmax, x, axis=axis)

    def argmax(self, x: str, axis: int, keepdims: bool = True, select_last: bool = False) -> str:
        return self._emit(ArgMax, x, axis=axis, keepdims=keepdims, select_last=select_last)

    def pad(self, x: str, *pads: tuple[int, int], value: float = 0.0) -> str:
        return self._emit(Pad, x, pads=pads, value=value)

    def transpose(self, x: str, *perm: int) -> str:
        return self._emit(Transpose, x, perm=perm)

    def reshape(self, x: str, *shape: int) -> str:
        name = self._builder.fresh("Reshape")
        return self._builder.reshape(name, x, name, shape).name

    def graph(self, *outputs: str) -> Graph:
        """The graph, every invariant checked; no pass has touched it."""
        return check(self._builder.graph("small net", tuple(self._inputs), outputs))

    def _emit(self, op_type: type, *operands: str, **fields: Any) -> str:
        name = self._builder.fresh(op_type.__name__)
        names = [key for key in op_type.__dataclass_fields__ if key in ("x", "weight", "bias", "scale", "shift")]
        self._builder.emit(op_type(name=name, output=name, **dict(zip(names, operands, strict=True)), **fields))
        return name


def resnet50() -> Graph:
    """ResNet50 v1.5's layers and shapes, as they are after the passes; the weights are random."""
    net = Net()
    x = net.conv(net.input(3, 224, 224), 64, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), low=0.0)
    x = net.pool("max", x, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1))
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            strides = (first_stride, first_stride) if block == 0 else (1, 1)
            shortcut = net.conv(x, 4 * width, strides=strides) if block == 0 else x
            branch = net.conv(x, width, low=0.0)
            branch = net.conv(branch, width, (3, 3), strides=strides, pads=(1, 1, 1, 1), low=0.0)
            x = net.conv(branch, 4 * width, residual=shortcut, low=0.0)
    logits = net.dense(net.mean(x, (2, 3), keepdims=False), 1001)
    return net.graph(net.argmax(logits, 1), net.softmax(logits, 1))


def random_inputs(graph: Graph, images: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Normally distributed inputs for a graph, `images` of each if the graph is batched."""
    rng = np.random.default_rng(seed)
    shapes = {name: graph.values[name].shape for name in graph.inputs}
    sizes = {name: [images if size == BATCH else size for size in shape] for name, shape in shapes.items()}
    return {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}


def oracle(graph: Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The NumPy twins in float64, rounded to float32 at the end."""
    return run_reference(graph, inputs, np.float64)


def sum_of_products_bound(graph: Graph, inputs: Mapping[str, np.ndarray], terms: int) -> np.ndarray:
    """How far a float32 sum of `terms` products may be from the exact one, element by element.

    gamma(n) * sum |x| |w|, gamma(n) = n u / (1 - n u), for any order of summation (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2nd ed., section 3.1). For a graph of one op that is linear but for a final clip, which
    enlarges no difference: the sum is the op itself over absolute values. n is `terms` + 3: bias, residual, and the
    float32 rounding of the oracle's result.
    """
    magnitudes = {name: np.abs(array) for name, array in graph.constants.items()}
    (op,) = graph.ops
    if isinstance(op, (Conv, Dense)):
        op = replace(op, epilogue=Epilogue(op.epilogue.residual))
    positive = replace(graph, ops=(op,), constants=magnitudes)
    total = run_reference(positive, {name: np.abs(array) for name, array in inputs.items()}, np.float64)[0]
    n = (terms + 3) * UNIT_ROUNDOFF
    return n / (1 - n) * total.astype(np.float64)
