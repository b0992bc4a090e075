"""Nodes that the reader computes at once because they depend on no input: mostly the arithmetic behind Reshape targets.

Exporters write a reshape as Shape, Gather, Unsqueeze, Concat, Reshape; with every size but the batch known this is
constant. The batch size itself travels as UNKNOWN_BATCH, which may be moved about but not computed with. Integers are
int64 throughout, whatever integer type the model states.

May import: shapes, builder, errors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from .builder import Array, GraphBuilder, Node, shape_array
from .shapes import UNKNOWN_BATCH

_CAST: Final = {1: np.float32, 6: np.int64, 7: np.int64, 11: np.float64}
"""ONNX TensorProto element types FLOAT, INT32, INT64, DOUBLE."""


def fold(b: GraphBuilder, node: Node) -> Array | None:
    """What the node yields if the reader can compute it, else None. Raises ModelError if the computation fails."""
    if node.op_type == "Shape" and node.input(0) in b.values:
        shape = shape_array(b.values[node.input(0)].shape, UNKNOWN_BATCH)
        return shape[node.integer("start", 0) : node.integer("end", len(shape))]
    if node.op_type not in FOLDERS or any(name not in b.known for name in node.inputs if name):
        return None
    if not node.inputs and node.op_type != "Constant":
        return None
    try:
        with np.errstate(all="ignore"):
            return np.asarray(FOLDERS[node.op_type](b, node))
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
        shapes = [list(b.known[name].shape) for name in node.inputs if name]
        raise node.error(f"cannot be computed from constants of shapes {shapes}: {error}") from error


def _constant(_: GraphBuilder, node: Node) -> Array:
    for key, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if key in node.attributes:
            return np.array(node.attributes[key], dtype)
    for key in ("value_int", "value_ints"):
        if key in node.attributes:
            return np.array(node.attributes[key], np.int64)
    value = node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise node.error(f"attributes {sorted(node.attributes)} hold no dense tensor of numbers")
    return value


def _shape(b: GraphBuilder, node: Node) -> Array:
    shape = shape_array(b.array(node, 0).shape, UNKNOWN_BATCH)
    return shape[node.integer("start", 0) : node.integer("end", len(shape))]


def _numbers(b: GraphBuilder, node: Node, index: int) -> Array:
    array = b.array(node, index)
    if array.dtype == np.int64 and (array == UNKNOWN_BATCH).any():
        raise node.error("computes with the batch size, which is known only at run time; this is not supported")
    return array


def _arithmetic(function: Callable[[Array, Array], Array], b: GraphBuilder, node: Node) -> Array:
    left, right = _numbers(b, node, 0), _numbers(b, node, 1)
    if left.dtype != right.dtype or left.dtype.kind not in "fi":
        raise node.error(f"input types {left.dtype} and {right.dtype} differ or are not numbers")
    return function(left, right)


def _divide(left: Array, right: Array) -> Array:
    if left.dtype.kind == "f":
        return np.asarray(np.true_divide(left, right))
    if not right.all():
        raise ZeroDivisionError("integer division by zero")
    return np.asarray(np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right)))


def _cast(b: GraphBuilder, node: Node) -> Array:
    dtype = _CAST.get(node.integer("to", 0))
    if dtype is None:
        raise node.error(f"attribute 'to' is {node.integer('to', 0)}; supported element types are {sorted(_CAST)}")
    array = b.array(node, 0)
    return (array if dtype is np.int64 else _numbers(b, node, 0)).astype(dtype)


def _concat(b: GraphBuilder, node: Node) -> Array:
    arrays = [b.array(node, index) for index in range(len(node.inputs))]
    return np.concatenate(arrays, axis=node.integer("axis", 0))


def _gather(b: GraphBuilder, node: Node) -> Array:
    indices = b.array(node, 1).astype(np.int64, casting="same_kind")
    return np.take(b.array(node, 0), indices, axis=node.integer("axis", 0))


def _slice(b: GraphBuilder, node: Node) -> Array:
    data = b.array(node, 0)
    if b.opset < 10:
        starts, ends = node.integers("starts", None), node.integers("ends", None)
        axes, steps = node.integers("axes", tuple(range(len(starts)))), (1,) * len(starts)
    else:
        starts, ends = b.integers(node, 1), b.integers(node, 2)
        axes = b.integers(node, 3) if node.input(3) else tuple(range(len(starts)))
        steps = b.integers(node, 4) if node.input(4) else (1,) * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _squeeze(b: GraphBuilder, node: Node) -> Array:
    axes = _axes(b, node)
    return np.squeeze(b.array(node, 0), axis=axes)


def _unsqueeze(b: GraphBuilder, node: Node) -> Array:
    return np.expand_dims(b.array(node, 0), axis=_axes(b, node) or ())


def _axes(b: GraphBuilder, node: Node) -> tuple[int, ...] | None:
    if b.opset >= 13:
        return b.integers(node, 1) if node.input(1) else None
    return node.integers("axes", ()) if "axes" in node.attributes else None


def _reshape(b: GraphBuilder, node: Node) -> Array:
    data = b.array(node, 0)
    target = b.integers(node, 1)
    if not node.integer("allowzero", 0):
        target = tuple(data.shape[axis] if size == 0 else size for axis, size in enumerate(target))
    return data.reshape(target)


def _transpose(b: GraphBuilder, node: Node) -> Array:
    data = b.array(node, 0)
    return np.transpose(data, node.integers("perm", tuple(reversed(range(data.ndim)))))


def _identity(b: GraphBuilder, node: Node) -> Array:
    return b.array(node, 0)


FOLDERS: Final[dict[str, Callable[[GraphBuilder, Node], Array]]] = {
    "Add": partial(_arithmetic, np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "Div": partial(_arithmetic, _divide),
    "Gather": _gather,
    "Identity": _identity,
    "Mul": partial(_arithmetic, np.multiply),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": partial(_arithmetic, np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
