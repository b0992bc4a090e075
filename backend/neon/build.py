"""C sources -> shared library, in the user's cache folder, by the system's C compiler.

A library is kept under a digest of everything that it is made of: sources, the record `STEP`, the compiler's command,
flags and the CPU's features. So one that is there needs no compiler, and another version of the compiler, which could
only be asked by starting it, makes no new one. Two processes may build at once: each works in a folder of its own, and
the finished file gets its place by one rename.

May import: errors, kernels.step, neon.library, simd.element.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import platformdirs

from ..errors import MachineError
from ..kernels import step as step_record
from ..simd.element import BFLOAT16, FLOAT32
from .library import Memory, Run

_SOURCES: Final = Path(__file__).resolve().parent

BASELINE: Final = "-march=armv8-a"

FEATURE_FLAGS: Final[Mapping[str, str]] = {
    "asimddp": "-march=armv8.2-a+dotprod",
    "i8mm": "-march=armv8.2-a+i8mm",
    "bf16": "-march=armv8.2-a+bf16",
}
"""Features of the CPU that sources use, and what the compiler has to be told."""

SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "conv.c": (),
    "conv_bf16.c": ("bf16",),
    "conv_u8.c": ("i8mm", "asimddp"),
    "rows.c": ("bf16",),
    "strided.c": ("bf16",),
    "io.c": ("bf16",),
    "quantized.c": (),
    "team.c": (),
    "table.c": (),
}
"""Source -> it is compiled for the first of these features that the CPU has, or for none."""

FLAGS: Final = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-ffp-contract=off",  # where two operations are meant to round twice, they do
    "-fno-schedule-insns",  # before register allocation: it would need more registers than there are (sums_f32.h)
    "-fno-math-errno",
)

LINK: Final = ("-shared", "-lm")

_SCRATCH: Final = "build-"
"""What the names of folders begin with in which libraries are being built, beside those of the finished ones."""

_ABANDONED_S: Final = 3600
"""Age from which on nobody builds in such a folder any more: a build takes seconds, on small boards a minute."""

_CONSTANTS: Final = (
    "COUNTER_PITCH",
    "GEMM_UNITS",
    "PATCH_UNITS",
    "ROW_UNITS",
    "IMAGE_UNITS",
    "CHAIN_UNITS",
    "PATCH_OUT",
    "PATCH_POINTS",
    "INNER",
    "CLIP",
)
_C_TYPES: Final = {np.dtype(np.int64): "int64_t", np.dtype(np.float32): "float"}


def step_header() -> str:
    """step.h: the record `STEP` as a C struct that the compiler must lay out alike, and constants of Python's."""
    dtype = step_record.STEP
    fields = dtype.fields
    assert fields is not None
    lines = ["/* Written by build.py from kernels/step.py and library.py. */", "#ifndef LN_STEP_H", "#define LN_STEP_H"]
    lines += ["#include <stddef.h>", "#include <stdint.h>", "enum {"]
    lines += [f"    {name} = {getattr(step_record, name)}," for name in _CONSTANTS]
    lines += [f"    LN_MEMORY_BYTES = {ctypes.sizeof(Memory)},", f"    LN_RUN_BYTES = {ctypes.sizeof(Run)},", "};"]
    for element in (FLOAT32, BFLOAT16):
        points = zip("AB", step_record.interpolation_points(element), strict=True)
        lines += [f"#define LN_POINT_{which}_{element.name.upper()} {point}f" for which, point in points]
    lines += ["typedef struct {"]
    lines += [f"    {_C_TYPES[field]} {name};" for name, (field, *_) in fields.items()]
    lines += ["} ln_step;"]
    lines += [
        f'_Static_assert(offsetof(ln_step, {name}) == {offset}, "{name}");' for name, (_, offset, *_) in fields.items()
    ]
    lines += [f'_Static_assert(sizeof(ln_step) == {dtype.itemsize}, "ln_step");', "#endif", ""]
    return "\n".join(lines)


def build_library(features: frozenset[str]) -> Path:
    """The library for a CPU with these features (as /proc/cpuinfo names them), built if it is not there yet.

    Raises: MachineError if it must be built and there is no compiler, it fails, or the cache folder cannot be written
    to; and if $CC is no command.
    """
    compiler = _compiler()
    wanted = sorted(features & FEATURE_FLAGS.keys())
    cache = Path(platformdirs.user_cache_dir("loadgen-numba")) / "neon"
    folder = cache / _digest(compiler, wanted)
    library = folder / "libloadgen_neon.so"
    if library.exists():
        return library
    if shutil.which(compiler[0]) is None:
        raise MachineError(
            f"the NEON kernels are compiled on first use, but there is no C compiler {compiler[0]!r}: install one "
            "(Debian: apt-get install gcc libc6-dev), or name yours in the environment variable CC"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache) as scratch:
            compile_sources(compiler, Path(scratch), wanted, Path(scratch) / library.name, LINK)
            (Path(scratch) / library.name).replace(library)
    except OSError as error:
        raise MachineError(
            f"the NEON library cannot be kept in {folder} ({error.strerror}): set XDG_CACHE_HOME to a folder that can "
            "be written to"
        ) from error
    return library


def _remove_abandoned(cache: Path) -> None:
    """Removes the folders of builds that were killed; another process may do the same."""
    for scratch in cache.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError):
            if time.time() - scratch.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(scratch, ignore_errors=True)


def compile_sources(
    compiler: list[str],
    scratch: Path,
    features: list[str],
    target: Path,
    link: tuple[str, ...],
    extra: tuple[Path, ...] = (),
) -> None:
    """Compiles every source into `scratch`, for these features, and `extra` ones; links the objects to `target`.

    As many at once as there are CPUs: on a small board that is most of the time that a first session takes. What is in
    `scratch` already, compiled with the same flags, is used again.

    Raises: MachineError with the compiler's first complaint.
    """
    (scratch / "step.h").write_text(step_header(), encoding="utf-8")
    units = [(_SOURCES / name, _march(wanted, features)) for name, wanted in SOURCES.items()]
    units += [(path, BASELINE) for path in extra]
    common = [*compiler, *FLAGS, f"-I{scratch}", f"-I{_SOURCES}"]
    commands, objects = [], []
    for path, march in units:
        target_object = scratch / march / f"{path.stem}.o"
        objects.append(str(target_object))
        if not target_object.exists():
            target_object.parent.mkdir(exist_ok=True)
            commands.append([*common, march, "-c", str(path), "-o", str(target_object)])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(_run, commands))
    _run([*compiler, "-pthread", *objects, "-o", str(target), *link])


def _march(wanted: Iterable[str], features: list[str]) -> str:
    """What the compiler is told for a source that can use these features, best first, of a CPU's."""
    return next((FEATURE_FLAGS[name] for name in wanted if name in features), BASELINE)


def _compiler() -> list[str]:
    """The command of `$CC`, or `cc`."""
    told = os.environ.get("CC", "")
    try:
        return shlex.split(told) or ["cc"]
    except ValueError as error:
        raise MachineError(
            f"the environment variable CC is {told!r}, which cannot be split into words as a shell would "
            f"({str(error).lower()}): name a C compiler, with options behind it"
        ) from error


def _digest(compiler: list[str], features: list[str]) -> str:
    digest = hashlib.sha256(step_header().encode())
    told = (repr(table) for table in (SOURCES, FEATURE_FLAGS, BASELINE, LINK))
    for part in (*compiler, *FLAGS, *features, *told):
        digest.update(part.encode() + b"\0")
    for path in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str]) -> None:
    environment = {**os.environ, "LC_ALL": "C"}  # "error" is looked for below, and GCC's messages are translated
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise MachineError(
            f"the NEON kernels cannot be compiled: {command[0]!r} cannot be started: {error.strerror}"
        ) from error
    if done.returncode != 0:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise MachineError(
            f"the NEON kernels cannot be compiled by {command[0]!r} (exit status {done.returncode}): {complaint}"
        )
