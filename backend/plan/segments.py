"""How many images at a time: cuts a batch's ops into a segment that runs in chunks and one that runs whole. Pure.

Results do not depend on the cut. It is chosen by the cycles that each op is estimated to wait: for activations that
do not stay in L2, and for weights that arrive more slowly than the multiply-adds use them up. Weights are prefetched,
so that what arrives in time costs nothing, however often it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..graph.ir import Conv, Dense, Graph, Op, reads
from ..machine import Machine
from .blocking import FMA_PER_CYCLE
from .layout import Layout

_L3_BYTES_PER_CYCLE: Final = 4
"""Activations from L3, read as they are needed."""

_MEMORY_BYTES_PER_CYCLE: Final = 2
"""A core's share of memory when all cores stream weights or activations."""


@dataclass(frozen=True)
class Segment:
    """ops[first:last], run for `chunk` units of batch at a time."""

    first: int
    last: int
    chunk: int


def choose_segments(graph: Graph, layouts: dict[str, Layout], machine: Machine, max_batch: int) -> tuple[Segment, ...]:
    """One image at a time up to the op where reading weights once per image costs more than it saves."""
    count = len(graph.ops)
    if max_batch == 1 or count == 0:
        return (Segment(0, count, max_batch),)
    work = [_Work.of(graph, layouts, op) for op in graph.ops]
    chunked = np.cumsum([0.0, *(_waiting(machine, entry, 1) for entry in work)])
    whole = np.cumsum([0.0, *(_waiting(machine, entry, max_batch) for entry in work)])
    cut = int(np.argmin(chunked + (whole[-1] - whole)))
    if cut == 0:
        return (Segment(0, count, max_batch),)
    if cut == count:
        return (Segment(0, count, 1),)
    return (Segment(0, cut, 1), Segment(cut, count, max_batch))


@dataclass(frozen=True)
class _Work:
    """Of one op: bytes of its constants; bytes of the activations it reads and writes and multiply-adds, per image."""

    weight_bytes: float
    activation_bytes: float
    macs: float

    @classmethod
    def of(cls, graph: Graph, layouts: dict[str, Layout], op: Op) -> _Work:
        weights = sum(graph.constants[name].nbytes for name in reads(op) if name in graph.constants)
        names = [*(name for name in reads(op) if name not in graph.constants), op.output]
        activations = sum(4 * layouts[name].images * layouts[name].image for name in names)
        output = layouts[op.output]
        multiplies = isinstance(op, (Conv, Dense))
        macs = graph.constants[op.weight].size * output.images * output.h * output.w if multiplies else 0
        return cls(float(weights), float(activations), float(macs))


def _waiting(machine: Machine, work: _Work, images: int) -> float:
    """Estimated cycles per image that one core waits for memory if `images` run at once."""
    computing = images * work.macs / (machine.isa.lanes * FMA_PER_CYCLE)
    weights = max(0.0, work.weight_bytes / _MEMORY_BYTES_PER_CYCLE - computing)
    held = work.activation_bytes * images
    if held <= machine.l2_bytes / 2:
        rate = np.inf
    else:
        rate = _L3_BYTES_PER_CYCLE if held <= machine.l3_bytes / 2 else _MEMORY_BYTES_PER_CYCLE
    return (weights + held / rate) / images
