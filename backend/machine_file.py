"""A machine described in a TOML file, in place of detection: for a board that is elsewhere, or that says too little.

    cpu = "Cortex-A76"          # a name, for people
    isa = "neon"
    extensions = ["asimddp"]    # of the ISA, by the names of /proc/cpuinfo
    l1d_bytes = 65536
    l2_bytes = 524288           # one core's, its part if cores share it
    l3_bytes = 2097152          # the whole L2, if that is shared and there is no L3

    [[clusters]]                # of big.LITTLE: CPUs of one kind, where the system does not say it
    cpus = [4, 5, 6, 7]
    capacity = 1024             # speed of one, relative to the others'
    [[clusters]]
    cpus = [0, 1, 2, 3]
    capacity = 400

Every key may be left out: then this machine's own value holds. Plans depend on nothing else of a machine; clusters
decide which cores threads are for. `cores = 4` in their place says that there are so many, all alike.

May import: errors, machine, simd.isa.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from .errors import MachineError
from .machine import Cluster, Machine, detect, runs_here
from .simd.isa import EXTENSIONS, ISAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES: Final = 1 << 40
_MOST_CORES: Final = 4096


def read_machine(path: str | os.PathLike[str]) -> Machine:
    """The machine that a file describes.

    Raises: MachineError for a file that cannot be read, an unknown key, or a value that no machine has.
    """
    where = f"machine file {Path(path)}"
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MachineError(f"{where} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MachineError(f"{where} is no TOML: {' '.join(str(error).split())}") from error
    for key, value in values.items():
        check = _CHECKS.get(key)
        if check is None:
            raise MachineError(f"{where}: unknown key {key!r}: the keys are {', '.join(_CHECKS)}")
        if not check[0](value):
            raise MachineError(f"{where}: {key} = {value!r}: {check[1]} is needed")
    return _machine(where, values)


def _machine(where: str, values: Mapping[str, Any]) -> Machine:
    isa = next((isa for isa in ISAS if isa.name == values.get("isa")), None)
    here = isa is None or runs_here(isa)
    found = detect(isa.name if isa is not None and here else None)
    isa = found.isa if isa is None or here else isa
    if "extensions" in values:
        known = EXTENSIONS.get(isa.name, ())
        unknown = [name for name in values["extensions"] if name not in known]
        if unknown:
            raise MachineError(f"{where}: extensions {unknown}: those of {isa.name} are {list(known)}")
        isa = replace(isa, extensions=tuple(name for name in known if name in values["extensions"]))
    own = {key: value for key, value in values.items() if key not in ("isa", "extensions")}
    if "clusters" in values:
        named = replace(found, **{key: value for key, value in own.items() if key not in ("clusters", "cores")})
        own["clusters"] = _clusters(where, values["clusters"], named, here)
        usable = sum(len(cluster.cpus) for cluster in own["clusters"])
        if own.setdefault("cores", usable) != usable:
            raise MachineError(
                f"{where}: cores is {own['cores']}, but {usable} CPUs of the clusters may be used: leave cores out"
            )
    elif "cores" in values:
        own["clusters"] = ()
    return replace(
        found,
        **own,
        isa=isa,
        best_isa=found.best_isa if here else isa,
        sources={**found.sources, **dict.fromkeys(own, where), "isa": _isa_source(where, values)},
    )


def _isa_source(where: str, values: Mapping[str, Any]) -> str:
    extensions = f"; extensions: {where}" if "extensions" in values else ""
    return where if "isa" in values else "CPU flags" + extensions


def _clusters(where: str, tables: list[dict[str, Any]], machine: Machine, here: bool) -> tuple[Cluster, ...]:
    """Fastest first; of this machine only CPUs that the calling thread may use."""
    stated = [cpu for table in tables for cpu in table["cpus"]]
    if len(set(stated)) < len(stated):
        raise MachineError(f"{where}: clusters name CPU {max(stated, key=stated.count)} twice: a CPU is in one of them")
    allowed = os.sched_getaffinity(0) if here else set(stated)
    caches = {"l1d_bytes": machine.l1d_bytes, "l2_bytes": machine.l2_bytes, "l3_bytes": machine.l3_bytes}
    clusters = [
        Cluster(machine.cpu, tuple(cpu for cpu in table["cpus"] if cpu in allowed), table["capacity"], **caches)
        for table in tables
    ]
    usable = sorted((cluster for cluster in clusters if cluster.cpus), key=lambda cluster: -cluster.capacity)
    if not usable:
        raise MachineError(f"{where}: none of the clusters' CPUs {stated} may be used here, only {sorted(allowed)}")
    return tuple(usable)


def _is_clusters(value: Any) -> bool:
    """A list of tables of cpus and capacity."""

    def whole(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool) and number >= 0

    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(table, dict)
            and table.keys() == {"cpus", "capacity"}
            and isinstance(table["cpus"], list)
            and bool(table["cpus"])
            and all(map(whole, table["cpus"]))
            and whole(table["capacity"])
            and table["capacity"] > 0
            for table in value
        )
    )


def _count(most: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most, f"1 to {most}"


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "cpu": (lambda value: isinstance(value, str), "a name"),
    "isa": (lambda value: value in [isa.name for isa in ISAS], f"one of {', '.join(isa.name for isa in ISAS)}"),
    "extensions": (_is_names, "a list of names"),
    "cores": _count(_MOST_CORES),
    "l1d_bytes": _count(_MOST_BYTES),
    "l2_bytes": _count(_MOST_BYTES),
    "l3_bytes": _count(_MOST_BYTES),
    "clusters": (_is_clusters, "a table [[clusters]] for each, of cpus (a list of their numbers) and capacity"),
}
"""Key -> what its value must satisfy, and that in words."""
