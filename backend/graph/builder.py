"""A graph while it is being read: ONNX nodes as plain records, the values known so far, the ops made so far.

Used by `onnx_reader` (which fills it) and by `onnx_ops` (one function per op type, which emit into it). Knows no
onnx object: attributes arrive as Python values and NumPy arrays.

May import: ir, shapes, errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from .ir import BATCH, Graph, Op, QuantizedConstant, Reshape, Shape, Value
from .shapes import element_count, output_value, shape_text

Array = npt.NDArray[np.generic]

_MOST_ELEMENTS: Final = 2**31 - 1
"""Per sample and value. Larger tensors do not occur in image models; such a number means a damaged file."""


@dataclass(frozen=True)
class Node:
    """An ONNX node. inputs, outputs: value names, "" where left out.

    attributes: int, float, str, tuples of these, arrays.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]

    def error(self, problem: str) -> ModelError:
        """The ModelError that says what is wrong with this node."""
        return ModelError(f"node {self.name!r} ({self.op_type}): {problem}")

    def input(self, index: int) -> str:
        """Name of input `index`, "" if the node leaves it out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def integer(self, key: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, int):
            raise self.error(f"attribute {key!r} is {value!r}, expected an integer")
        return value

    def number(self, key: str, default: float) -> float:
        """A float attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, (int, float)):
            raise self.error(f"attribute {key!r} is {value!r}, expected a number")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, str):
            raise self.error(f"attribute {key!r} is {value!r}, expected a string")
        return value

    def integers(self, key: str, default: tuple[int, ...] | None) -> tuple[int, ...]:
        """A list-of-integers attribute; required if `default` is None."""
        value = self.attributes.get(key, default)
        if not isinstance(value, tuple) or not all(isinstance(item, int) for item in value):
            raise self.error(f"attribute {key!r} is {value!r}, expected a list of integers")
        return value

    def pair(self, key: str, default: tuple[int, int] | None) -> tuple[int, int]:
        """A list of two integers: this backend convolves and pools in two dimensions."""
        value = self.integers(key, default)
        if len(value) != 2:
            raise self.error(f"attribute {key!r} is {list(value)}; only 2-D (two numbers) is supported")
        return value[0], value[1]


@dataclass
class GraphBuilder:
    """Mutable while one model is read.

    opset: version of the ai.onnx operator set. reserved: every name in the model, which names made up here avoid.
    known: arrays of initializers and of nodes computed while reading, any dtype. constants: those that ops use.
    quantized: float32 constants, by name, that the model states as integers.
    """

    opset: int
    reserved: frozenset[str] = frozenset()
    known: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    quantized: dict[str, QuantizedConstant] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def tensor(self, node: Node, index: int) -> Value:
        """The value of input `index`, which the model computes from its inputs."""
        name = node.input(index)
        if name in self.known:
            raise node.error(f"input {index} ({name!r}) is a constant; here it must depend on the model's input")
        return self._value(node, index)

    def operand(self, node: Node, index: int) -> Value:
        """The value of input `index`, computed or constant float32."""
        name = node.input(index)
        if name in self.known:
            self.weight(node, index)
        return self._value(node, index)

    def _value(self, node: Node, index: int) -> Value:
        name = node.input(index)
        if name not in self.values:
            raise node.error(
                f"input {index} ({name!r}) is missing: no input, initializer or earlier node has this name"
            )
        return self.values[name]

    def array(self, node: Node, index: int) -> Array:
        """The constant array that input `index` must be."""
        name = node.input(index)
        if name in self.known:
            return self.known[name]
        self._value(node, index)
        raise node.error(f"input {index} ({name!r}) must be a constant, but the model computes it")

    def numbers(self, node: Node, index: int) -> npt.NDArray[np.float32]:
        """The constant float32 array that input `index` must be."""
        array = self.array(node, index)
        if array.dtype != np.float32:
            raise node.error(f"input {index} ({node.input(index)!r}) is {array.dtype}; only float32 is supported")
        if array.size == 0:
            raise node.error(f"input {index} ({node.input(index)!r}) has shape {list(array.shape)}, which is empty")
        return array.astype(np.float32, copy=False)

    def weight(self, node: Node, index: int) -> str:
        """Name of input `index`, which must be a constant float32 array, now among the graph's constants."""
        self._keep(node.input(index), self.numbers(node, index))
        return node.input(index)

    def integers(self, node: Node, index: int) -> tuple[int, ...]:
        """The constant integers (scalar or list) that input `index` must be."""
        array = self.array(node, index)
        if not np.issubdtype(array.dtype, np.integer) or array.ndim > 1:
            raise node.error(
                f"input {index} ({node.input(index)!r}) is {array.dtype} of rank {array.ndim}, expected integers"
            )
        return tuple(int(item) for item in array.reshape(-1))

    def scalar(self, node: Node, index: int) -> float:
        """The single constant number that input `index` must be."""
        array = self.array(node, index)
        if array.size != 1 or array.dtype.kind not in "fiub":
            raise node.error(
                f"input {index} ({node.input(index)!r}) is {array.dtype} {list(array.shape)}, expected one number"
            )
        return float(array.reshape(-1)[0])

    def add_weight(self, base: str, array: npt.NDArray[np.floating]) -> str:
        """Files an array derived from the model's constants as float32; returns its name."""
        name = self.fresh(base)
        with np.errstate(over="ignore"):  # too large for float32 is infinity here as in any other engine
            self._keep(name, array.astype(np.float32))
        return name

    def _keep(self, name: str, array: Array) -> None:
        self.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        self.values[name] = Value(name, array.shape)

    def fresh(self, base: str) -> str:
        """`base`, lengthened until no other value has that name."""
        while base in self.values or base in self.reserved:
            base += "_"
        return base

    def emit(self, op: Op) -> Value:
        """Appends an op whose output shape follows from what it reads."""
        value = output_value(op, self.values)
        if element_count(value.shape) > _MOST_ELEMENTS:
            raise ModelError(
                f"node {op.name!r}: output {shape_text(value.shape)} has more than {_MOST_ELEMENTS} elements per sample"
            )
        self.values[op.output] = value
        self.ops.append(op)
        return value

    def reshape(self, name: str, x: str, output: str, shape: Shape) -> Value:
        """Appends a Reshape of `x` to `shape`."""
        self.values[output] = Value(output, shape, self.values[x].dtype)
        return self.emit(Reshape(name, x, output))

    def graph(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
        """The finished graph."""
        for array in self.constants.values():
            array.setflags(write=False)
        return Graph(name, inputs, outputs, tuple(self.ops), self.values, self.constants, self.quantized)


def shape_array(shape: Shape, batch: int) -> npt.NDArray[np.int64]:
    """A shape as ONNX Shape gives it, `batch` in place of BATCH."""
    return np.array([batch if size == BATCH else size for size in shape], np.int64)
