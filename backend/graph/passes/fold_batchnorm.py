"""Folds per-channel affine maps into the convolution or dense layer before them.

    before                                                after
    x -> Conv (W, b) -> BatchNorm (scale, shift) -> y     x -> Conv (W * scale, b * scale + shift) -> y
    x -> Dense (W) -> Binary add constant -> y            x -> Dense (W, constant) -> y       (MatMul + Add)
    x -> Conv -> Binary mul constant -> Binary add ... -> y      likewise, one after the other

Computed in float64, rounded to float32. Only where nothing else sees the value in between and the producer has no
epilogue yet. A Binary counts as a per-channel map if its other operand is one constant per output channel, or a single
one. A BatchNorm that follows anything else stays.

May import: ir, prune, rewrite.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..ir import ABSENT, BatchNorm, Binary, Conv, Dense, Epilogue, Graph, Op, Value
from ..prune import rebuild
from .rewrite import fresh, private_values

_Vector: TypeAlias = npt.NDArray[np.float64]


def fold_batchnorm(graph: Graph) -> Graph:
    """The graph with affine maps folded; see the module's docstring."""
    private = private_values(graph)
    constants = dict(graph.constants)
    values = dict(graph.values)
    ops: dict[str, Op] = {}
    for op in graph.ops:
        producer = ops.get(_data_operand(op, constants))
        if isinstance(producer, (Conv, Dense)) and producer.output in private and producer.epilogue == Epilogue():
            affine = _affine(op, producer, graph, constants)
            scaled = None if affine is None else _scaled(producer, *affine, constants)
            if scaled is not None:
                weight, bias = scaled
                weight_name, bias_name = fresh(f"{op.output}.weight", values), fresh(f"{op.output}.bias", values)
                if np.array_equal(weight, constants[producer.weight]):
                    weight_name = producer.weight  # which may be known to be made from integers
                for name, array in ((weight_name, weight), (bias_name, bias)):
                    constants[name] = array
                    values[name] = Value(name, array.shape)
                del ops[producer.output]
                ops[op.output] = replace(producer, weight=weight_name, bias=bias_name, output=op.output)
                continue
        ops[op.output] = op
    return rebuild(graph, ops.values(), values, constants)


def _data_operand(op: Op, constants: dict[str, npt.NDArray[np.generic]]) -> str:
    """The computed operand of an op that may be an affine map, ABSENT for any other op."""
    if isinstance(op, BatchNorm):
        return op.x
    if isinstance(op, Binary) and (op.a in constants) != (op.b in constants):
        return op.b if op.a in constants else op.a
    return ABSENT


def _affine(
    op: Op, producer: Conv | Dense, graph: Graph, constants: dict[str, npt.NDArray[np.generic]]
) -> tuple[_Vector, _Vector] | None:
    """(scale, shift), one per output channel of `producer`, if `op` is such a map of what `producer` writes."""
    shape = graph.values[producer.output].shape
    axis = 1 if isinstance(producer, Conv) else len(shape) - 1
    channels = shape[axis]
    if isinstance(op, BatchNorm):
        if axis != 1:
            return None
        return constants[op.scale].astype(np.float64), constants[op.shift].astype(np.float64)
    if not isinstance(op, Binary) or op.epilogue != Epilogue() or graph.values[op.output].shape != shape:
        return None
    constant = constants[op.a if op.a in constants else op.b].astype(np.float64)
    aligned = (1,) * (len(shape) - constant.ndim) + constant.shape
    if constant.size != aligned[axis]:
        return None
    vector = np.broadcast_to(constant.reshape(-1), (channels,))
    one, zero = np.ones(channels), np.zeros(channels)
    if op.kind == "add":
        return one, vector
    if op.kind == "mul":
        return vector, zero
    if op.kind == "sub":
        return (one, -vector) if op.b in constants else (-one, vector)
    if op.b in constants and vector.all():
        return one / vector, zero
    return None


def _scaled(
    op: Conv | Dense, scale: _Vector, shift: _Vector, constants: dict[str, npt.NDArray[np.generic]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Weight and bias of scale * op(x) + shift; None if float32 cannot hold them."""
    old = constants[op.weight]
    weight = np.empty(old.shape, np.float32)
    factors = scale.reshape(-1, 1, 1, 1) if isinstance(op, Conv) else scale
    bias = constants[op.bias].astype(np.float64) if op.bias != ABSENT else np.zeros(scale.shape)
    with np.errstate(over="ignore"):
        np.multiply(old, factors, out=weight, dtype=np.float64, casting="unsafe")  # rounded once, without a copy
        rounded = (bias * scale + shift).astype(np.float32)
    if np.isinf(weight).any() or np.isinf(rounded).any():
        return None
    return weight, rounded
