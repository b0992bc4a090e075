"""Graphs of integer ops written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.graph.check import check
from backend.graph.ir import (
    BATCH,
    Conv,
    Dense,
    Graph,
    InnerRounding,
    Op,
    Quantization,
    Quantize,
    Requantize,
    Shape,
    Value,
)
from backend.graph.shapes import output_value

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


class QuantizedNet:
    """Builds a graph whose inputs are numbers on a grid of scale 1, quantised at once."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[Op] = []
        self.values: dict[str, Value] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, tuple[str, int]] = {}
        self.zero_points: dict[str, int] = {}

    def input(self, *shape: int, dtype: str = "uint8", zero_point: int = 0) -> str:
        name = f"input{len(self.inputs)}"
        self.values[name] = Value(name, (BATCH, *shape))
        self.inputs[name] = (dtype, zero_point)
        quantization = Quantization(dtype, (1.0,), (zero_point,))  # type: ignore[arg-type]
        return self.add(Quantize(f"{name}.quantize", name, f"{name}.stored", quantization))

    def feeds(self, images: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Every stored integer of the type, as the float32 number that it stands for."""
        rng, feeds = np.random.default_rng(seed), {}
        for name, (dtype, zero_point) in self.inputs.items():
            low, high = LIMITS[dtype]
            stored = rng.integers(low, high + 1, (images, *self.values[name].shape[1:]))
            feeds[name] = (stored - zero_point).astype(np.float32)
        return feeds

    def add(self, op: Op) -> str:
        self.values[op.output] = output_value(op, self.values)
        self.ops.append(op)
        return op.output

    def constant(self, array: np.ndarray) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array)
        self.values[name] = Value(name, array.shape, array.dtype.name)  # type: ignore[arg-type]
        return name

    def requantize(
        self, channels: int, terms: int, dtype: str, zero_point: int, residual: str = "", inner: bool = False,
        residual_zero_point: int = 0, narrow: bool = False,
    ) -> Requantize:  # fmt: skip
        """Scales that spread sums of so many products over the range of the type and somewhat beyond."""
        low, high = (bound - zero_point for bound in LIMITS.get(dtype, (-np.inf, np.inf)))
        if narrow:
            low, high = max(low, -20.0), min(high, 31.0)
        scale = self.rng.uniform(0.5, 2.0, channels) * 150 / (75 * 75 * max(1, terms) ** 0.5)
        return Requantize(
            scale=self.constant(scale.astype(np.float32)),
            dtype=dtype,  # type: ignore[arg-type]
            zero_point=zero_point,
            low=float(low),
            high=float(high),
            residual=residual,
            residual_scale=float(np.float32(0.37)) if residual else 0.0,
            residual_zero_point=residual_zero_point,
            inner=InnerRounding(-100.0, 90.0, float(np.float32(1.3))) if inner else None,
        )

    def conv(
        self, x: str, filters: int, kernel: tuple[int, int] = (1, 1), *, x_zero_point: int = 0, dtype: str = "uint8",
        zero_point: int = 0, strides: tuple[int, int] = (1, 1), pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1), group: int = 1, weight: np.ndarray | None = None, **more: Any,
    ) -> str:  # fmt: skip
        channels = self.values[x].shape[1] // group
        if weight is None:
            weight = self.rng.integers(-128, 128, (filters, channels, *kernel)).astype(np.int8)
        terms = channels * kernel[0] * kernel[1]
        bias = self.rng.integers(-(1 << 14), 1 << 14, filters).astype(np.int32)
        return self.add(
            Conv(
                name=f"conv{len(self.ops)}",
                x=x,
                weight=self.constant(weight),
                bias=self.constant(bias),
                output=f"value{len(self.ops)}",
                strides=strides,
                pads=pads,
                dilations=dilations,
                group=group,
                epilogue=self.requantize(filters, terms, dtype, zero_point, **more),
                x_zero_point=x_zero_point,
            )
        )

    def dense(self, x: str, columns: int, *, x_zero_point: int = 0, dtype: str = "uint8", **more: Any) -> str:
        depth = self.values[x].shape[-1]
        weight = self.rng.integers(-128, 128, (depth, columns)).astype(np.int8)
        bias = self.rng.integers(-(1 << 14), 1 << 14, columns).astype(np.int32)
        epilogue = self.requantize(columns, depth, dtype, more.pop("zero_point", 0), **more)
        names = self.constant(weight), self.constant(bias)
        output = f"value{len(self.ops)}"
        return self.add(Dense(f"dense{len(self.ops)}", x, *names, output, epilogue, x_zero_point))

    def graph(self, *outputs: str) -> Graph:
        return check(Graph("test", tuple(self.inputs), outputs, tuple(self.ops), self.values, self.constants))

    def shape(self, name: str) -> Shape:
        return self.values[name].shape
