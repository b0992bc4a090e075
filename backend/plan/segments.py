"""How many images at a time: cuts a batch's ops into a segment that runs in chunks and one that runs whole. Pure.

Results do not depend on the cut. It is chosen by the bytes that each op moves from beyond L2, weights once per
chunk, activations only if the chunk's do not stay in cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..graph.ir import Graph, Op, reads
from ..machine import Machine
from .layout import Layout

_L3_COST: Final = 1.0
_MEMORY_COST: Final = 3.0
_WEIGHTS_L3_COST: Final = 0.3
"""Relative cost of a byte from L3 and from memory, roughly their bandwidths on servers."""


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
    moved = [_bytes(graph, layouts, op) for op in graph.ops]
    chunked = np.cumsum([0.0, *(_chunked_cost(machine, *entry, max_batch) for entry in moved)])
    whole = np.cumsum([0.0, *(_whole_cost(machine, *entry, max_batch) for entry in moved)])
    cut = int(np.argmin(chunked + (whole[-1] - whole)))
    if cut == 0:
        return (Segment(0, count, max_batch),)
    if cut == count:
        return (Segment(0, count, 1),)
    return (Segment(0, cut, 1), Segment(cut, count, max_batch))


def _bytes(graph: Graph, layouts: dict[str, Layout], op: Op) -> tuple[float, float]:
    """(bytes of constants, bytes of activations per unit of batch) that an op reads and writes."""
    weights = sum(graph.constants[name].nbytes for name in reads(op) if name in graph.constants)
    names = [*(name for name in reads(op) if name not in graph.constants), op.output]
    activations = sum(4 * layouts[name].images * layouts[name].image for name in names)
    return float(weights), float(activations)


def _cost(machine: Machine, moved_bytes: float, held_bytes: float) -> float:
    """Cost of moving bytes that belong to `held_bytes` in use at the time: free while those stay in half of L2."""
    if held_bytes <= machine.l2_bytes / 2:
        return 0.0
    return moved_bytes * (_L3_COST if held_bytes <= machine.l3_bytes / 2 else _MEMORY_COST)


def _chunked_cost(machine: Machine, weights: float, activations: float, max_batch: int) -> float:
    """Per unit of batch: weights from memory for the first image, from L3 for the others."""
    first, others = _MEMORY_COST * weights / max_batch, _WEIGHTS_L3_COST * weights * (1 - 1 / max_batch)
    return first + others + _cost(machine, activations, activations)


def _whole_cost(machine: Machine, weights: float, activations: float, max_batch: int) -> float:
    """Per unit of batch: weights from memory once for all images."""
    return _MEMORY_COST * weights / max_batch + _cost(machine, activations, activations * max_batch)
