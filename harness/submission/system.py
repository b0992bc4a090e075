"""The system description of a submission, systems/<system>.json: detected where it can be, taken from a TOML elsewhere.

What nobody can detect (cooling, how memory is fitted, when the system can be bought) is never guessed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from .. import provenance
from ..errors import BadInputError
from .rounds import Division, Round, read_toml

_CPUS: Final = Path("/sys/devices/system/cpu")
_BLOCK_DEVICES: Final = Path("/sys/block")
_NETWORK: Final = Path("/sys/class/net")
_GIB: Final = 1 << 30
_GB: Final = 10**9
_NO_DISKS: Final = ("loop", "ram", "zram", "sr", "fd", "dm-", "md")
"""Block devices that hold no data of their own."""

_NO_ACCELERATOR: Final[Mapping[str, str]] = {
    "accelerators_per_node": "0",
    "accelerator_model_name": "N/A",
    "accelerator_memory_capacity": "N/A",
    "accelerator_host_interconnect": "N/A",
    "accelerator_memory_configuration": "N/A",
    "accelerator_interconnect": "N/A",
    "accelerator_frequency": "N/A",
    "accelerator_interconnect_topology": "N/A",
    "accelerator_on-chip_memories": "N/A",
}
"""Texts throughout: the official checker takes the number 0 for no answer."""

UNSTATED: Final = "not stated: a rehearsal"

_HINTS: Final[Mapping[str, str]] = {
    "status": "available, preview or rdi: whether the system can be bought or rented",
    "host_memory_configuration": "e.g. 2x 16 GB DDR5-5600",
    "host_storage_capacity": "e.g. 512 GB",
    "host_storage_type": "e.g. NVMe SSD",
    "host_networking": "e.g. Gigabit Ethernet, or N/A",
    "host_network_card_count": "e.g. 1",
    "host_networking_topology": "e.g. N/A",
    "cooling": "e.g. air, passive, water",
    "host_processor_interconnect": "e.g. UPI, or empty for one processor",
    "system_type_detail": "edge-server, edge-device or empty",
    "hw_notes": "anything worth knowing about the hardware",
    "sw_notes": "anything worth knowing about the software",
}


def detect_fields(storage: Path) -> dict[str, str]:
    """Every field that can be known from here. storage: a folder on the disk that holds data and results."""
    packages = {name: version for name, version in provenance.versions().items() if name != "loadgen-numba"}
    fields: dict[str, str | None] = {
        "number_of_nodes": "1",
        "host_processor_model_name": str(provenance.machine()["processor"]),
        "host_processors_per_node": str(_sockets()),
        "host_processor_core_count": str((psutil.cpu_count(logical=False) or os.cpu_count() or 1) // _sockets()),
        "host_processor_frequency": _frequency(),
        "host_processor_caches": _caches(),
        "host_memory_capacity": f"{round(psutil.virtual_memory().total / _GIB)} GiB",
        "host_storage_capacity": f"{psutil.disk_usage(str(storage)).total // _GB} GB",
        "host_storage_type": _storage_type(),
        "host_network_card_count": _network_cards(),
        "framework": f"loadgen-numba {provenance.versions().get('loadgen-numba', '')}".strip(),
        "operating_system": _operating_system(),
        "other_software_stack": ", ".join(f"{name} {version}" for name, version in packages.items()),
        **_NO_ACCELERATOR,
    }
    return {name: value for name, value in fields.items() if value}


def describe(
    rules: Round,
    division: Division,
    submitter: str,
    system_type: str,
    system_name: str,
    toml: Path | None,
    *,
    storage: Path,
    rehearsal: bool = False,
    ask: Callable[[str, str], str] | None = None,
) -> dict[str, Any]:
    """The whole description, in the order of the round's fields.

    system_name: unless the toml states another. toml: fields by name; they win over what was detected.
    ask(field, hint): for what is still unknown, if somebody is there to answer; a rehearsal states plainly what it
    does not know.
    Raises: BadInputError, naming every field without an answer, unknown fields, or values that are not allowed.
    """
    stated = {} if toml is None else read_toml(toml, "--system-toml")
    known = (*rules.system.filled, *rules.system.present)
    unknown = sorted(set(stated) - set(known))
    if unknown:
        raise BadInputError(
            f"--system-toml {toml}: unknown field {unknown[0]!r}; fields are those of `describe-system`"
        )
    fixed = {"division": division, "submitter": submitter, "system_type": system_type}
    for name, value in fixed.items():
        if stated.get(name, value) != value:
            raise BadInputError(f"--system-toml {toml}: {name} = {stated[name]!r}, but {value!r} was asked for")
    values = {
        **detect_fields(storage),
        "system_name": system_name,
        **{name: str(value).strip() for name, value in stated.items()},
        **fixed,
    }
    missing = [name for name in rules.system.filled if not values.get(name)]
    for name in missing:
        if rehearsal:
            values[name] = rules.system_status[0] if name == "status" else UNSTATED
        elif ask is not None:
            values[name] = ask(name, _HINTS.get(name, ""))
    missing = [name for name in missing if not values.get(name)]
    if missing:
        raise BadInputError(
            f"the system description lacks {', '.join(missing)}: write them to a file, which `loadgen-numba "
            "describe-system --output system.toml` begins, and pass it with --system-toml"
        )
    for name in rules.system.integers:
        if not values[name].isdigit():
            raise BadInputError(f"system description: {name} = {values[name]!r} is not a whole number")
    if values["status"] not in rules.system_status:
        raise BadInputError(
            f"system description: status = {values['status']!r} is none of {', '.join(rules.system_status)}"
        )
    return {name: values.get(name, "") for name in known}


def as_toml(rules: Round, storage: Path) -> str:
    """A file to complete: every field, with what was detected, or empty with a hint."""
    detected = detect_fields(storage)
    lines = [
        f"# System description for MLPerf Inference {rules.name}. Fields marked ! must say something (N/A does).",
        "# division, submitter, system_type and system_name are set by the command that packages.",
    ]
    for name in (*rules.system.filled, *rules.system.present):
        if name in ("division", "submitter", "system_type", "system_name"):
            continue
        if name not in detected:
            mark = "! " if name in rules.system.filled else ""
            lines.append(f"# {mark}{_HINTS.get(name, 'not detected')}")
        text = detected.get(name, "").replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name} = "{text}"')
    return "\n".join(lines) + "\n"


def _sockets() -> int:
    packages = {path.read_text().strip() for path in _CPUS.glob("cpu[0-9]*/topology/physical_package_id")}
    return max(1, len(packages))


def _frequency() -> str | None:
    path = _CPUS / "cpu0/cpufreq/cpuinfo_max_freq"
    if path.exists():
        return f"{int(path.read_text()) // 1000} MHz"
    frequency = psutil.cpu_freq()
    return f"{frequency.current:.0f} MHz" if frequency else None


def _caches() -> str:
    """E.g. L1 Data 32K, L1 Instruction 32K, L2 1024K, L3 36608K; each as CPU 0 sees it."""
    found = []
    for cache in sorted((_CPUS / "cpu0/cache").glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        found.append(f"L{level} {'' if kind == 'Unified' else kind + ' '}{size}")
    return ", ".join(found)


def _disks() -> list[Path]:
    if not _BLOCK_DEVICES.exists():
        return []
    return [disk for disk in sorted(_BLOCK_DEVICES.iterdir()) if not disk.name.startswith(_NO_DISKS)]


def _storage_type() -> str | None:
    """Only what the kernel says for certain; a virtual disk's claim to rotate is no evidence."""
    kinds = {
        "NVMe SSD" if disk.name.startswith("nvme") else "SD card or eMMC" if disk.name.startswith("mmcblk") else None
        for disk in _disks()
    }
    return ", ".join(sorted(kind for kind in kinds if kind)) or None


def _network_cards() -> str | None:
    """Interfaces with a device behind them."""
    if not _NETWORK.exists():
        return None
    return str(sum((interface / "device").exists() for interface in _NETWORK.iterdir()))


def _operating_system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release()}"
