"""The one way to `njit`: its flags, its disk cache, and the CPU that Numba compiles for.

Every jitted function of this package is made by `jit`, `jit_entry` or `jit_parallel`. Numba fixes its target when the
first function is decorated, so whoever wants another ISA than the machine's best calls `target_isa` before importing a
kernel.

The disk cache is in a directory named by a digest of all sources that jitted code can come from: Numba itself
looks only at the file of the function that it loads and would go on using code compiled from an old callee.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import llvmlite
import numba
import platformdirs
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features
from numba.core.registry import cpu_target

from ..errors import MachineError
from ..simd.isa import NEON_BF16, NEON_DOT, NEON_I8MM, Isa

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_SOURCES: Final = ("kernels/*.py", "simd/*.py", "plan/executor.py", "peak.py")

F = TypeVar("F", bound=Callable[..., Any])


def _source_digest() -> str:
    """Of Numba, of all sources that jitted code comes from, and of the name that this package was imported under:
    cached code refers to its types by module."""
    digest = hashlib.sha256(f"numba {numba.__version__} llvmlite {llvmlite.__version__} {__name__}".encode())
    for pattern in _SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


CACHE_DIR: Final = Path(platformdirs.user_cache_dir("loadgen-numba")) / "kernels" / _source_digest()
"""Where compiled kernels are kept between processes; safe to delete. Its modification time is that of its last use."""

_UNUSED_S: Final = 30 * 24 * 3600


def prepare_cache() -> None:
    """Makes CACHE_DIR. Without it Numba would cache beside the sources, in silence, and miss changes of callees.

    Folders of other versions that nobody has used for a month are removed.

    Raises: MachineError if it cannot be made or written to, or its file system has no locks.
    """
    try:
        with _only_writer():
            tempfile.TemporaryFile(dir=CACHE_DIR).close()
        os.utime(CACHE_DIR)  # in use
    except OSError as error:
        raise MachineError(
            f"compiled kernels cannot be kept in {CACHE_DIR} ({error.strerror}): set XDG_CACHE_HOME to a folder that "
            "can be written to"
        ) from error
    _remove_unused(CACHE_DIR.parent, time.time() - _UNUSED_S)


def _remove_unused(folder: Path, before_s: float) -> None:
    """Removes the subfolders last used before a point in time (seconds since the epoch).

    Other processes may do the same, or begin to use one just now: the rename gives a folder to one remover, and Numba
    makes a folder again that it finds gone. What cannot be removed stays, and the next session tries again: that
    costs room on the disk and nothing else.
    """
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # gone already, or somebody else's
            if entry.is_dir() and entry.stat().st_mtime < before_s:
                removed = entry.with_name(f".removed-{entry.name}-{os.getpid()}")
                entry.rename(removed)
                shutil.rmtree(removed)


def jit(function: F) -> F:
    """`numba.njit` with the flags that all kernels share, for what compiled code calls, directly or by address.

    error_model "numpy": a division by zero is an inf or a NaN as in ONNX, and costs no branch. No fastmath: it would
    let LLVM change the order of summation between versions, and drop NaNs.

    Nothing is compiled that would take Python's arguments apart, which costs a first session seconds. So a call from
    Python ends the process; `jit_entry` is for that.
    """
    return _njit(function, no_cpython_wrapper=True)


def jit_entry(function: F) -> F:
    """`jit` for what Python calls. nogil: instances run side by side in threads of one process."""
    return _njit(function, nogil=True)


def jit_parallel(function: F) -> F:
    """`jit_entry` for what opens a parallel region."""
    return _njit(function, nogil=True, parallel=True)


def _njit(function: F, **flags: bool) -> F:
    with _our_cache():
        dispatcher = numba.njit(error_model="numpy", no_cfunc_wrapper=True, **flags)(function)
        # In place of cache=True, which makes this a FunctionCache; tests/backend/test_jit_cache.py fails if the name of
        # the attribute changes, because nothing is cached then.
        dispatcher._cache = _Cache(function)
    return cast(F, dispatcher)


class _Cache(FunctionCache):
    """Numba's cache of a function, of which two processes may store something at the same time.

    It reads its index, and the first number that is free there becomes the name of a new file. So both could find the
    same, and one's code be lost, or loaded for the other's types from then on.
    """

    def save_overload(self, sig: Any, data: Any) -> None:
        with _only_writer():
            super().save_overload(sig, data)


@contextlib.contextmanager
def _only_writer() -> Iterator[None]:
    """No other process is in here, for this CACHE_DIR. Numba compiles in one thread of a process at a time."""
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with (CACHE_DIR / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # not by closing: a child forked meanwhile has the file open, too


@contextlib.contextmanager
def _our_cache() -> Iterator[None]:
    """Functions decorated within are cached in CACHE_DIR. Numba asks its configuration for the place when it decorates;
    other functions of the process keep theirs."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(CACHE_DIR)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def entry_point(function: Any, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """The compiled code of a jitted function for these argument types, to be called without Numba's dispatch.

    Dispatch finds out the types of all arguments at every call; for an array of records that takes 100 us. The
    caller guarantees the types.

    Raises: TypeError if it is no `jit_entry` or `jit_parallel`: a call would end the process.
    """
    if "no_cpython_wrapper" in function.targetoptions:
        raise TypeError(f"{function.__name__} is compiled for compiled code only: make it a jit_entry")
    function.compile(arguments)
    point: Callable[..., Any] = function.overloads[arguments].entry_point
    return point


_LLVM_FEATURES: Final = {NEON_DOT: "dotprod", NEON_I8MM: "i8mm", NEON_BF16: "bf16"}
"""Extensions of Arm that kernels have instructions of, and LLVM's names for them."""


def _own_features(best: Isa) -> str | None:
    """What LLVM is told of this CPU's features; None for what it finds itself.

    Of an Arm core that it does not know by name it finds few, and ends the process at an instruction that is no part
    of them.
    """
    used = [f"+{name}" for extension, name in _LLVM_FEATURES.items() if extension in best.extensions]
    return ",".join([get_host_cpu_features(), *used]) if used else None


def target_isa(isa: Isa, best: Isa) -> None:
    """Makes Numba compile for `isa` in this process; to be called before a jitted function is defined.

    For the machine's best ISA Numba's own detection stays, with all extensions that the CPU has. Calling it again with
    the same ISA does nothing.

    Raises: MachineError if this process already compiles for something else.
    """
    if isa.name == best.name:
        wanted_cpu, wanted_features = None, _own_features(best)
    else:
        wanted_cpu, wanted_features = isa.llvm_cpu, ""
    # A private name of Numba's: the target of a process is fixed once this attribute exists. Numba has no public way
    # to ask. tests/backend/test_isa.py fails if it is renamed, because a second ISA is then no longer refused.
    if "_toplevel_target_context" not in vars(cpu_target):
        numba.config.CPU_NAME, numba.config.CPU_FEATURES = wanted_cpu, wanted_features
    target = (numba.config.CPU_NAME, numba.config.CPU_FEATURES)
    if target != (wanted_cpu, wanted_features):
        raise MachineError(
            f"ISA {isa.name!r} was asked for, but this process already compiles for "
            f"{numba.config.CPU_NAME or best.name!r}: use one ISA per process and create its first session "
            "before anything else is compiled by Numba"
        )
