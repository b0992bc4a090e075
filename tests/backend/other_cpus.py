"""Code for CPUs that this machine may not be: compiled in a process of its own, looked at, never run."""

from __future__ import annotations

import re
import subprocess
import sys

from backend.simd.element import Element
from backend.simd.isa import Isa, Tile

_COMPILE = """
import sys
import numba
cpu, isa_name, extensions, element_name, tiles = sys.argv[1:]
numba.config.CPU_NAME, numba.config.CPU_FEATURES = cpu, ""
from dataclasses import replace
from numba.core import types
from backend.kernels.conv_gemm import conv_gemm
from backend.kernels.step import STEP
from backend.simd.element import BFLOAT16, FLOAT32, UINT8, Operands
from backend.simd.isa import ISAS, Tile
from backend.simd.tags import TagType
isa = replace(next(isa for isa in ISAS if isa.name == isa_name), extensions=tuple(extensions.split()))
element = next(element for element in (BFLOAT16, FLOAT32, UINT8) if element.name == element_name)
arrays = [types.Array(dtype, 1, "C") for dtype in (types.float32, types.float32, types.int32, types.int64)]
for tile in (Tile(*map(int, tile.split("x"))) for tile in tiles.split()):
    kernel = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(conv_gemm.py_func)
    tag = TagType(isa, tile, Operands(element, element, element))
    signature = (tag, *arrays, numba.from_dtype(STEP), types.int64, types.int64, types.int64)
    kernel.compile(signature)
    print("=====", tile)
    print(kernel.inspect_asm(signature))
"""


def gemm_assembly(cpu: str, isa: Isa, element: Element) -> dict[Tile, str]:
    """The GEMM kernel for each tile of `isa`, x, y and b being `element`, as assembly for LLVM's CPU of that name."""
    arguments = (cpu, isa.name, " ".join(isa.extensions), element.name, " ".join(map(str, isa.tiles)))
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    texts = re.split(r"===== \d+x\d+\n", done.stdout)[1:]
    return dict(zip(isa.tiles, texts, strict=True))
