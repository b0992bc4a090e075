"""What this machine can do at most: multiply-adds between registers, and reading from memory.

The two roofs of the roofline model (Williams, Waterman and Patterson 2009), measured, not looked up. Called by whoever
sets measured kernels against the machine (`harness.bench`). Importing this file defines jitted functions, which
fixes the process's ISA: create a session first if it is for another ISA than the machine's best.

May import: machine, kernels.jit, kernels.team, simd.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np
from numba.core import types

from .kernels.jit import entry_point, jit_entry, jit_parallel, prepare_cache, target_isa
from .kernels.team import open_team
from .machine import Machine
from .simd.dot import multiply_add, sum_of
from .simd.element import FLOAT32, Element, Operands
from .simd.isa import Isa
from .simd.tags import TagType, lanes_of
from .simd.vector import add, load, splat, store

_CHAINS: Final = 12
"""Independent multiply-adds in `_multiply_adds`: enough to hide their latency (two pipes, four cycles), few enough
for 16 registers."""

_STREAMS: Final = 4
"""Vectors read per turn in `_read`."""

_TURNS: Final = 1 << 19
"""Of the loop of multiply-adds: one to several milliseconds."""

_ATTEMPTS_S: Final = 0.5
"""How long to go on trying. The best attempt counts: a peak is what happens when nothing disturbs."""

_LEAST_BYTES, _MOST_BYTES = 64 << 20, 1 << 30
_L3_MULTIPLE: Final = 4
"""An array so many times L3 comes from memory, whatever of it L3 has kept."""


def measure_peak_gflops(machine: Machine, threads: int = 1, element: Element = FLOAT32) -> float:
    """Billions of operations per second of `threads` threads at once, a multiply-add counted as two.

    With the vectors of `machine.isa`, all operands in registers: multiply-adds of float32, or dot products of bfloat16
    or bytes as the micro-kernel has them. Runs on the CPUs that the calling thread may use.

    Raises: MachineError if the process compiles for another ISA, its code cannot be kept, or there are not as many
        threads.
    """
    target_isa(machine.isa, machine.best_isa)
    prepare_cache()
    lanes = machine.isa.lanes
    operands = np.repeat(np.array([0.5, 1.0, *range(_CHAINS)], np.float32), lanes)
    sums = np.empty(threads * lanes, np.float32)
    if threads > 1:
        open_team(threads)
    chains = compiled_chains(machine.isa, element, threads)
    seconds = _best_seconds(lambda: chains(machine.isa, operands, _TURNS, sums, 0 if threads == 1 else threads))
    return 2e-9 * threads * _TURNS * _CHAINS * lanes * element.per_word / seconds


def compiled_chains(isa: Isa, element: Element, threads: int = 1) -> Callable[..., None]:
    """`_multiply_adds` for that element, or its team, to be called with the ISA for a tag."""
    floats = types.Array(types.float32, 1, "C")
    tag = TagType(isa, None, Operands(x=element))
    return entry_point(
        _multiply_adds if threads == 1 else _team_multiplies, (tag, floats, types.int64, floats, types.int64)
    )


def measure_bandwidth_gb_s(machine: Machine, threads: int = 1) -> float:
    """Billions of bytes per second that `threads` threads read from memory, one after the other through an array.

    Inference mostly reads: weights once per batch, activations once per layer. The array is written by the calling
    thread, as a session's memory is.

    Raises: MachineError as `measure_peak_gflops` does.
    """
    target_isa(machine.isa, machine.best_isa)
    prepare_cache()
    lanes = machine.isa.lanes
    size_bytes = min(max(_L3_MULTIPLE * machine.l3_bytes, _LEAST_BYTES), _MOST_BYTES)
    share = size_bytes // 4 // threads // (_STREAMS * lanes) * (_STREAMS * lanes)
    array = np.ones(threads * share, np.float32)
    sums = np.empty(threads * lanes, np.float32)
    if threads == 1:
        seconds = _best_seconds(lambda: _read(machine.isa, array, 0, share, sums, 0))
    else:
        open_team(threads)
        seconds = _best_seconds(lambda: _team_reads(machine.isa, array, share, sums, threads))
    return 1e-9 * array.nbytes / seconds


def _best_seconds(work: Callable[[], None]) -> float:
    work()  # compiles
    best = float("inf")
    begin = now = time.perf_counter()
    while now - begin < _ATTEMPTS_S:
        start = now
        work()
        now = time.perf_counter()
        best = min(best, now - start)
    return best


@jit_entry
def _multiply_adds(tag: Any, operands: Any, turns: int, sums: Any, at: int) -> None:
    """sums[at : at + lanes] = total of twelve chains of multiply-adds; `operands` are the vectors x, y and twelve first
    c.

    Chains that began with the same constant would be one chain to the compiler.
    """
    lanes = lanes_of(tag)
    x = load(tag, operands, 0)
    y = load(tag, operands, lanes)
    c0 = load(tag, operands, 2 * lanes)
    c1 = load(tag, operands, 3 * lanes)
    c2 = load(tag, operands, 4 * lanes)
    c3 = load(tag, operands, 5 * lanes)
    c4 = load(tag, operands, 6 * lanes)
    c5 = load(tag, operands, 7 * lanes)
    c6 = load(tag, operands, 8 * lanes)
    c7 = load(tag, operands, 9 * lanes)
    c8 = load(tag, operands, 10 * lanes)
    c9 = load(tag, operands, 11 * lanes)
    c10 = load(tag, operands, 12 * lanes)
    c11 = load(tag, operands, 13 * lanes)
    for _ in range(turns):
        c0 = multiply_add(tag, c0, x, y)
        c1 = multiply_add(tag, c1, x, y)
        c2 = multiply_add(tag, c2, x, y)
        c3 = multiply_add(tag, c3, x, y)
        c4 = multiply_add(tag, c4, x, y)
        c5 = multiply_add(tag, c5, x, y)
        c6 = multiply_add(tag, c6, x, y)
        c7 = multiply_add(tag, c7, x, y)
        c8 = multiply_add(tag, c8, x, y)
        c9 = multiply_add(tag, c9, x, y)
        c10 = multiply_add(tag, c10, x, y)
        c11 = multiply_add(tag, c11, x, y)
    low = sum_of(tag, sum_of(tag, sum_of(tag, c0, c1), sum_of(tag, c2, c3)), sum_of(tag, c4, c5))
    high = sum_of(tag, sum_of(tag, sum_of(tag, c6, c7), sum_of(tag, c8, c9)), sum_of(tag, c10, c11))
    store(sums, at, sum_of(tag, low, high))


@jit_parallel
def _team_multiplies(tag: Any, operands: Any, turns: int, sums: Any, threads: int) -> None:
    for me in numba.prange(threads):
        _multiply_adds(tag, operands, turns, sums, me * lanes_of(tag))


@jit_entry
def _read(isa: Any, array: Any, begin: int, end: int, sums: Any, at: int) -> None:
    """sums[at : at + lanes] = array[begin:end] added up lane by lane; end - begin in whole turns."""
    lanes = lanes_of(isa)
    a = b = c = d = splat(isa, np.float32(0))
    for i in range(begin, end, 4 * lanes):
        a = add(a, load(isa, array, i))
        b = add(b, load(isa, array, i + lanes))
        c = add(c, load(isa, array, i + 2 * lanes))
        d = add(d, load(isa, array, i + 3 * lanes))
    store(sums, at, add(add(a, b), add(c, d)))


@jit_parallel
def _team_reads(isa: Any, array: Any, share: int, sums: Any, threads: int) -> None:
    for me in numba.prange(threads):
        _read(isa, array, me * share, (me + 1) * share, sums, me * lanes_of(isa))
