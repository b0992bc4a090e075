"""Removes ops that move nothing, and merges chains of moves.

    before                                     after
    x -> Reshape (same shape) -> y -> Conv     x -> Conv
    x -> Transpose p -> Transpose q -> y       x -> Transpose p o q -> y, or nothing if that is the identity
    x -> Reshape -> Reshape -> y               x -> Reshape -> y
    x -> Transpose (only axes of size 1) -> y  x -> Reshape -> y
    x -> Clip (-inf, inf) | Pad (nothing) -> y x -> y

Identity, Dropout and casts that change nothing reach the graph as a Reshape to the same shape. Names of outputs
survive: if `y` is an output, whatever wrote `x` now writes `y`; where `x` must keep its own name too (it is an input or
another output) the Reshape stays as a copy.

May import: ir, prune, rewrite.
"""

from __future__ import annotations

import math

from ..ir import Clip, Graph, Op, Pad, Reshape, Shape, Transpose
from ..prune import rebuild
from .rewrite import rename


def drop_identity(graph: Graph) -> Graph:
    """The graph without no-op moves; see the module's docstring."""
    names: dict[str, str] = {}
    writers: dict[str, Op] = {}
    ops: list[Op] = []
    for original in graph.ops:
        op = _merge(rename(original, {k: v for k, v in names.items() if k != original.output}), writers, graph)
        if not _is_identity(op, graph):
            ops.append(op)
            writers[op.output] = op
            continue
        assert isinstance(op, (Clip, Pad, Reshape, Transpose))
        if op.output not in graph.outputs:
            names[op.output] = op.x
        elif op.x in graph.outputs or op.x in graph.inputs or op.x in graph.constants:
            copy = Reshape(op.name, op.x, op.output)
            ops.append(copy)
            writers[copy.output] = copy
        else:
            # The writer of x takes over the output's name; every earlier and later reader follows.
            swap = {op.x: op.output}
            ops = [rename(done, swap) for done in ops]
            writers = {done.output: done for done in ops}
            names = {old: swap.get(new, new) for old, new in names.items()} | swap
    return rebuild(graph, ops, {}, {})


def _merge(op: Op, writers: dict[str, Op], graph: Graph) -> Op:
    """A move of a move as one move, and a Transpose that keeps the order of all elements as a Reshape."""
    if isinstance(op, Transpose):
        before = writers.get(op.x)
        if isinstance(before, Transpose):
            op = Transpose(op.name, before.x, op.output, tuple(before.perm[axis] for axis in op.perm))
        if _keeps_order(op.perm, graph.values[op.x].shape):
            op = Reshape(op.name, op.x, op.output)
    if isinstance(op, Reshape):
        before = writers.get(op.x)
        if isinstance(before, Reshape):
            op = Reshape(op.name, before.x, op.output)
    return op


def _keeps_order(perm: tuple[int, ...], shape: Shape) -> bool:
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def _is_identity(op: Op, graph: Graph) -> bool:
    if isinstance(op, Reshape):
        return graph.values[op.x].shape == graph.values[op.output].shape
    if isinstance(op, Clip):
        return op.low == -math.inf and op.high == math.inf
    if isinstance(op, Pad):
        return all(pair == (0, 0) for pair in op.pads)
    return False
