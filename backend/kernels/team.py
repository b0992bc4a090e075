"""The team of threads that works on one inference: Numba's OpenMP layer, checked and pinned.

A team belongs to the Python thread that opens the parallel region: pin from the thread that will call `run`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..affinity import pin_threads
from ..errors import MachineError
from ..simd.atomics import atomic_add, atomic_load, yield_cpu
from .jit import jit_parallel

_POLLS: Final = 1_000_000
"""How long a member waits for the others to show that they run at the same time; then it goes on alone."""

_NO_LAYER: Final = "No threading layer could be loaded"
"""How Numba's error begins if the library is missing; tests/backend/test_threads.py fails if that changes."""


@cache
def _opened_first_in() -> int:
    """The process that opened the first team, once it has: this one, or one that this one was forked from."""
    return os.getpid()


@intrinsic
def _gettid(_typing: Any) -> Any:
    """gettid(2)"""

    def emit(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "gettid")
        return builder.sext(builder.call(function, []), ir.IntType(64))

    return types.int64(), emit


@jit_parallel
def _meet(tids: Any, arrived: Any) -> None:
    for me in numba.prange(len(tids)):
        tids[me] = _gettid()
        atomic_add(arrived, 0, 1)
        for _ in range(_POLLS):
            if atomic_load(arrived, 0) >= len(tids):
                break
            yield_cpu()


def open_team(threads: int) -> list[int]:
    """Starts a team of the calling thread; the system's thread ids of its members.

    Raises: MachineError if OpenMP is missing or cannot be started, gives fewer threads than asked, or if a team was
    opened here before this process was forked: GNU OpenMP does not survive that, and Numba ends a process that tries.
    (Teams that others opened cannot be told.)
    """
    if "omp" not in (numba.config.THREADING_LAYER, _layer_in_use()):
        if _layer_in_use():
            raise MachineError(
                f"Numba's threading layer {_layer_in_use()!r} is in use in this process, but several threads per "
                "inference need 'omp': create the session before other parallel Numba code runs, or use threads=1"
            )
        numba.config.THREADING_LAYER = "omp"
    if threads > numba.config.NUMBA_NUM_THREADS:
        raise MachineError(
            f"threads={threads}, but Numba was started with {numba.config.NUMBA_NUM_THREADS} (NUMBA_NUM_THREADS): "
            "ask for fewer, or start the process on more CPUs"
        )
    if _opened_first_in.cache_info().currsize and os.getpid() != _opened_first_in():
        raise MachineError(
            "this process was forked from one in which OpenMP had been started, so it cannot have several threads per "
            "inference: start processes by 'spawn' (multiprocessing.get_context), or use threads=1"
        )
    tids, arrived = np.zeros(threads, np.int64), np.zeros(1, np.int64)
    try:
        numba.set_num_threads(threads)  # loads the layer
    except ValueError as error:
        if not str(error).startswith(_NO_LAYER):
            raise MachineError(
                f"Numba cannot start a team of {threads} threads: {' '.join(str(error).split())}"
            ) from error
        raise MachineError(
            "several threads per inference need OpenMP, which Numba cannot load: install GNU OpenMP "
            "(Debian: apt-get install libgomp1), or use threads=1"
        ) from error
    _meet(tids, arrived)
    _opened_first_in()
    if len(set(tids.tolist())) != threads:
        raise MachineError(
            f"threads={threads}, but OpenMP gave {len(set(tids.tolist()))}: something in this process limits it "
            "(OMP_THREAD_LIMIT, OMP_DYNAMIC, or a library that changed OpenMP's settings)"
        )
    return [int(tid) for tid in tids]


def size_team(threads: int) -> None:
    """Makes the calling thread's next parallel region one of `threads`.

    Numba keeps that number per Python thread, and any library may change it: it is set before every inference.
    """
    numba.set_num_threads(threads)


def pin_team(threads: int, cpus: Sequence[int]) -> list[set[int]]:
    """Binds each member to one CPU; the masks read back from the system, in the members' order.

    Raises: MachineError if there are too few CPUs, one that the process may not use, or a mask did not take effect.
    """
    return pin_threads([0] if threads == 1 else open_team(threads), cpus)


def _layer_in_use() -> str:
    try:
        return str(numba.threading_layer())
    except ValueError:  # Numba's way to say that no parallel region has run yet
        return ""
