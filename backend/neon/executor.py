"""Runs a plan by the C library: the memory of one session and the team of threads bound to it.

May import: errors, affinity, kernels.step, plan.plan, plan.pack, neon.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..affinity import pin_threads
from ..errors import MachineError
from ..kernels.step import counters_for
from ..plan.pack import aligned_zeros
from ..plan.plan import Plan
from .build import build_library
from .library import Memory, Run, kernel_addresses, load_library


class NeonExecutor:
    """A plan made for the ISA "neon", ready to run on this CPU."""

    def __init__(self, plan: Plan, threads: int) -> None:
        """Builds the library on first use, and starts threads - 1 threads.

        Raises: MachineError if it cannot be built, lacks a kernel, or the threads cannot be started.
        """
        library = load_library(build_library(frozenset(plan.machine.isa.extensions)))
        self._library = library
        self._plan = plan
        self._arena = aligned_zeros(plan.arena_elements(threads))
        for offset, array in plan.constants:
            self._arena[offset : offset + array.size] = array
        self._io = np.zeros(len(plan.inputs) + len(plan.outputs), np.int64)
        self._kernels = kernel_addresses(library, plan.kernels)
        self._counters = counters_for(plan.walked, threads)
        self._memory = Memory(*(_address(array) for array in (self._arena, plan.weights, plan.tables, self._io)))
        team = library.ln_team_open(threads)
        if not team:
            raise MachineError(f"the system refuses to start {threads - 1} threads: ask for fewer threads")
        self._team = team
        # Not at exit: nothing is lost then, and a thread may still be inside `run_steps`.
        weakref.finalize(self, _close_team, library, team, os.getpid()).atexit = False
        tids = (ctypes.c_int64 * threads)()
        library.ln_team_tids(team, tids)
        self._tids = [0, *tids[: threads - 1]]

    def bind(self, inputs: list[npt.NDArray[Any]], outputs: list[npt.NDArray[Any]], raw: bool) -> Any:
        """Notes where the caller's arrays are; returns the steps for them."""
        self._io[:] = [array.ctypes.data for array in (*inputs, *outputs)]
        return self._plan.pixel_steps if raw else self._plan.steps

    def run_steps(self, steps: Any, first: int, last: int, count: int) -> None:
        """Steps [first, last) for `count` units of batch."""
        run = Run(
            _address(self._kernels), ctypes.pointer(self._memory), _address(steps), first, last, count,
            _address(self._counters),
        )  # fmt: skip
        self._library.ln_team_run(self._team, ctypes.byref(run))

    def pin(self, cpus: Sequence[int]) -> list[set[int]]:
        """Binds the calling thread, which will call `run`, and the team's other threads to one CPU each."""
        return pin_threads(self._tids, cpus)


def _close_team(library: ctypes.CDLL, team: int, process: int) -> None:
    """In a forked process there are no threads to end: joining them would last for ever."""
    if os.getpid() == process:
        library.ln_team_close(team)


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)
