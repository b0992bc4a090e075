"""What a quantised model says about the numbers that go in and come out. Read from the graph before any pass.

May import: ir.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .ir import Dequantize, Graph, Op, Quantize, Reshape, Softmax, Transpose

_Passed: TypeAlias = Reshape | Transpose | Dequantize | Quantize


@dataclass(frozen=True)
class QuantizedEnds:
    """outputs: names, in the model's order. input_ranges: the least and the greatest number that an input keeps, by
    name. output_steps: the distance of neighbouring numbers that an output can be, by name; 1 for an output of
    integers. Left out are inputs and outputs that are not quantised, or by a scale per channel. probabilities: outputs
    that come from a Softmax.
    """

    outputs: tuple[str, ...]
    input_ranges: Mapping[str, tuple[float, float]]
    output_steps: Mapping[str, float]
    probabilities: frozenset[str]


def quantized_ends(graph: Graph) -> QuantizedEnds | None:
    """Of a graph as `read_model` gives it; None if the model quantises nothing."""
    if not any(isinstance(op, Quantize) for op in graph.ops):
        return None
    writers = {op.output: op for op in graph.ops}
    ranges: dict[str, tuple[float, float]] = {}
    for op in graph.ops:
        source = _source(writers, op.x) if isinstance(op, Quantize) else ""
        if isinstance(op, Quantize) and source in graph.inputs and op.quantization.per_tensor:
            limits, zero_point = np.iinfo(op.quantization.dtype), op.quantization.zero_point[0]
            low, high = ((limit - zero_point) * op.quantization.scale[0] for limit in (limits.min, limits.max))
            ranges.setdefault(source, (float(low), float(high)))
    steps: dict[str, float] = {}
    probabilities: set[str] = set()
    for name in graph.outputs:
        writer = _behind(writers, name, (Reshape, Transpose))
        if isinstance(writer, Dequantize) and writer.quantization.per_tensor:
            steps[name] = writer.quantization.scale[0]
        elif isinstance(writer, Quantize):
            steps[name] = 1.0
        if isinstance(_behind(writers, name, (Reshape, Transpose, Dequantize, Quantize)), Softmax):
            probabilities.add(name)
    return QuantizedEnds(graph.outputs, ranges, steps, frozenset(probabilities))


def _source(writers: Mapping[str, Op], name: str) -> str:
    """The value that another one is, moved about."""
    writer = writers.get(name)
    while isinstance(writer, (Reshape, Transpose)):
        name = writer.x
        writer = writers.get(name)
    return name


def _behind(writers: Mapping[str, Op], name: str, passed: tuple[type[_Passed], ...]) -> Op | None:
    """The op that a value comes from, ops of the types `passed` on its way left out."""
    writer = writers.get(name)
    while isinstance(writer, passed):
        writer = writers.get(writer.x)
    return writer
