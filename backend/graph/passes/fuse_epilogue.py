r"""Moves ReLU, Clip and the residual add into the epilogue of the op that computes the value.

    before                                              after
    x -> Conv | Dense | Binary -> Clip (lo, hi) -> y    x -> Conv | Dense | Binary [lo, hi] -> y
    x -> Conv -> a --\                                  x -> Conv [+ r] -> y
                      Add -> y
               r ----/

and both in turn: Conv, Add, Clip becomes Conv [+ r, lo, hi]. Only where the value in between has one reader and is no
output. Of two convolutions added, the later one takes the add, so that the other is already there; a convolution whose
result is clipped before the add takes none (the epilogue adds first). The fused op stands where the last op that it
replaces stood, so everything that it reads is written before it.

May import: ir, prune, rewrite.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import ABSENT, Binary, Clip, Conv, Dense, Epilogue, Graph, Op
from ..prune import rebuild
from .rewrite import private_values


def fuse_epilogue(graph: Graph) -> Graph:
    """The graph with activations and residual adds fused; see the module's docstring."""
    private = private_values(graph)
    ops: dict[str, Op] = {}  # by output, in order of writing
    for op in graph.ops:
        fused = _with_residual(op, ops, private, graph) or _with_clip(op, ops, private)
        if fused is None:
            ops[op.output] = op
        else:
            replaced, merged = fused
            del ops[replaced]
            ops[merged.output] = merged
    return rebuild(graph, ops.values(), {}, {})


def _with_clip(op: Op, ops: dict[str, Op], private: frozenset[str]) -> tuple[str, Op] | None:
    """(output of the op to replace, that op with the Clip in its epilogue)."""
    if not isinstance(op, Clip) or op.x not in private:
        return None
    producer = ops.get(op.x)
    if not isinstance(producer, (Conv, Dense, Binary)):
        return None
    assert isinstance(producer.epilogue, Epilogue)  # integer ops are made later
    low, high = producer.epilogue.low, producer.epilogue.high
    # clip(clip(v, low, high), op.low, op.high) == clip(v, both bounds clipped), also where the ranges do not meet.
    epilogue = replace(producer.epilogue, low=min(max(low, op.low), op.high), high=min(max(high, op.low), op.high))
    return op.x, replace(producer, output=op.output, epilogue=epilogue)


def _with_residual(op: Op, ops: dict[str, Op], private: frozenset[str], graph: Graph) -> tuple[str, Op] | None:
    """(output of the op to replace, that op with the add in its epilogue)."""
    if not isinstance(op, Binary) or op.kind != "add":
        return None
    shape, clip = graph.values[op.output].shape, op.epilogue
    assert isinstance(clip, Epilogue)
    order = list(ops)
    candidates = []
    for own, residual in ((op.a, op.b), (op.b, op.a)):
        producer = ops.get(own)
        if (
            isinstance(producer, (Conv, Dense))
            and producer.epilogue == Epilogue()
            and own in private
            and residual not in graph.constants
            and graph.values[own].shape == graph.values[residual].shape == shape
        ):
            candidates.append(
                (
                    order.index(own),
                    own,
                    replace(producer, output=op.output, epilogue=replace(clip, residual=residual)),
                )
            )
    if not candidates:
        return None
    _, replaced, merged = max(candidates, key=lambda candidate: candidate[0])
    assert merged.epilogue.residual != ABSENT
    return replaced, merged
