"""Where and with what a run was made: the part of run.json that describes the machine and the software."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Final

import psutil

from backend import detect

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
        "processor": detect().cpu,
        "architecture": platform.machine(),
        "logical_cpus": psutil.cpu_count(logical=True),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
    }
