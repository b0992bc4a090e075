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


def available_cores(topology: Path = _TOPOLOGY) -> tuple[tuple[int, ...], int]:
    """CPUs this process may use, one of each physical core first, and how many of those firsts there are.

    Siblings of a core (hyper-threads) share its arithmetic units, so they come last and are used only when asked for.
    NUMA node by NUMA node, so that an instance spans two only if its number of threads leaves no other way.
    """
    allowed = sorted(os.sched_getaffinity(0), key=lambda cpu: (numa_node(cpu, topology), cpu))
    first: list[int] = []
    siblings: list[int] = []
    seen: set[str] = set()
    for cpu in allowed:
        listing = topology / f"cpu{cpu}/topology/thread_siblings_list"
        core = listing.read_text().strip() if listing.exists() else str(cpu)
        (siblings if core in seen else first).append(cpu)
        seen.add(core)
    return (*first, *siblings), len(first)


def plan(scenario: Scenario, instances: int | None, threads: int | None, cpus: Sequence[int], cores: int) -> Placement:
    """Share `cpus` (the first `cores` of them physical cores) among instances.

    Defaults: Offline and Server have one instance of one thread per core; the streams have one instance over
    all cores. One number given, the other is what then fits. Raises: BadInputError for more threads than CPUs.
    """
    if instances is None and threads is None:
        instances, threads = (1, cores) if scenario in STREAMS else (cores, 1)
    elif instances is None:
        assert threads is not None
        instances = 1 if scenario in STREAMS else max(1, cores // threads)
    elif threads is None:
        threads = max(1, cores // instances)
    if instances * threads > len(cpus):
        raise BadInputError(
            f"--instances {instances} x --threads {threads} = {instances * threads} threads, but this process may use "
            f"{len(cpus)} CPUs ({cores} cores): ask for at most {len(cpus)}"
        )
    return Placement(tuple(tuple(sorted(cpus[i * threads : (i + 1) * threads])) for i in range(instances)))


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
