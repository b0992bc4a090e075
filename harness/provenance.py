"""Where and with what a run was made: the part of run.json that describes the machine and the software."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

_DISTRIBUTIONS: Final = (
    "loadgen-numba",
    "mlcommons-loadgen",
    "numpy",
    "numba",
    "llvmlite",
    "onnx",
    "onnxruntime",
    "openvino",
)


def versions() -> dict[str, str]:
    """Installed version by distribution, and Python's own; distributions that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int | None]:
    """Processor, logical and physical cores, memory, operating system."""
    return {
        "processor": _processor_name(),
        "architecture": platform.machine(),
        "logical_cpus": psutil.cpu_count(logical=True),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
    }


def _processor_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
