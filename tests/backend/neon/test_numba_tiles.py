"""Numba's tiles by dot products on Arm, compiled by llvmlite on any machine: the loop as it is meant, and its results.

The assembly is what tools/arm64/mca judges. A whole plan by Numba's kernels needs Numba under an emulator:
tools/arm64/test.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
from plan_runner import KERNELS

from backend.kernels.gemm_tile import UNROLL
from backend.simd.element import BFLOAT16, FLOAT32, UINT8, Element, Operands
from backend.simd.isa import NEON, NEON_BF16, NEON_DOT, NEON_I8MM, Tile
from backend.simd.tags import TagType

if KERNELS == "neon":
    from neon_runner import CROSS, EMULATOR, NATIVE

_TOOL = Path(__file__).parents[3] / "tools/arm64/mca"
TILES = [pytest.param(tile, id=str(tile)) for tile in NEON.tiles]


@dataclass(frozen=True)
class Kind:
    """Tiles by one dot product. x: how its operand x ends, a lane or a whole register. cpu: LLVM's name of one that has
    `extensions` and no others that count. driver: what runs a tile, compiled with `define`."""

    instruction: str
    x: str
    cpu: str
    extensions: tuple[str, ...]
    element: Element
    driver: str
    define: str = "-DBF16"


KINDS = [
    Kind("bfdot", r"\.2h\[[01]\]", "neoverse-n2", (NEON_BF16,), BFLOAT16, "numba_tile_bf16.c"),
    Kind("sdot", r"\.16b", "neoverse-n1", (NEON_DOT,), UINT8, "numba_tile_u8.c", "-DSIGNED_BIAS=1"),
    Kind("sudot", r"\.4b\[[01]\]", "neoverse-v2", (NEON_DOT, NEON_I8MM), UINT8, "numba_tile_u8.c", "-DSIGNED_BIAS=0"),
]
every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.instruction) for kind in KINDS])


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


def assembly(mca: ModuleType, kind: Kind, tile: Tile) -> str:
    """Sums of bytes are written as they are where y is float32 and more blocks follow."""
    y = FLOAT32 if kind.element == UINT8 else kind.element
    tag = TagType(replace(NEON, extensions=kind.extensions), tile, Operands(kind.element, y, kind.element))
    return str(mca.numba_assembly(tag, kind.cpu))


@every_kind
@pytest.mark.parametrize("tile", TILES)
def test_the_loop_is_dot_products(tile: Tile, kind: Kind, mca: ModuleType) -> None:
    """MR * NR per word, each with a lane of a plain load; nothing repeated, nothing emulated, no sum on the stack.

    SDOT's x passes through a general register, once per row and word, where its top bits are turned over.
    """
    loop = mca.innermost(f"tile {tile}", assembly(mca, kind, tile))
    instructions = [line.split(None, 1) for line in loop.text.split("\n")]
    dots = [operands for name, operands in instructions if name == kind.instruction]
    assert len(dots) == UNROLL * tile.mr * tile.nr
    assert all(re.search(rf"{kind.x}$", operands) for operands in dots)
    names = {name for name, _ in instructions}
    assert not names & {"ld1r", "fmla", "shl", "smull", "smlal", "mla", "mul", "sxtl", "sshll", "ushll"}
    assert not [operands for name, operands in instructions if name in ("str", "stp", "stur") and "q" in operands]
    turned = {name: [operands for other, operands in instructions if other == name] for name in ("eor", "dup")}
    assert all(re.match(r"w\d+,", operands) for operands in turned["eor"]), "not in general registers"
    assert all(re.search(r", w\d+$", operands) for operands in turned["dup"]), "not from general registers"
    words_turned = UNROLL * tile.mr if kind.instruction == "sdot" else 0
    assert {len(operands) for operands in turned.values()} == {words_turned}


@pytest.mark.skipif(KERNELS != "neon", reason="needs a compiler for Arm: tools/arm64/test --kernels")
@every_kind
@pytest.mark.parametrize("tile", TILES)
def test_sums_are_as_they_are_to_be(tile: Tile, kind: Kind, mca: ModuleType, tmp_path: Path) -> None:
    """Of bytes exactly; of bfloat16 within their bound."""
    if NATIVE:
        pytest.skip("the kernel tests do it here")
    (tmp_path / "tile.s").write_text(assembly(mca, kind, tile))
    flags = ["-O1", "-static", "-march=armv8.5-a+sve2+bf16+i8mm", f"-DMR={tile.mr}", f"-DNR={tile.nr}", kind.define]
    driver, program = str(Path(__file__).parent / kind.driver), str(tmp_path / "tile")
    subprocess.run([*CROSS, *flags, driver, str(tmp_path / "tile.s"), "-o", program, "-lm"], check=True)
    done = subprocess.run([*EMULATOR, program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
