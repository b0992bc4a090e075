"""Runs steps by the C library: in this process on Arm, else by a driver of its own under an emulator.

On x86 the sources are cross-compiled together with `neon/driver.c` and run by qemu-aarch64-static: that takes no
userland and no Python for Arm. Tests hand in arrays and get back what became of them, as if they had called in place.
The driver's memory is fenced: a step that leaves it ends the driver, and the test that sent it fails.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
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


_DONE, _FAULT = 0, -1


def run_steps(
    kernels: tuple[KernelKey, ...], steps: np.ndarray, walked: int, images: int, threads: int,
    weights: np.ndarray, tables: np.ndarray, memory: np.ndarray, arena: slice, inputs: Sequence[np.ndarray],
    outputs: Sequence[tuple[np.ndarray, slice]] = (), features: tuple[str, ...] = FEATURES,
) -> None:  # fmt: skip
    """Runs the first `walked` steps (behind them lie the links of chains) for `images` units of batch.

    `memory[arena]` is the arena, and guards lie around it; outputs are (memory, the slice of it that is one) alike.
    Both are changed in place, guards too if steps change them.

    Raises: AssertionError if weights, tables or inputs were written; and under the emulator, where there are fences in
    place of the guards behind, for any access to memory that is not the steps'.

    features: what the library is compiled for; dot products have other code without them.
    """
    areas = [(memory, arena), *outputs]
    if NATIVE:
        constant = [weights, tables, *inputs]
        before = [array.tobytes() for array in constant]
        io = [*inputs, *(around[inside] for around, inside in outputs)]
        _run_here(kernels, steps, walked, images, threads, weights, tables, memory[arena], io, features)
        assert [array.tobytes() for array in constant] == before, "weights, tables or inputs were written"
        return
    names = b"".join(library.kernel_name(key).encode().ljust(_NAME_BYTES, b"\0") for key in kernels)
    job = [threads, images, len(steps), walked, len(kernels), len(inputs), len(outputs)]
    written = [around[: inside.stop] for around, inside in areas]
    fronts = [inside.start * around.itemsize for around, inside in areas]
    blocks = [written[0], weights, tables, *inputs, *written[1:]]
    front_of = [fronts[0], 0, 0, *(0 for _ in inputs), *fronts[1:]]
    sizes = [(front, block.nbytes - front) for front, block in zip(front_of, blocks, strict=True)]
    try:
        status, answer = _ask(
            _driver(features),
            [np.array(job), np.array(sizes), names, steps, *blocks],
            [part.nbytes for part in written],
        )
    except BaseException:
        _stop(features)  # what it may still say is no answer to the next test
        raise
    if status == _FAULT:
        _stop(features)
        raise AssertionError(_complaint(answer[0], kernels, steps, sizes, len(inputs)))
    assert status == _DONE, f"the C library has no kernel {kernels[status - 1]}"
    for part, after in zip(written, answer, strict=True):
        part[:] = np.frombuffer(after, part.dtype)


def _ask(
    driver: subprocess.Popen[bytes], job: Iterable[np.ndarray | bytes], written_bytes: Iterable[int]
) -> tuple[int, list[bytes]]:
    """Status and all that comes behind it."""
    assert driver.stdin is not None
    try:
        for block in job:
            driver.stdin.write(block if isinstance(block, bytes) else np.ascontiguousarray(block).tobytes())
        driver.stdin.flush()
    except BrokenPipeError as error:
        raise AssertionError(f"the driver ended with status {driver.wait(10)}") from error
    status = int(np.frombuffer(_read(driver, 8), np.int64)[0])
    lengths = written_bytes if status == _DONE else [32] if status == _FAULT else []
    return status, [_read(driver, length) for length in lengths]


def _read(driver: subprocess.Popen[bytes], size: int) -> bytes:
    assert driver.stdout is not None
    data = driver.stdout.read(size)
    assert len(data) == size, f"the driver ended with status {driver.wait(10)}"
    return data


def _complaint(
    fault: bytes, kernels: tuple[KernelKey, ...], steps: np.ndarray, sizes: list[tuple[int, int]], inputs: int
) -> str:
    block, offset, step, unit = (int(number) for number in np.frombuffer(fault, np.int64))
    who = f"step {step} ({kernels[steps[step]['kernel']]}), unit {unit}," if step >= 0 else "no step"
    names = ["the arena", "the weights", "the tables", *(f"input {index}" for index in range(inputs))]
    names += [f"output {index}" for index in range(len(sizes) - len(names))]
    if block < 0:
        return f"{who} touched memory that is no operand's"
    inside = 0 <= offset < sizes[block][1]
    return f"{who} {'wrote to' if inside else 'left'} {names[block]}: byte {offset} of {sizes[block][1]}"


@cache
def _objects() -> Path:
    """Where all programs are compiled: most sources are the same for CPUs with other features.

    For several workers of pytest, tools/arm64/test makes an empty folder and names it.
    """
    told = os.environ.get("LOADGEN_NUMBA_TEST_OBJECTS")
    if told:
        return Path(told)
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def program(source: Path, features: tuple[str, ...]) -> Path:
    """A C program of the tests together with the library for these features, compiled once."""
    objects = _objects()
    target = objects / "_".join((source.stem, *features))
    with (objects / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            compiler, linked = ["cc"] if NATIVE else CROSS, objects / "linked"
            build.compile_sources(compiler, objects, sorted(features), linked, ("-static", "-lm"), extra=(source,))
            linked.replace(target)
    return target


_RUNNING: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
"""By features: each driver serves all tests of this process, until a step ends it."""


def _driver(features: tuple[str, ...]) -> subprocess.Popen[bytes]:
    if features not in _RUNNING:
        command = [*EMULATOR, str(program(_DRIVER, features))]
        _RUNNING[features] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(_stop, features)
    return _RUNNING[features]


def _stop(features: tuple[str, ...]) -> None:
    running = _RUNNING.pop(features, None)
    if running is not None:
        running.kill()
        running.wait()
        for pipe in (running.stdin, running.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what it had no time to read
                    pipe.close()


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
