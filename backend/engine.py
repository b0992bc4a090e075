"""Who executes plans: kernels compiled by Numba, or on Arm the C library. Chosen once, when a session is made.

Both walk the same step records and read the same packed weights. What belongs to one of them is imported only when it
was chosen, so each works where the other cannot be imported.

May import: plan, kernels, neon, machine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from .errors import InputError, MachineError
from .machine import Machine, runs_here
from .plan.plan import Plan

Array = npt.NDArray[Any]
Kernels: TypeAlias = Literal["numba", "neon"]

_KNOWN: Final = ("auto", "numba", "neon")


class Executor(Protocol):
    """The memory of one session, and compiled code bound to it."""

    def bind(self, inputs: list[Array], outputs: list[Array], raw: bool) -> Any:
        """Notes where the caller's arrays are; the steps to run for them. raw: the first input is uint8 pixels."""

    def run_steps(self, steps: Any, first: int, last: int, count: int) -> None:
        """Steps [first, last) of what `bind` gave, for `count` images."""

    def pin(self, cpus: Sequence[int]) -> list[set[int]]:
        """Binds the calling thread and the others of the team to one CPU each; the masks read back."""


def resolve_kernels(kernels: str, machine: Machine) -> Kernels:
    """Whose kernels to use. "auto": Numba's where it is installed, else on Arm the C library.

    Raises: InputError for an unknown name; MachineError if Numba is missing, or the machine is not for the library.
    """
    if kernels not in _KNOWN:
        raise InputError(f"kernels={kernels!r}: choose one of {', '.join(_KNOWN)}")
    if kernels == "neon" and (machine.isa.name != "neon" or not runs_here(machine.isa)):
        raise MachineError(
            f"kernels='neon' are for aarch64 and the ISA 'neon', and this is {machine.cpu} with {machine.isa.name!r}: "
            "use kernels='numba'"
        )
    if kernels != "auto":
        return cast(Kernels, kernels)
    return "neon" if machine.isa.name == "neon" and not _numba_installed() else "numba"


def settle_isa(kernels: Kernels, machine: Machine) -> None:
    """Fixes what Numba compiles for in this process, if it will; to be called before a kernel is imported.

    Raises: MachineError if Numba is not installed or already compiles for something else.
    """
    if kernels == "neon" or not runs_here(machine.isa):  # the latter can be planned for, and no more
        return
    _require_numba()
    from .kernels.jit import prepare_cache, target_isa

    target_isa(machine.isa, machine.best_isa)
    prepare_cache()


def kernel_cache() -> Path:
    """The folder where kernels that Numba compiled are kept for the next process; need not be there yet.

    Raises: MachineError if Numba is not installed.
    """
    _require_numba()
    from .kernels.jit import CACHE_DIR

    return CACHE_DIR


def open_executor(kernels: Kernels, plan: Plan, threads: int) -> Executor:
    """The executor of a plan, its kernels compiled. Raises: MachineError if they or the threads cannot be had."""
    isa = plan.machine.isa
    if not runs_here(isa):
        raise MachineError(f"this plan is for ISA {isa.name!r}, which is {isa.architecture}'s: it cannot run here")
    best = plan.machine.best_isa
    if isa.extensions and isa.name != best.name:
        raise MachineError(
            f"this plan is for ISA {isa.name!r} with {', '.join(isa.extensions)}; here that ISA is compiled without "
            f"extensions, since {best.name!r} is the best: it cannot run here"
        )
    lacking = set(isa.extensions) - set(best.extensions)
    if lacking:
        raise MachineError(
            f"this plan is for a CPU with {', '.join(sorted(lacking))}, which this one lacks (it has "
            f"{', '.join(best.extensions) or 'no extensions'}): it cannot run here"
        )
    if kernels == "neon":
        from .neon.executor import NeonExecutor

        return NeonExecutor(plan, threads)
    return _NumbaExecutor(plan, threads)


def _require_numba() -> None:
    if not _numba_installed():
        raise MachineError("kernels are compiled by Numba, which is not installed: pip install numba")


def _numba_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


class _NumbaExecutor:
    """Kernels compiled by Numba, and its OpenMP team."""

    def __init__(self, plan: Plan, threads: int) -> None:
        from .kernels.step import counters_for
        from .kernels.table import compiled_binds, kernel_addresses
        from .kernels.team import open_team, pin_team, size_team
        from .plan import executor
        from .plan.pack import aligned_zeros

        if threads > 1:
            open_team(threads)
        self._pin_team, self._size_team = pin_team, size_team

        self._plan = plan
        self._threads = threads
        self._arena = aligned_zeros(plan.arena_elements(threads))
        for offset, array in plan.constants:
            self._arena[offset : offset + array.size] = array
        self._io = np.zeros(len(plan.inputs) + len(plan.outputs), np.int64)
        isa = plan.machine.isa
        self._fixed = (isa, kernel_addresses(isa, plan.kernels), self._arena, plan.weights, plan.tables, self._io)
        self._binds = compiled_binds(
            [np.dtype(np.float32), np.dtype(np.uint8), *(np.dtype(port.dtype) for port in plan.outputs)]
        )
        self._counters = counters_for(plan.walked, threads)
        self._run = executor.compiled_run(isa, threads)
        self._steps = plan.steps.view(np.recarray)
        self._pixel_steps = None if plan.pixel_steps is None else plan.pixel_steps.view(np.recarray)

    def pin(self, cpus: Sequence[int]) -> list[set[int]]:
        return self._pin_team(self._threads, cpus)

    def bind(self, inputs: list[Array], outputs: list[Array], raw: bool) -> Any:
        for index, array in enumerate(inputs + outputs):
            self._binds[array.dtype](self._io, index, array.reshape(-1))
        return self._pixel_steps if raw else self._steps

    def run_steps(self, steps: Any, first: int, last: int, count: int) -> None:
        if self._threads == 1:
            self._run(*self._fixed, steps, first, last, count)
        else:
            self._size_team(self._threads)
            self._run(*self._fixed, steps, first, last, count, self._counters, self._threads)
