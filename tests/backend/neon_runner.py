"""Runs steps by the C library: in this process on Arm, else by a driver of its own under an emulator.

On x86 the sources are cross-compiled together with `neon/driver.c` and run by qemu-aarch64-static: that takes no
userland and no Python for Arm. Tests hand in arrays and get back what became of them, as if they had called in place.
"""

from __future__ import annotations

import atexit
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from backend.kernels.step import KernelKey, counters_for
from backend.machine import detect
from backend.neon import build, library
from backend.neon.library import Memory, Run

_DRIVER = Path(__file__).parent / "neon" / "driver.c"
_NAME_BYTES = 64
CROSS = ["aarch64-linux-gnu-gcc"]
EMULATOR = ["qemu-aarch64-static", "-cpu", "max"]
NATIVE = platform.machine() == "aarch64"
FEATURES = tuple(name for name in build.FEATURE_FLAGS if not NATIVE or name in detect().isa.extensions)
"""Of the CPU that steps run on, emulated or not, as far as sources use them."""


def run_steps(
    kernels: tuple[KernelKey, ...], steps: np.ndarray, walked: int, images: int, threads: int,
    weights: np.ndarray, tables: np.ndarray, memory: np.ndarray, arena: slice, io: list[np.ndarray],
    features: tuple[str, ...] = FEATURES,
) -> None:  # fmt: skip
    """Runs the first `walked` steps (behind them lie the links of chains) for `images` units of batch.

    `memory[arena]` is the arena, and guards lie around it.
    memory and the arrays of `io` are changed in place; weights and tables must come back unchanged.
    features: what the library is compiled for; dot products have other code without them.
    """
    if NATIVE:
        _run_here(kernels, steps, walked, images, threads, weights, tables, memory[arena], io, features)
        return
    driver = _driver(features)
    names = b"".join(library.kernel_name(key).encode().ljust(_NAME_BYTES, b"\0") for key in kernels)
    parts = [weights, tables, memory[arena]]
    head = [threads, images, len(steps), walked, len(kernels), *(part.nbytes for part in parts), len(io)]
    sizes = [array.nbytes for array in io]
    stdin, stdout = driver.stdin, driver.stdout
    assert stdin is not None and stdout is not None
    for block in (np.array(head + sizes, np.int64), names, steps, *parts, *io):
        stdin.write(memoryview(block).cast("B") if isinstance(block, bytes) else np.ascontiguousarray(block).tobytes())
    stdin.flush()
    unknown = int(np.frombuffer(_read(driver, 8), np.int64)[0])
    assert not unknown, f"the C library has no kernel {kernels[unknown - 1]}"
    for part in parts[:2]:
        assert _read(driver, part.nbytes) == part.tobytes(), "weights or tables were written"
    memory[arena] = np.frombuffer(_read(driver, parts[2].nbytes), memory.dtype)
    for array in io:
        array.reshape(-1)[:] = np.frombuffer(_read(driver, array.nbytes), array.dtype)


def _read(driver: subprocess.Popen[bytes], size: int) -> bytes:
    assert driver.stdout is not None
    data = driver.stdout.read(size)
    assert len(data) == size, f"the driver ended with status {driver.wait(10)}"
    return data


@cache
def _objects() -> Path:
    """Where all drivers of this process are compiled: most sources are the same for CPUs with other features."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def _driver(features: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Compiled and started; it serves all tests of this process that want those features."""
    target = _objects() / "_".join(("driver", *features))
    build.compile_sources(CROSS, _objects(), sorted(features), target, ("-static", "-lm"), extra=(_DRIVER,))
    running = subprocess.Popen([*EMULATOR, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(running.kill)
    return running


def _run_here(
    kernels: tuple[KernelKey, ...], steps: np.ndarray, walked: int, images: int, threads: int,
    weights: np.ndarray, tables: np.ndarray, arena: np.ndarray, io: list[np.ndarray], features: tuple[str, ...],
) -> None:  # fmt: skip
    loaded = _library(features)
    addresses = library.kernel_addresses(loaded, kernels)
    pointers = np.array([array.ctypes.data for array in io], np.int64)
    memory = Memory(arena.ctypes.data, weights.ctypes.data, tables.ctypes.data, pointers.ctypes.data)
    counters = counters_for(walked, threads)
    run = Run(
        addresses.ctypes.data, library.ctypes.pointer(memory), steps.ctypes.data, 0, walked, images,
        counters.ctypes.data,
    )  # fmt: skip
    team = loaded.ln_team_open(threads)
    loaded.ln_team_run(team, library.ctypes.byref(run))
    loaded.ln_team_close(team)


@cache
def _library(features: tuple[str, ...]) -> library.ctypes.CDLL:
    return library.load_library(build.build_library(frozenset(features)))
