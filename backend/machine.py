"""What is known about the machine: one frozen record, made in one place, passed as an argument.

The only file that probes what plans and kernels depend on. Every value can be overridden (`Machine(...)`,
`dataclasses.replace`, or a file that `machine_file` reads), and `sources` says where each came from. (Which CPUs are
siblings of one core matters to who places threads: harness/placement.py reads that, and need not load the engine for
it.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from .errors import MachineError
from .simd.isa import EXTENSIONS, ISAS, Isa

_ARCHITECTURE: Final = platform.machine()
_CPUINFO: Final = Path("/proc/cpuinfo")
_CPUS: Final = Path("/sys/devices/system/cpu")
_CACHE_KEYS: Final = {"1": "l1d_bytes", "2": "l2_bytes", "3": "l3_bytes"}
_FALLBACK_CACHES: Final = {"l1d_bytes": 32 << 10, "l2_bytes": 512 << 10, "l3_bytes": 4 << 20}

MOST_CAPACITY: Final = 1024
"""Linux's measure of the fastest core of a machine; others have less in proportion."""

_SMALL: Final = 0.5
"""Share of the fastest core's capacity below which a core is a small one. Between the middle cores of phones (0.6 to
0.9) and those that are made to save power (0.15 to 0.45)."""

_HWCAP: Final = {
    "asimd": (16, 1), "asimdhp": (16, 10), "asimddp": (16, 20), "sve": (16, 22), "i8mm": (26, 13), "bf16": (26, 14),
}  # fmt: skip
"""Arm's CPU features by their names in /proc/cpuinfo: (entry of the auxiliary vector, bit), from Linux's
uapi/asm/hwcap.h. The vector tells what the process may use, also under emulation, where /proc/cpuinfo is the host's."""

_ARM: Final = 0x41
_CORES: Final = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510",
    0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720",
}  # fmt: skip
"""Part numbers in MIDR_EL1 of cores that Arm designed."""


@dataclass(frozen=True)
class Cluster:
    """CPUs of one kind. capacity: speed relative to the fastest of the machine, which has MOST_CAPACITY.

    l1d_bytes, l2_bytes, l3_bytes: as in `Machine`.
    """

    core: str
    cpus: tuple[int, ...]
    capacity: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int


@dataclass(frozen=True)
class Machine:
    """A CPU as the planner sees it.

    isa: what kernels are compiled for, and which of its extensions they use. best_isa: the best one that the CPU has.
    l1d_bytes, l2_bytes: per core, its part of an L2 that several share; l3_bytes: per share, the whole L2 if there is
    no L3. All three are the machine's fastest cores', whatever CPUs the process may use: a plan, and so the bits of
    results, must not depend on where a thread is pinned. cores: CPUs that the thread which called `detect` may run on,
    and so the teams it starts. clusters: those CPUs by kind, fastest first; empty if their kinds are not known.
    """

    cpu: str
    isa: Isa
    best_isa: Isa
    cores: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int
    clusters: tuple[Cluster, ...] = field(default=(), compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def fast_cores(self) -> int:
        """How many of `cores` are not small ones: on big.LITTLE the big ones, elsewhere all."""
        if not self.clusters:
            return self.cores
        return sum(len(cluster.cpus) for cluster in self.clusters if is_fast(cluster, self.clusters))


def is_fast(cluster: Cluster, clusters: Sequence[Cluster]) -> bool:
    """Whether its cores can do about the work of the fastest of these (fastest first) in the same time.

    A layer is done when its last unit is: a core several times slower takes part at the price of being waited for.
    """
    return cluster.capacity >= _SMALL * clusters[0].capacity


def detect(isa: str | None = None) -> Machine:
    """The machine this process runs on, with its best ISA or the one asked for.

    Raises: MachineError for an ISA that does not exist or that the CPU cannot run.
    """
    flags = _cpu_flags()
    best = _with_extensions(
        next(candidate for candidate in _candidates() if flags.issuperset(candidate.cpu_flags)), flags
    )
    # Numba compiles for `Isa.llvm_cpu` if the ISA is not the best, and that processor has no extensions.
    chosen = best if isa in (None, best.name) else _isa_named(isa, flags)
    everywhere, cache_source = _clusters()
    fastest, allowed = everywhere[0], os.sched_getaffinity(0)
    clusters = [replace(kind, cpus=tuple(cpu for cpu in kind.cpus if cpu in allowed)) for kind in everywhere]
    return Machine(
        cpu=fastest.core,
        isa=chosen,
        best_isa=best,
        cores=len(allowed),
        l1d_bytes=fastest.l1d_bytes,
        l2_bytes=fastest.l2_bytes,
        l3_bytes=fastest.l3_bytes,
        clusters=tuple(kind for kind in clusters if kind.cpus),
        sources={
            "cpu": str(_CPUINFO),
            "isa": "CPU flags" if isa is None else "asked for",
            "cores": "sched_getaffinity",
            "caches": cache_source,
        },
    )


def runs_here(isa: Isa) -> bool:
    """Whether code for this ISA is code for this architecture."""
    return isa.architecture in ("", _ARCHITECTURE)


def _candidates() -> tuple[Isa, ...]:
    return tuple(isa for isa in ISAS if runs_here(isa))


def _isa_named(name: str, flags: frozenset[str]) -> Isa:
    known = {isa.name: isa for isa in _candidates()}
    elsewhere = {isa.name: isa.architecture for isa in ISAS}
    if name not in known and name in elsewhere:
        raise MachineError(
            f"ISA {name!r} is for {elsewhere[name]}, and this is {_ARCHITECTURE}: choose one of {', '.join(known)}"
        )
    if name not in known:
        raise MachineError(f"unknown ISA {name!r}: choose one of {', '.join(known)}")
    missing = [flag for flag in known[name].cpu_flags if flag not in flags]
    if missing:
        usable = [isa.name for isa in known.values() if flags.issuperset(isa.cpu_flags)]
        raise MachineError(
            f"this CPU cannot run ISA {name!r}: it lacks {', '.join(missing)}; it can run {', '.join(usable)}"
        )
    return known[name]


def _with_extensions(isa: Isa, flags: frozenset[str]) -> Isa:
    return replace(isa, extensions=tuple(flag for flag in EXTENSIONS.get(isa.name, ()) if flag in flags))


def _cpu_flags() -> frozenset[str]:
    """Of the first CPU; on Arm those that all CPUs have, which is what Linux puts into the auxiliary vector."""
    if _ARCHITECTURE == "aarch64":
        return frozenset(name for name, (entry, bit) in _HWCAP.items() if _auxiliary(entry) >> bit & 1)
    return frozenset(_cpuinfo().get("flags", "").split())


def _auxiliary(entry: int) -> int:
    """getauxval(3)"""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return int(getauxval(entry))


def _cpuinfo() -> dict[str, str]:
    """The first entry of each key."""
    found: dict[str, str] = {}
    for line in _word(_CPUINFO).splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


def _clusters() -> tuple[tuple[Cluster, ...], str]:
    """The machine's CPUs by kind, fastest first, and where their caches are from."""
    fallback_name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    kinds: dict[Cluster, list[int]] = {}
    missing: set[str] = set()
    for cpu in _online():
        folder = _CPUS / f"cpu{cpu}"
        caches = _caches(folder / "cache")
        missing.update(_FALLBACK_CACHES.keys() - caches.keys())
        stated = _word(folder / "cpu_capacity")
        kind = Cluster(
            core=_core_name(_word(folder / "regs/identification/midr_el1")) or fallback_name,
            cpus=(),
            capacity=int(stated) if stated.isdigit() else MOST_CAPACITY,
            **{**_FALLBACK_CACHES, **caches},
        )
        kinds.setdefault(kind, []).append(cpu)
    clusters = [replace(kind, cpus=tuple(cpus)) for kind, cpus in kinds.items()]
    source = f"{_CPUS}/cpu*/cache" + (f"; assumed: {', '.join(sorted(missing))}" if missing else "")
    return tuple(sorted(clusters, key=lambda cluster: (-cluster.capacity, cluster.cpus))), source


def _online() -> list[int]:
    """CPUs that sysfs describes and that are not switched off; those of the calling thread where it describes none."""
    described = [int(name[3:]) for name in _names(_CPUS) if re.fullmatch(r"cpu\d+", name)]
    online = {cpu for cpu in described if _word(_CPUS / f"cpu{cpu}" / "online") != "0"}
    return sorted(online | os.sched_getaffinity(0))


def _core_name(midr: str) -> str:
    """The name of an Arm core by its MIDR_EL1; nothing if there is none, numbers if it is not in the table."""
    if not midr:
        return ""
    implementer, part = int(midr, 16) >> 24 & 0xFF, int(midr, 16) >> 4 & 0xFFF
    known = _CORES.get(part) if implementer == _ARM else None
    return known or f"Arm core, implementer {implementer:#x}, part {part:#x}"


def _caches(folder: Path) -> dict[str, int]:
    """What is known of them, as `Machine` counts it: of an L2 that cores share, the share of one that is switched on.
    The last level is L3 to plans, also where that is an L2."""
    found: dict[str, int] = {}
    indices = [folder / name for name in _names(folder) if name.startswith("index")]
    has_l3 = any(_word(index / "level") == "3" for index in indices)
    for index in indices:
        level, kind, size = (_word(index / name) for name in ("level", "type", "size"))
        stated = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind == "Instruction" or level not in _CACHE_KEYS or not stated:
            continue
        size_bytes = int(stated[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[stated[2]]
        cores = _cores_of(_word(index / "shared_cpu_list")) if level == "2" else 1
        found[_CACHE_KEYS[level]] = size_bytes // cores
        if level == "2" and not has_l3:
            found["l3_bytes"] = size_bytes
    return found


def _cores_of(cpu_list: str) -> int:
    """How many cores the CPUs of a list such as "0-3,8" belong to; 1 for no list. Hyper-threads of a core name each
    other as siblings, and count once."""
    cores = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", cpu_list):
        for cpu in range(int(first), int(last or first) + 1):
            cores.add(_word(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu))
    return max(1, len(cores))


def _word(path: Path) -> str:
    """What a file of the system says; nothing where there is none or it may not be read, as in some virtual machines,
    on Android and in containers."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    """What is in a folder of the system, sorted; nothing likewise."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
