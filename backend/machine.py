"""What is known about the machine: one frozen record, made in one place, passed as an argument.

The only file that probes what plans and kernels depend on. Every value can be overridden (`Machine(...)`,
`dataclasses.replace`), and `sources` says where each came from. (Which CPUs are siblings of one core matters to who
places threads: harness/placement.py reads that, and need not load the engine for it.)
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from .errors import MachineError
from .simd.isa import EXTENSIONS, ISAS, Isa

_CPUINFO: Final = Path("/proc/cpuinfo")
_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_CACHE_KEYS: Final = {"1": "l1d_bytes", "2": "l2_bytes", "3": "l3_bytes"}
_FALLBACK_CACHES: Final = {"l1d_bytes": 32 << 10, "l2_bytes": 512 << 10, "l3_bytes": 4 << 20}


@dataclass(frozen=True)
class Machine:
    """A CPU as the planner sees it.

    isa: what kernels are compiled for, and which of its extensions they use. best_isa: the best one that the CPU has.
    l1d_bytes, l2_bytes: per core; l3_bytes: per share. cores: CPUs that the thread which called `detect` may run on,
    and so the teams it starts.
    """

    cpu: str
    isa: Isa
    best_isa: Isa
    cores: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)


def detect(isa: str | None = None) -> Machine:
    """Describes this machine; `isa` names one of "avx512", "avx2", "generic" in place of the best.

    Raises: MachineError if the ISA is unknown or the CPU lacks it.
    """
    cpu, flags = _cpu()
    best = next(candidate for candidate in ISAS if flags.issuperset(candidate.cpu_flags))
    best = replace(best, extensions=tuple(flag for flag in EXTENSIONS.get(best.name, ()) if flag in flags))
    chosen = best if isa in (None, best.name) else _isa_named(isa, flags)
    caches, cache_source = _caches()
    return Machine(
        cpu=cpu,
        isa=chosen,
        best_isa=best,
        cores=len(os.sched_getaffinity(0)),
        **caches,
        sources={
            "cpu": str(_CPUINFO),
            "isa": "CPU flags" if isa is None else "asked for",
            "cores": "sched_getaffinity",
            "caches": cache_source,
        },
    )


def _isa_named(name: str, flags: frozenset[str]) -> Isa:
    known = {isa.name: isa for isa in ISAS}
    if name not in known:
        raise MachineError(f"unknown ISA {name!r}: choose one of {', '.join(known)}")
    missing = [flag for flag in known[name].cpu_flags if flag not in flags]
    if missing:
        usable = [isa.name for isa in ISAS if flags.issuperset(isa.cpu_flags)]
        raise MachineError(
            f"this CPU cannot run ISA {name!r}: it lacks {', '.join(missing)}; it can run {', '.join(usable)}"
        )
    return known[name]


def _cpu() -> tuple[str, frozenset[str]]:
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = frozenset(value.split())
                break
    return name, flags


def _caches() -> tuple[dict[str, int], str]:
    found: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index*")) if _CACHES.is_dir() else []:
        level, kind, size = (_word(index / name) for name in ("level", "type", "size"))
        stated = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and level in _CACHE_KEYS and stated:
            found[_CACHE_KEYS[level]] = int(stated[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[stated[2]]
    missing = [key for key in _FALLBACK_CACHES if key not in found]
    source = str(_CACHES) + (f"; assumed: {', '.join(missing)}" if missing else "")
    return {**_FALLBACK_CACHES, **found}, source


def _word(path: Path) -> str:
    """What a file of the system says; nothing where there is no such file, as in some virtual machines."""
    return path.read_text().strip() if path.exists() else ""
