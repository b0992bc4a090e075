"""Runs the steps of a plan: one call into compiled code per inference, no Python between layers, no allocation.

The executor decides nothing: a step's kernel (an address) and its blocks are numbers in its record. With several
threads there is one parallel region per inference, and every participant walks through all steps. A step's units
are divided evenly; whoever has finished its share takes from the others', and goes on when all units are done. So a
participant that the system keeps from running holds up a step by one unit at most. (The end of the region waits for
all threads of the team, as OpenMP does.) A unit of a chain is a run of further steps, its links, by one participant.
Which participant computes a unit never changes its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numba
from numba.core import types

from ..kernels.conv_gemm import conv_gemm_units
from ..kernels.jit import entry_point, jit, jit_entry, jit_parallel
from ..kernels.rows import row_units
from ..kernels.step import CHAIN_UNITS, COUNTER_PITCH, GEMM_UNITS, PATCH_UNITS, ROW_UNITS
from ..kernels.strided import image_units
from ..kernels.table import call_kernel, executor_arguments
from ..kernels.winograd import winograd_units
from ..simd.atomics import atomic_add, atomic_load, pause_cpu, yield_cpu
from ..simd.isa import Isa

_PATIENCE: Final = 1_000
"""Polls of a counter before a waiting participant offers its CPU to others: some tens of microseconds where `pause_cpu`
takes 40 to 140 cycles, as x86's does."""


def compiled_run(isa: Isa, threads: int) -> Callable[..., None]:
    """`run_serial` for one thread, `run_parallel` for several, compiled for an ISA."""
    arguments = executor_arguments(isa)
    if threads == 1:
        return entry_point(run_serial, arguments)
    return entry_point(run_parallel, (*arguments, types.Array(types.int64, 1, "C"), types.int64))


@jit
def _units(step: Any, images: int) -> int:
    if step.unit_kind == GEMM_UNITS:
        return conv_gemm_units(step, images)
    if step.unit_kind == PATCH_UNITS:
        return winograd_units(step, images)
    if step.unit_kind == ROW_UNITS:
        return row_units(step, images)
    if step.unit_kind == CHAIN_UNITS:
        return step.parts * images
    return image_units(step, images)


@jit
def _run_unit(
    isa: Any, kernels: Any, arena: Any, weights: Any, tables: Any, io: Any, steps: Any, step: Any, images: int,
    unit: int, worker: int,
) -> None:  # fmt: skip
    """One unit of a step: a kernel's, or the links of one part of a chain, one after the other."""
    if step.unit_kind != CHAIN_UNITS:
        call_kernel(kernels[step.kernel], isa, arena, weights, tables, io, step, images, unit, worker)
        return
    begin, end = tables[step.part_links + unit], tables[step.part_links + unit + 1]
    for index in range(step.link + begin, step.link + end):
        link = steps[index]
        for inner in range(_units(link, 1)):
            call_kernel(kernels[link.kernel], isa, arena, weights, tables, io, link, 1, inner, worker)


@jit_entry
def run_serial(
    isa: Any,
    kernels: Any,
    arena: Any,
    weights: Any,
    tables: Any,
    io: Any,
    steps: Any,
    first: int,
    last: int,
    batch: int,
) -> None:
    """Steps [first, last) for `batch` images, by the calling thread alone."""
    for index in range(first, last):
        step = steps[index]
        images = min(step.chunk, max(0, batch - step.first)) * step.images
        for unit in range(_units(step, images)):
            _run_unit(isa, kernels, arena, weights, tables, io, steps, step, images, unit, 0)


@jit
def _participate(
    isa: Any, kernels: Any, arena: Any, weights: Any, tables: Any, io: Any, steps: Any, first: int, last: int,
    batch: int, counters: Any, threads: int, me: int,
) -> None:  # fmt: skip
    for index in range(first, last):
        step = steps[index]
        images = min(step.chunk, max(0, batch - step.first)) * step.images
        units = _units(step, images)
        base = index * (threads + 1) * COUNTER_PITCH
        done = base + threads * COUNTER_PITCH
        for turn in range(threads):
            owner = (me + turn) % threads
            begin, end = units * owner // threads, units * (owner + 1) // threads
            while True:
                unit = begin + atomic_add(counters, base + owner * COUNTER_PITCH, 1)
                if unit >= end:
                    break
                _run_unit(isa, kernels, arena, weights, tables, io, steps, step, images, unit, me)
                atomic_add(counters, done, 1)
        polls = 0
        while atomic_load(counters, done) < units:
            polls += 1
            pause_cpu()
            if polls > _PATIENCE:
                yield_cpu()


@jit
def _clear_counters(counters: Any, begin: int, end: int) -> None:
    """In a function of its own: in `run_parallel`, Numba would make it a parallel region too."""
    for i in range(begin, end):
        counters[i] = 0


@jit_parallel
def run_parallel(
    isa: Any, kernels: Any, arena: Any, weights: Any, tables: Any, io: Any, steps: Any, first: int, last: int,
    batch: int, counters: Any, threads: int,
) -> None:  # fmt: skip
    """Steps [first, last) for `batch` images, by a team of `threads`."""
    _clear_counters(counters, first * (threads + 1) * COUNTER_PITCH, last * (threads + 1) * COUNTER_PITCH)
    for me in numba.prange(threads):
        _participate(
            isa, kernels, arena, weights, tables, io, steps, first, last, batch, counters, threads, me
        )  # fmt: skip
