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

from .kernels.jit import jit, jit_parallel, target_isa
from .kernels.team import open_team
from .machine import Machine
from .simd.dot import dot_bfloat16
from .simd.element import BFLOAT16, FLOAT32, Element
from .simd.tags import lanes_of
from .simd.vector import add, fma, load, splat, store

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
    as the micro-kernel has them. Runs on the CPUs that the calling thread may use.

    Raises: MachineError if the process compiles for another ISA, or there are not as many threads.
    """
    target_isa(machine.isa, machine.best_isa)
    lanes = machine.isa.lanes
    operands = np.repeat(np.array([0.5, 1.0, *range(_CHAINS)], np.float32), lanes)
    sums = np.empty(threads * lanes, np.float32)
    pairs = element == BFLOAT16
    if threads == 1:
        chains = _dot_products if pairs else _multiply_adds
        seconds = _best_seconds(lambda: chains(machine.isa, operands, _TURNS, sums, 0))
    else:
        open_team(threads)
        team = _team_dots if pairs else _team_multiplies
        seconds = _best_seconds(lambda: team(machine.isa, operands, _TURNS, sums, threads))
    return 2e-9 * threads * _TURNS * _CHAINS * lanes * element.per_word / seconds


def measure_bandwidth_gb_s(machine: Machine, threads: int = 1) -> float:
    """Billions of bytes per second that `threads` threads read from memory, one after the other through an array.

    Inference mostly reads: weights once per batch, activations once per layer. The array is written by the calling
    thread, as a session's memory is.

    Raises: MachineError as `measure_peak_gflops` does.
    """
    target_isa(machine.isa, machine.best_isa)
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


@jit
def _multiply_adds(isa: Any, operands: Any, turns: int, sums: Any, at: int) -> None:
    """sums[at : at + lanes] = total of twelve chains c = c * x + y; `operands` are the vectors x, y and twelve first c.

    Chains that began with the same constant would be one chain to the compiler.
    """
    lanes = lanes_of(isa)
    x = load(isa, operands, 0)
    y = load(isa, operands, lanes)
    c0 = load(isa, operands, 2 * lanes)
    c1 = load(isa, operands, 3 * lanes)
    c2 = load(isa, operands, 4 * lanes)
    c3 = load(isa, operands, 5 * lanes)
    c4 = load(isa, operands, 6 * lanes)
    c5 = load(isa, operands, 7 * lanes)
    c6 = load(isa, operands, 8 * lanes)
    c7 = load(isa, operands, 9 * lanes)
    c8 = load(isa, operands, 10 * lanes)
    c9 = load(isa, operands, 11 * lanes)
    c10 = load(isa, operands, 12 * lanes)
    c11 = load(isa, operands, 13 * lanes)
    for _ in range(turns):
        c0 = fma(isa, c0, x, y)
        c1 = fma(isa, c1, x, y)
        c2 = fma(isa, c2, x, y)
        c3 = fma(isa, c3, x, y)
        c4 = fma(isa, c4, x, y)
        c5 = fma(isa, c5, x, y)
        c6 = fma(isa, c6, x, y)
        c7 = fma(isa, c7, x, y)
        c8 = fma(isa, c8, x, y)
        c9 = fma(isa, c9, x, y)
        c10 = fma(isa, c10, x, y)
        c11 = fma(isa, c11, x, y)
    low = add(add(add(c0, c1), add(c2, c3)), add(c4, c5))
    high = add(add(add(c6, c7), add(c8, c9)), add(c10, c11))
    store(sums, at, add(low, high))


@jit
def _dot_products(isa: Any, operands: Any, turns: int, sums: Any, at: int) -> None:
    """`_multiply_adds` of pairs: c = c + x[1] * y[1] + x[0] * y[0], x and y bfloat16 in the words of `operands`."""
    lanes = lanes_of(isa)
    x = load(isa, operands, 0)
    y = load(isa, operands, lanes)
    c0 = load(isa, operands, 2 * lanes)
    c1 = load(isa, operands, 3 * lanes)
    c2 = load(isa, operands, 4 * lanes)
    c3 = load(isa, operands, 5 * lanes)
    c4 = load(isa, operands, 6 * lanes)
    c5 = load(isa, operands, 7 * lanes)
    c6 = load(isa, operands, 8 * lanes)
    c7 = load(isa, operands, 9 * lanes)
    c8 = load(isa, operands, 10 * lanes)
    c9 = load(isa, operands, 11 * lanes)
    c10 = load(isa, operands, 12 * lanes)
    c11 = load(isa, operands, 13 * lanes)
    for _ in range(turns):
        c0 = dot_bfloat16(isa, x, y, c0)
        c1 = dot_bfloat16(isa, x, y, c1)
        c2 = dot_bfloat16(isa, x, y, c2)
        c3 = dot_bfloat16(isa, x, y, c3)
        c4 = dot_bfloat16(isa, x, y, c4)
        c5 = dot_bfloat16(isa, x, y, c5)
        c6 = dot_bfloat16(isa, x, y, c6)
        c7 = dot_bfloat16(isa, x, y, c7)
        c8 = dot_bfloat16(isa, x, y, c8)
        c9 = dot_bfloat16(isa, x, y, c9)
        c10 = dot_bfloat16(isa, x, y, c10)
        c11 = dot_bfloat16(isa, x, y, c11)
    low = add(add(add(c0, c1), add(c2, c3)), add(c4, c5))
    high = add(add(add(c6, c7), add(c8, c9)), add(c10, c11))
    store(sums, at, add(low, high))


@jit_parallel
def _team_dots(isa: Any, operands: Any, turns: int, sums: Any, threads: int) -> None:
    for me in numba.prange(threads):
        _dot_products(isa, operands, turns, sums, me * lanes_of(isa))


@jit_parallel
def _team_multiplies(isa: Any, operands: Any, turns: int, sums: Any, threads: int) -> None:
    for me in numba.prange(threads):
        _multiply_adds(isa, operands, turns, sums, me * lanes_of(isa))


@jit
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
