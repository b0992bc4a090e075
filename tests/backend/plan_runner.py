"""Runs a plan in an arena that watches it: filled with NaN beforehand, walled in by guards that must not change.

Sees the same compiled code as a session does, but owns the arena, so that a test can tell what a kernel read without
anybody having written it (a NaN reaches the result) and what it wrote outside (a guard changes).

The kernels are Numba's, or those of the C library if the environment variable LOADGEN_NUMBA_TEST_KERNELS is "neon"
(`neon_runner`), as in the runs of `tools/arm64/test`.

The ISA is the machine's best, or what the environment variable LOADGEN_NUMBA_TEST_ISA names: Numba compiles for one ISA
per process, so `test_isa.py` runs the kernel tests again in processes of their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from backend.graph.ir import Graph
from backend.kernels.jit import target_isa
from backend.kernels.step import counters_for
from backend.machine import Machine, detect
from backend.plan.plan import Plan
from backend.plan.planner import make_plan
from backend.plan.precision import Precision
from backend.simd.isa import NEON

KERNELS = os.environ.get("LOADGEN_NUMBA_TEST_KERNELS", "numba")
if KERNELS == "neon":
    from neon_runner import FEATURES, run_steps

    _BEST = replace(NEON, extensions=FEATURES)
    MACHINE = Machine("an Arm core", _BEST, _BEST, 2, l1d_bytes=64 << 10, l2_bytes=1 << 20, l3_bytes=32 << 20)
else:
    MACHINE = detect(os.environ.get("LOADGEN_NUMBA_TEST_ISA"))
    target_isa(MACHINE.isa, MACHINE.best_isa)

    from backend.kernels.table import kernel_addresses
    from backend.kernels.team import open_team
    from backend.plan import executor

ISA = MACHINE.isa


def with_extensions(*extensions: str) -> Machine:
    """This machine with so few extensions of its ISA: what runs on CPUs that lack the others."""
    return replace(MACHINE, isa=replace(ISA, extensions=extensions))


_GUARD = 4096
_GUARD_VALUE = np.float32(99)
_NANS = 0x7FC07FC0
"""A NaN of float32, and two of bfloat16."""


def plan_graph(graph: Graph, max_batch: int = 1, machine: Any = MACHINE, precision: Precision = "fp32") -> Plan:
    """The plan of a graph as it is, without passes."""
    return make_plan(graph, machine, max_batch, None, precision=precision)


def run_plan(plan: Plan, inputs: Mapping[str, np.ndarray], threads: int = 1) -> list[np.ndarray]:
    """The outputs of at most `max_batch` images; asserts that nothing outside arena and outputs was written."""
    arrays = [np.ascontiguousarray(inputs[port.name]) for port in plan.inputs]
    images = len(arrays[0]) if plan.batched else 1
    assert images <= plan.max_batch
    memory, arena = _guarded(plan.arena_elements(threads), np.float32)
    arena.view(np.uint32)[:] = _NANS
    for offset, array in plan.constants:
        arena[offset : offset + array.size] = array
    outputs = []
    for port in plan.outputs:
        shape = (images, *port.shape[1:]) if plan.batched else port.shape
        around, inside = _guarded(int(np.prod(shape)), np.dtype(port.dtype))
        outputs.append((around, inside, inside.reshape(shape)))
    if KERNELS == "neon":
        run_steps(
            plan.kernels, plan.steps, plan.walked, images, threads, plan.weights, plan.tables, memory,
            slice(_GUARD, _GUARD + arena.size), arrays,
            [(around, slice(_GUARD, _GUARD + inside.size)) for around, inside, _ in outputs],
            plan.machine.isa.extensions,
        )  # fmt: skip
        return _checked(memory, arena, outputs)
    io = np.array([array.ctypes.data for array in arrays] + [inside.ctypes.data for _, inside, _ in outputs], np.int64)
    isa = plan.machine.isa  # a test may have taken extensions from it
    addresses = kernel_addresses(isa, plan.kernels)
    steps = plan.steps.view(np.recarray)
    bound = (isa, addresses, arena, plan.weights, plan.tables, io, steps, 0, plan.walked, images)
    constant = (plan.weights, plan.tables, *arrays)
    before = [array.tobytes() for array in constant]
    if threads == 1:
        executor.run_serial(*bound)
    else:
        open_team(threads)
        executor.run_parallel(*bound, counters_for(plan.walked, threads), threads)
    assert [array.tobytes() for array in constant] == before, "weights, tables or inputs were written"
    return _checked(memory, arena, outputs)


def _checked(memory: np.ndarray, arena: np.ndarray, outputs: list[Any]) -> list[np.ndarray]:
    _check_guards(memory, arena.size)
    for around, inside, _ in outputs:
        _check_guards(around, inside.size)
    return [array for _, _, array in outputs]


def _guarded(size: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """(memory, its middle): the middle has `size` elements, starts at a multiple of 64 bytes, and guards around it."""
    align = 64 // np.dtype(dtype).itemsize
    raw = np.empty(_GUARD + align + size + _GUARD, dtype)
    start = _GUARD + -(raw.ctypes.data // raw.itemsize + _GUARD) % align
    raw[:] = _GUARD_VALUE
    memory = raw[start - _GUARD : start + size + _GUARD]
    return memory, memory[_GUARD : _GUARD + size]


def _check_guards(memory: np.ndarray, size: int) -> None:
    value = memory.dtype.type(_GUARD_VALUE)
    before, after = memory[:_GUARD], memory[_GUARD + size :]
    changed = [int(i) - _GUARD for i in np.flatnonzero(before != value)]
    changed += [int(i) + size for i in np.flatnonzero(after != value)]
    assert not changed, f"written outside: {len(changed)} elements at {changed[:8]} of an area of {size}"
