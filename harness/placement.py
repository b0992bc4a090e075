"""Which instance runs on which cores: planned here, pinned here, and read back from the kernel.

An instance is one inference session on its own cores. Threads that a session starts (OpenMP teams, thread pools)
inherit the mask of the thread that opens it, so the opening thread is pinned first. Linux only, like LoadGen's wheels
that we depend on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.machine import Machine, is_fast

from .config import STREAMS, Scenario
from .errors import BadInputError


@dataclass(frozen=True)
class Placement:
    """Logical CPU numbers of each instance; every instance has as many, and no CPU belongs to two."""

    cores: tuple[tuple[int, ...], ...]

    @property
    def instances(self) -> int:
        return len(self.cores)

    @property
    def threads(self) -> int:
        return len(self.cores[0])


@dataclass(frozen=True)
class PinnedInstance:
    """What the kernel says about one instance: its threads and the CPUs they may run on."""

    cores: tuple[int, ...]
    thread_count: int
    stray_thread_count: int
    """Threads whose mask is not within `cores`: a session that set its own affinity."""


_TOPOLOGY: Final = Path("/sys/devices/system/cpu")


def numa_node(cpu: int, topology: Path = _TOPOLOGY) -> int:
    """The memory node a CPU belongs to; 0 where the system has none."""
    nodes = [entry.name.removeprefix("node") for entry in (topology / f"cpu{cpu}").glob("node[0-9]*")]
    return int(nodes[0]) if nodes else 0


@dataclass(frozen=True)
class Cpus:
    """What there is to place threads on.

    order: the CPUs this process may use, one of each physical core before any siblings, the fastest cores first. nodes:
    the memory node of each. cores: how many of them come before the siblings. fast: how many of those are no small
    cores of a big.LITTLE machine.
    """

    order: tuple[int, ...]
    nodes: tuple[int, ...]
    cores: int
    fast: int


def available_cores(machine: Machine, topology: Path = _TOPOLOGY) -> Cpus:
    """The CPUs this process may use, in the order in which to use them.

    Siblings of a core (hyper-threads) share its arithmetic units, so they come last and are used only when asked for.
    Speeds are those of `machine.clusters`; a CPU in none of them counts as the slowest. Among cores of one speed
    NUMA node by NUMA node.
    """
    clusters = machine.clusters
    speed = {cpu: (is_fast(kind, clusters), kind.capacity) for kind in clusters for cpu in kind.cpus}

    def rank(cpu: int) -> tuple[int, int, int]:
        return -speed.get(cpu, (False, 0))[1], numa_node(cpu, topology), cpu

    first: list[int] = []
    siblings: list[int] = []
    seen: set[str] = set()
    for cpu in sorted(os.sched_getaffinity(0), key=rank):
        listing = topology / f"cpu{cpu}/topology/thread_siblings_list"
        core = listing.read_text().strip() if listing.exists() else str(cpu)
        (siblings if core in seen else first).append(cpu)
        seen.add(core)
    fast = [cpu for cpu in first if speed.get(cpu, (False, 0))[0]]
    order = (*first, *siblings)
    nodes = tuple(numa_node(cpu, topology) for cpu in order)
    return Cpus(order, nodes, len(first), len(fast) or len(first))


def plan(scenario: Scenario, instances: int | None, threads: int | None, cpus: Cpus) -> Placement:
    """Share the CPUs among instances.

    Defaults: Offline and Server have one instance of one thread per core; the streams have one instance over all cores.
    Small cores take part by default in Offline alone: a team waits for its slowest member, and a query of Server for
    the instance that has it. One number given, the other is what then fits.

    No small core or sibling is used while there are enough others. An instance spans NUMA nodes only if each node has
    fewer CPUs left than it needs.

    Raises: BadInputError for more threads than CPUs.
    """
    cores = cpus.cores if scenario == "Offline" else cpus.fast
    if instances is None and threads is None:
        instances, threads = (1, cores) if scenario in STREAMS else (cores, 1)
    elif instances is None:
        assert threads is not None
        instances = 1 if scenario in STREAMS else max(1, cores // threads)
    elif threads is None:
        threads = max(1, cores // instances)
    if instances * threads > len(cpus.order):
        raise BadInputError(
            f"--instances {instances} x --threads {threads} = {instances * threads} threads, but this process may use "
            f"{len(cpus.order)} CPUs ({cpus.cores} cores): ask for at most {len(cpus.order)}"
        )
    wanted = instances * threads
    enough = next(count for count in (cpus.fast, cpus.cores, len(cpus.order)) if count >= wanted)
    teams = _teams(cpus.order[:enough], cpus.nodes, threads)[:instances]
    return Placement(tuple(tuple(sorted(team)) for team in teams))


def _teams(order: Sequence[int], nodes: Sequence[int], threads: int) -> list[Sequence[int]]:
    """CPUs in teams of so many: first those within one node, by the rank of their best CPU, then of what is left."""
    by_node: dict[int, list[int]] = {}
    for cpu, node in zip(order, nodes, strict=False):
        by_node.setdefault(node, []).append(cpu)
    within = [team for cpus in by_node.values() for team in _cut(cpus, threads)]
    within.sort(key=lambda team: order.index(team[0]))
    taken = {cpu for team in within for cpu in team}
    return within + _cut([cpu for cpu in order if cpu not in taken], threads)


def _cut(cpus: Sequence[int], threads: int) -> list[Sequence[int]]:
    """Full teams, in order; what is left over is in none."""
    return [cpus[begin : begin + threads] for begin in range(0, len(cpus) - threads + 1, threads)]


def pin_this_thread(cores: Sequence[int]) -> None:
    """Bind the calling thread, and every thread it will start, to `cores`."""
    os.sched_setaffinity(0, cores)


def threads_of_process() -> frozenset[int]:
    """Kernel ids of all threads of this process."""
    return frozenset(int(entry.name) for entry in Path("/proc/self/task").iterdir())


def read_back(cores: Sequence[int], before: frozenset[int]) -> PinnedInstance:
    """Masks of the calling thread and of every thread started since `before`, against `cores`."""
    thread_ids = (threads_of_process() - before) | {threading.get_native_id()}
    masks = [os.sched_getaffinity(thread_id) for thread_id in thread_ids]
    stray = sum(not mask <= set(cores) for mask in masks)
    return PinnedInstance(tuple(cores), len(masks), stray)
