"""The invariants of a graph, checked after the reader and after each pass.

A broken invariant is a mistake of ours, never of the model: it raises `BrokenGraphError`, which names op and invariant,
so that a faulty pass fails at its own door.

May import: ir, shapes, errors.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ModelError
from .ir import ABSENT, BATCH, BatchNorm, Binary, Clip, Conv, Dense, Epilogue, Graph, Op, Pool, Requantize, Value, reads
from .shapes import is_batched, output_value


class BrokenGraphError(Exception):
    """A graph violates an invariant of the intermediate representation: a bug in the reader or in a pass."""


def check(graph: Graph) -> Graph:
    """Returns `graph` unchanged if every invariant holds, else raises BrokenGraphError naming op and invariant."""
    _check_values(graph)
    _check_constants(graph)
    written = set(graph.inputs) | set(graph.constants)
    for op in graph.ops:
        _check_op(op, graph, written)
        written.add(op.output)
    for name in graph.outputs:
        if name not in written or name in graph.constants or name in graph.inputs:
            raise BrokenGraphError(f"output {name!r}: no op writes it")
    _check_use(graph)
    return graph


def _check_values(graph: Graph) -> None:
    if len(set(graph.inputs)) != len(graph.inputs) or len(set(graph.outputs)) != len(graph.outputs):
        raise BrokenGraphError(f"inputs {graph.inputs} or outputs {graph.outputs} repeat a name")
    for name, value in graph.values.items():
        if name != value.name or name == ABSENT:
            raise BrokenGraphError(f"value {value.name!r} is filed under {name!r}")
        if any(size < 1 for size in value.shape[1:]) or (
            value.shape and value.shape[0] < 1 and not is_batched(value.shape)
        ):
            raise BrokenGraphError(f"value {name!r} has shape {value.shape}: sizes are positive, {BATCH} is for axis 0")
    for name in graph.inputs:
        if name not in graph.values or name in graph.constants:
            raise BrokenGraphError(f"input {name!r} has no value or is a constant")
    batched = [name for name in graph.inputs if is_batched(graph.values[name].shape)]
    if batched and len(batched) != len(graph.inputs):
        raise BrokenGraphError(f"inputs {graph.inputs}: only {batched} are batched")


def _check_constants(graph: Graph) -> None:
    for name, array in graph.constants.items():
        stated = graph.values.get(name)
        if array.dtype not in (np.float32, np.int64, np.int8, np.int32) or not array.flags.c_contiguous:
            raise BrokenGraphError(f"constant {name!r} is {array.dtype} or not C-contiguous")
        if stated is None or stated != Value(name, array.shape, stated.dtype) or stated.dtype != array.dtype.name:
            raise BrokenGraphError(f"constant {name!r} has shape {array.shape}, its value says {stated}")


def _check_op(op: Op, graph: Graph, written: set[str]) -> None:
    where = f"op {op.name!r} ({type(op).__name__})"
    for name in reads(op):
        if name not in written:
            raise BrokenGraphError(f"{where} reads {name!r} before it is written")
    if op.output in written or op.output == ABSENT:
        raise BrokenGraphError(f"{where} writes {op.output!r}, which is an input, a constant or already written")
    if op.output not in graph.values:
        raise BrokenGraphError(f"{where} writes {op.output!r}, which is not among the values")
    for name in _weights(op):
        if name not in graph.constants:
            raise BrokenGraphError(f"{where} needs {name!r} to be a constant")
    try:
        derived = output_value(op, graph.values)
    except ModelError as error:
        raise BrokenGraphError(str(error)) from error
    if derived != graph.values[op.output]:
        raise BrokenGraphError(f"{where} writes {derived}, its value says {graph.values[op.output]}")
    if isinstance(op, (Conv, Dense, Binary)):
        _check_epilogue(where, op, op.epilogue, graph)
    if isinstance(op, Clip) and (math.isnan(op.low) or math.isnan(op.high)):
        raise BrokenGraphError(f"{where} has a NaN bound")
    if isinstance(op, Pool) and op.kind == "max" and op.count_include_pad:
        raise BrokenGraphError(f"{where} counts pads, which means nothing for max")
    if isinstance(op, Pool) and op.counted_pads != (0, 0, 0, 0) and not op.count_include_pad:
        raise BrokenGraphError(f"{where} has counted_pads {op.counted_pads} without count_include_pad")


def _weights(op: Op) -> tuple[str, ...]:
    if isinstance(op, (Conv, Dense)):
        scale = op.epilogue.scale if isinstance(op.epilogue, Requantize) else ABSENT
        return tuple(name for name in (op.weight, op.bias, scale) if name != ABSENT)
    return (op.scale, op.shift) if isinstance(op, BatchNorm) else ()


def _check_epilogue(where: str, op: Conv | Dense | Binary, epilogue: Epilogue | Requantize, graph: Graph) -> None:
    if math.isnan(epilogue.low) or math.isnan(epilogue.high):
        raise BrokenGraphError(f"{where} has a NaN bound")
    if epilogue.residual == ABSENT:
        return
    if isinstance(op, Binary):
        raise BrokenGraphError(f"{where} has a residual; a Binary has none")
    if graph.values[epilogue.residual].shape != graph.values[op.output].shape:
        raise BrokenGraphError(
            f"{where}: residual {graph.values[epilogue.residual]} has not the shape of {graph.values[op.output]}"
        )


def _check_use(graph: Graph) -> None:
    used = set(graph.inputs) | set(graph.outputs)
    for op in graph.ops:
        used.update(reads(op))
    for op in graph.ops:
        if op.output not in used:
            raise BrokenGraphError(f"op {op.name!r} writes {op.output!r}, which nothing reads")
    unused = graph.values.keys() - used
    if unused:
        raise BrokenGraphError(f"values that nothing reads: {sorted(unused)}")
