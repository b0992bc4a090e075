"""Removes quantisations of what is quantised already.

    before                                                            after
    q -> Dequantize p -> Reshape -> Quantize p -> Dequantize p -> y   q -> Dequantize p -> Reshape -> y

and likewise with Transpose, max Pool or a Pad of zeros in the Reshape's place: none of them makes a number that p
cannot represent, so quantising again changes nothing. Quantisers put a pair around every op, also around these.

May import: ir, prune.
"""

from __future__ import annotations

from ..ir import Dequantize, Graph, Op, Pad, Pool, Quantization, Quantize, Reshape, Transpose
from ..prune import rebuild


def drop_requantization(graph: Graph) -> Graph:
    """The graph without such pairs; a Reshape to the same shape stands where one was."""
    writers: dict[str, Op] = {}
    exact: dict[str, Quantization] = {}  # float32 values whose elements all are numbers of this quantisation
    for original in graph.ops:
        op: Op = original
        if isinstance(op, Dequantize) and op.quantization.per_tensor:
            before = writers.get(op.x)
            if isinstance(before, Quantize) and before.quantization == op.quantization == exact.get(before.x):
                op = Reshape(op.name, before.x, op.output)
            exact[op.output] = original.quantization  # type: ignore[union-attr]
        elif _keeps_numbers(op) and op.x in exact:  # type: ignore[union-attr]
            exact[op.output] = exact[op.x]  # type: ignore[union-attr]
        writers[op.output] = op
    return rebuild(graph, writers.values(), {}, {})


def _keeps_numbers(op: Op) -> bool:
    """Whether what the op writes holds no numbers but those that it reads, and zeros."""
    if isinstance(op, Pad):
        return op.value == 0
    return isinstance(op, (Reshape, Transpose)) or (isinstance(op, Pool) and op.kind == "max")
