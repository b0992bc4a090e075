"""How many images at a time: cuts a batch's ops into segments that run in chunks of more and more images. Pure.

Early ops have large pictures and small weights: few images at a time keep the pictures in cache. Late ops have the
reverse: many images at a time share the reading of weights. The cuts are chosen by estimated cycles. A cut changes no
result by itself; whether Winograd pays may depend on how many images share its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..graph.ir import Conv, Dense, Graph, Op, reads
from ..machine import Machine
from ..simd.element import UINT8
from . import winograd
from .blocking import L3_BYTES_PER_CYCLE, choose_tiles, direct_cycles
from .layout import Layout
from .problem import GemmProblem, gemm_problem

_MEMORY_BYTES_PER_CYCLE: Final = 2
"""What a core gets of activations, which are not prefetched, while all cores work; roughly a server's."""

_REREAD_BYTES_PER_CYCLE: Final = 8
"""What a core gets of a picture of bytes that each panel reads from L3 again: its rows are a few cache lines, too short
for the hardware's prefetcher. Fitted to ResNet50's 7 pixel layers, int8, with 8 and with 32 images (Cascade Lake at 2.5
GHz); of float32 no such cost was seen."""

_CHUNKS: Final = (1, 4, 8)
"""Images at a time that are tried, beside the whole batch."""


@dataclass(frozen=True)
class Segment:
    """ops[first:last], run for `chunk` units of batch at a time."""

    first: int
    last: int
    chunk: int


def choose_segments(graph: Graph, layouts: dict[str, Layout], machine: Machine, max_batch: int) -> tuple[Segment, ...]:
    """The cheapest cut by estimated cycles: dynamic programming over ops and chunks, which only grow.

    A cut costs the next op's activations from memory: what crosses it was written for the whole batch.
    """
    chunks = [*(chunk for chunk in _CHUNKS if chunk < max_batch), max_batch]
    # For each chunk of the latest op: (cycles per image so far, where its segment and those before it begin).
    best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ((0, chunk),)) for chunk in chunks]
    for index, op in enumerate(graph.ops):
        names = [*(name for name in reads(op) if name not in graph.constants), op.output]
        activation_bytes = sum(layouts[name].images * layouts[name].image_bytes for name in names)
        crossing = activation_bytes / _MEMORY_BYTES_PER_CYCLE
        extended = []
        for number, chunk in enumerate(chunks):
            options = [best[number]]
            if index:
                options += [(cost + crossing, (*cuts, (index, chunk))) for cost, cuts in best[:number]]
            cost, cuts = min(options)
            cycles = _computing(graph, layouts, machine, op, chunk) + _waiting(machine, activation_bytes * chunk)
            extended.append((cost + cycles / chunk, cuts))
        best = extended
    _, cuts = min(best)
    ends = [first for first, _ in cuts[1:]] + [len(graph.ops)]
    return tuple(Segment(first, last, chunk) for (first, chunk), last in zip(cuts, ends, strict=True))


def _computing(graph: Graph, layouts: dict[str, Layout], machine: Machine, op: Op, chunk: int) -> float:
    """Estimated cycles of one core for `chunk` units of batch at once, by the algorithm that will be chosen."""
    if not isinstance(op, (Conv, Dense)):
        return 0.0
    weight, y = graph.constants[op.weight], layouts[op.output]
    if isinstance(op, Conv):
        form = winograd.chosen_form(machine, op, weight.shape, layouts[op.x], y, chunk)
        if form is not None:
            return form.cycles
    cycles = direct_cycles(machine, chunk * y.images * y.h * y.w * weight.size, weight.size, layouts[op.x].element)
    groups = op.group if isinstance(op, Conv) else 1
    return cycles + _rereading(machine, gemm_problem(graph, layouts, machine, op, chunk), groups)


def _rereading(machine: Machine, problem: GemmProblem, groups: int) -> float:
    """Estimated cycles to read pictures of bytes once more for each panel, where neither they nor the weights of all
    groups stay in L2. Measured layers wait so even where the few pictures that are tiled together would stay."""
    x_bytes, weight_bytes = problem.images * problem.x_bytes, groups * problem.weight_bytes(machine.isa.lanes)
    if problem.element != UINT8 or min(x_bytes, weight_bytes) <= machine.l2_bytes // 2:
        return 0.0
    return sum(panels for _, panels in choose_tiles(machine, problem)) * x_bytes / _REREAD_BYTES_PER_CYCLE


def _waiting(machine: Machine, held_bytes: int) -> float:
    """Estimated cycles that one core waits for activations that are read and written together."""
    if held_bytes <= machine.l2_bytes / 2:
        return 0.0
    rate = L3_BYTES_PER_CYCLE if held_bytes <= machine.l3_bytes / 2 else _MEMORY_BYTES_PER_CYCLE
    return held_bytes / rate
