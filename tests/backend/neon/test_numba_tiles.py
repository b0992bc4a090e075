"""Numba's tiles for bfloat16 on Arm, compiled by llvmlite on any machine: the loop as it is meant, and its results.

The assembly is what tools/arm64/mca judges. A whole plan by Numba's kernels needs Numba under an emulator:
tools/arm64/test.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from plan_runner import KERNELS

from backend.kernels.gemm_tile import UNROLL
from backend.simd.element import BFLOAT16, Operands
from backend.simd.isa import NEON, NEON_BF16, Tile
from backend.simd.tags import TagType

if KERNELS == "neon":
    from neon_runner import CROSS, EMULATOR, NATIVE

_TOOL = Path(__file__).parents[3] / "tools/arm64/mca"
_ISA = replace(NEON, extensions=(NEON_BF16,))
_DRIVER = Path(__file__).parent / "numba_tile.c"
TILES = [pytest.param(tile, id=str(tile)) for tile in NEON.tiles]


@pytest.fixture(scope="module")
def mca() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("mca", str(_TOOL))
    spec = importlib.util.spec_from_loader("mca", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mca"] = module  # dataclasses look there
    loader.exec_module(module)
    module.llvm.initialize_all_targets()
    module.llvm.initialize_all_asmprinters()
    return module


def assembly(mca: ModuleType, tile: Tile) -> str:
    return str(mca.numba_assembly(TagType(_ISA, tile, Operands(BFLOAT16, BFLOAT16, BFLOAT16)), "neoverse-n2"))


@pytest.mark.parametrize("tile", TILES)
def test_the_loop_is_dot_products_by_element(tile: Tile, mca: ModuleType) -> None:
    """MR * NR per word, each with a lane of a plain load; nothing repeated, nothing emulated, no sum on the stack."""
    loop = mca.innermost(f"tile {tile}", assembly(mca, tile))
    instructions = [line.split(None, 1) for line in loop.text.split("\n")]
    dots = [operands for name, operands in instructions if name == "bfdot"]
    assert len(dots) == UNROLL * tile.mr * tile.nr
    assert all(".2h[" in operands for operands in dots)
    assert not {name for name, _ in instructions} & {"dup", "ld1r", "fmla", "shl"}
    assert not [operands for name, operands in instructions if name in ("str", "stp") and "q" in operands]


@pytest.mark.skipif(KERNELS != "neon", reason="needs a compiler for Arm: tools/arm64/test --kernels")
@pytest.mark.parametrize("tile", TILES)
def test_sums_are_within_their_bound(tile: Tile, mca: ModuleType, tmp_path: Path) -> None:
    if NATIVE:
        pytest.skip("the kernel tests do it here")
    (tmp_path / "tile.s").write_text(assembly(mca, tile))
    flags = ["-O1", "-static", "-march=armv8.5-a+sve2+bf16+i8mm", f"-DMR={tile.mr}", f"-DNR={tile.nr}"]
    program = str(tmp_path / "tile")
    subprocess.run([*CROSS, *flags, str(_DRIVER), str(tmp_path / "tile.s"), "-o", program, "-lm"], check=True)
    done = subprocess.run([*EMULATOR, program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
