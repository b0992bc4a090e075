"""Turns an explicit Pad before a convolution or pooling into that op's own pads.

    before                                 after
    x -> Pad (0, sides) -> Conv            x -> Conv (pads + sides)
    x -> Pad (0, sides) -> average Pool    x -> average Pool (pads + sides, sides counted in the divisor)
    x -> Pad (v, sides) -> max Pool        x -> max Pool (pads + sides)      only if no element of x is below v

tf2onnx writes the padding of strided convolutions this way. The Pad itself disappears when nothing else reads it.
Exact: a convolution's padding is zeros. A max pool's padding never wins, while padding with v may, unless v is no
larger than what x can hold (v = -inf, or x comes out of a ReLU and v <= 0) and each window sees an element of x.

May import: ir, prune.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..ir import Binary, Clip, Conv, Dense, Graph, Op, Pad, Pads, Pool
from ..prune import rebuild


def fold_pad(graph: Graph) -> Graph:
    """The graph with zero padding inside the convolutions and pools that read it."""
    writers = {op.output: op for op in graph.ops}
    return rebuild(graph, [_folded(op, writers) for op in graph.ops], {}, {})


def _folded(op: Op, writers: dict[str, Op]) -> Op:
    if not isinstance(op, (Conv, Pool)):
        return op
    pad = writers.get(op.x)
    if not isinstance(pad, Pad):
        return op
    sides = _picture_sides(pad)
    if sides is None:
        return op
    pads = (op.pads[0] + sides[0], op.pads[1] + sides[1], op.pads[2] + sides[2], op.pads[3] + sides[3])
    if isinstance(op, Conv):
        return replace(op, x=pad.x, pads=pads) if pad.value == 0 else op
    if op.kind == "average":
        if pad.value != 0:
            return op
        own = op.counted_pads
        counted = (own[0] + sides[0], own[1] + sides[1], own[2] + sides[2], own[3] + sides[3])
        return replace(op, x=pad.x, pads=pads, count_include_pad=True, counted_pads=counted)
    extent = [op.dilations[i] * (op.kernel[i] - 1) + 1 for i in range(2)]
    every_window_sees_x = op.dilations == (1, 1) and all(pads[i] < extent[i % 2] for i in range(4))
    if every_window_sees_x and pad.value <= _lower_bound(writers.get(pad.x)):
        return replace(op, x=pad.x, pads=pads)
    return op


def _picture_sides(pad: Pad) -> Pads | None:
    """Top, left, bottom, right if the Pad enlarges H and W of a picture and nothing else."""
    if len(pad.pads) != 4 or pad.pads[0] != (0, 0) or pad.pads[1] != (0, 0) or min(pad.pads[2] + pad.pads[3]) < 0:
        return None
    (top, bottom), (left, right) = pad.pads[2], pad.pads[3]
    return top, left, bottom, right


def _lower_bound(writer: Op | None) -> float:
    """A number that no element of what `writer` writes is below."""
    if isinstance(writer, Clip):
        return min(writer.low, writer.high)
    if isinstance(writer, (Conv, Dense, Binary)):
        return min(writer.epilogue.low, writer.epilogue.high)
    return -math.inf
