"""The built library as Python sees it: every function's argument and result types, declared once.

May import: errors, kernels.step.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import MachineError
from ..kernels.step import KernelKey

ABI: Final = 1
"""Of abi.h."""


class Memory(ctypes.Structure):
    """ln_memory: arena, weights, tables, io."""

    _fields_ = (
        ("arena", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("io", ctypes.c_void_p),
    )


class Run(ctypes.Structure):
    """ln_run: steps [first, last) for `batch` units of batch."""

    _fields_ = (
        ("kernels", ctypes.c_void_p),
        ("memory", ctypes.POINTER(Memory)),
        ("steps", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        ("counters", ctypes.c_void_p),
    )


def load_library(path: Path) -> ctypes.CDLL:
    """Loads a library that `build` made, and declares its functions. Calls into it release the GIL.

    Raises: MachineError if it cannot be loaded or speaks another ABI.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MachineError(
            f"the NEON library {path} cannot be loaded ({error}): remove it to have it built anew"
        ) from error
    library.ln_abi.argtypes, library.ln_abi.restype = [], ctypes.c_int64
    library.ln_kernel_named.argtypes, library.ln_kernel_named.restype = [ctypes.c_char_p], ctypes.c_void_p
    library.ln_team_open.argtypes, library.ln_team_open.restype = [ctypes.c_int64], ctypes.c_void_p
    library.ln_team_close.argtypes, library.ln_team_close.restype = [ctypes.c_void_p], None
    library.ln_team_tids.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)]
    library.ln_team_tids.restype = None
    library.ln_team_run.argtypes, library.ln_team_run.restype = [ctypes.c_void_p, ctypes.POINTER(Run)], None
    if library.ln_abi() != ABI:
        raise MachineError(f"the NEON library {path} has ABI {library.ln_abi()}, {ABI} is needed: remove it")
    return library


def kernel_name(key: KernelKey) -> str:
    """What the C library calls a kernel. It has one depthwise 3x3 for bytes, where Numba's comes in tiles."""
    name = "depthwise_3x3_u8" if key.name == "depthwise_3x3_u8" else str(key)
    return name.replace("-", "_")


def kernel_addresses(library: ctypes.CDLL, keys: tuple[KernelKey, ...]) -> npt.NDArray[np.int64]:
    """The addresses of a plan's kernels. Raises: MachineError for one that the library does not have."""
    addresses = {key: library.ln_kernel_named(kernel_name(key).encode()) for key in keys}
    missing = [str(key) for key, address in addresses.items() if not address]
    if missing:
        raise MachineError(f"kernels='neon' has no kernel {', '.join(missing)}, which this plan needs: use 'numba'")
    return np.array(list(addresses.values()), np.int64)
