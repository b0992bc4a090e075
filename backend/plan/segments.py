"""How many images at a time: cuts a batch's ops into segments that run in chunks of more and more images. Pure.

Early ops have large pictures and small weights: few images at a time keep the pictures in cache. Late ops have the
reverse: many images at a time share the reading of weights. The cuts are chosen by estimated cycles; they change no
result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..graph.ir import Conv, Dense, Graph, Op, reads
from ..machine import Machine
from . import winograd
from .blocking import direct_cycles
from .layout import Layout

_L3_BYTES_PER_CYCLE: Final = 4
_MEMORY_BYTES_PER_CYCLE: Final = 2
"""What a core gets of activations, which are not prefetched, while all cores work; roughly a server's."""

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
        work = _Work.of(graph, layouts, op, machine.isa.lanes)
        crossing = work.activation_bytes / _MEMORY_BYTES_PER_CYCLE
        extended = []
        for number, chunk in enumerate(chunks):
            options = [best[number]]
            if index:
                options += [(cost + crossing, (*cuts, (index, chunk))) for cost, cuts in best[:number]]
            cost, cuts = min(options)
            extended.append((cost + _cycles(machine, work, chunk), cuts))
        best = extended
    _, cuts = min(best)
    ends = [first for first, _ in cuts[1:]] + [len(graph.ops)]
    return tuple(Segment(first, last, chunk) for (first, chunk), last in zip(cuts, ends, strict=True))


@dataclass(frozen=True)
class _Work:
    """Of one op, per image: bytes of the activations it reads and writes; of its constants; its multiply-adds.

    winograd: (input channels, output channels, patches) if F(4x4, 3x3) can compute it.
    """

    activation_bytes: int
    weight_bytes: int
    macs: int
    winograd: tuple[int, int, int] | None

    @classmethod
    def of(cls, graph: Graph, layouts: dict[str, Layout], op: Op, lanes: int) -> _Work:
        weight_bytes = sum(graph.constants[name].nbytes for name in reads(op) if name in graph.constants)
        names = [*(name for name in reads(op) if name not in graph.constants), op.output]
        activation_bytes = sum(4 * layouts[name].images * layouts[name].image for name in names)
        output = layouts[op.output]
        macs, form = 0, None
        if isinstance(op, (Conv, Dense)):
            shape = graph.constants[op.weight].shape
            macs = int(np.prod(shape)) * output.images * output.h * output.w
            if isinstance(op, Conv) and winograd.fits(op, shape, layouts[op.x], output, lanes):
                form = shape[1], shape[0], output.images * winograd.patches_of(output.h, output.w)
        return cls(activation_bytes, weight_bytes, macs, form)


def _cycles(machine: Machine, work: _Work, images: int) -> float:
    """Estimated cycles per image of one core if `images` run at once: computing, and waiting for activations."""
    computing = direct_cycles(machine, images * work.macs, work.weight_bytes)
    if work.winograd is not None:
        in_c, out_c, patches = work.winograd
        form = winograd.best_form(machine, in_c, out_c, images * patches)
        computing = min(computing, form.cycles) if form else computing
    held = work.activation_bytes * images
    if held <= machine.l2_bytes / 2:
        return computing / images
    rate = _L3_BYTES_PER_CYCLE if held <= machine.l3_bytes / 2 else _MEMORY_BYTES_PER_CYCLE
    return (computing + held / rate) / images
