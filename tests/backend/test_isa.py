"""Instruction sets: what compiled code really uses, and the kernel tests again in a process for each other ISA."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest
from numba.core import types
from plan_runner import ISA, MACHINE

from backend.kernels.conv_gemm import conv_gemm
from backend.kernels.depthwise import depthwise_3x3
from backend.kernels.gemm_tile import UNROLL
from backend.kernels.step import STEP
from backend.kernels.table import executor_arguments
from backend.machine import runs_here
from backend.plan import executor
from backend.simd.isa import ISAS, NEON, Tile
from backend.simd.tags import TagType

_TESTS = Path(__file__).parent
_VARIABLE = "LOADGEN_NUMBA_TEST_ISA"
_NAMES = [isa.name for isa in ISAS if runs_here(isa)]
OTHERS = _NAMES[_NAMES.index(MACHINE.best_isa.name) + 1 :]

REGISTER = {"avx512": "zmm", "avx2": "ymm", "generic": "xmm"}
MULTIPLY = {
    "avx512": r"\tvfmadd\d{3}ps\t.*%zmm",
    "avx2": r"\tvfmadd\d{3}ps\t.*%ymm",
    "generic": r"\tmulps\t.*%xmm",
}
"""The multiply of each ISA's inner loop; generic code is SSE2, without a fused multiply-add."""

FOREIGN = {
    "avx512": r"\b(?!)",
    "avx2": r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])\b",
    "generic": r"%[yz]mm|\tv[a-z]\w*[ps][sd]\t",
}
"""What a CPU with this ISA and no better one cannot execute."""


def assembly(kernel: Any, tag: types.Type) -> str:
    """What Numba makes of a kernel for this process's target; code from the disk cache cannot be listed, so again."""
    arguments = [types.Array(dtype, 1, "C") for dtype in (types.float32, types.float32, types.int32, types.int64)]
    signature = (tag, *arguments, numba.from_dtype(STEP), types.int64, types.int64, types.int64)
    kernel.compile(signature)
    if kernel.stats.cache_hits[signature]:
        kernel = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(kernel.py_func)
        kernel.compile(signature)
    return str(kernel.inspect_asm(signature))


def loops(text: str) -> list[str]:
    """Innermost loops: from a label to the jump back to it, without another label between."""
    parts = re.split(r"\n(\.L\w+):", text)
    found = []
    for label, body in zip(parts[1::2], parts[2::2], strict=True):
        back = re.search(rf"\tj\w+\t{re.escape(label)}\b", body)
        if back is not None:
            found.append(body[: back.end()])
    return found


@pytest.mark.parametrize("tile", ISA.tiles, ids=str)
def test_tiles_are_compiled_as_meant(tile: Tile) -> None:
    """The unrolled loop over depth multiplies whole vectors, MR * NR per step, with the accumulators in registers.

    LLVM may park one vector, once in the loop; a tile too large for the registers parks several. Only 5x2 of generic
    code, which has 16 registers and no multiply-add, parks its one twice in four words.
    """
    at_most = 2 if (ISA.name, tile) == ("generic", Tile(5, 2)) else 1
    text = assembly(conv_gemm, TagType(ISA, tile))
    counts = [len(re.findall(MULTIPLY[ISA.name], loop)) for loop in loops(text)]
    assert max(counts) == UNROLL * tile.mr * tile.nr
    for loop, multiplies in zip(loops(text), counts, strict=True):
        if multiplies >= tile.mr * tile.nr:
            parked = re.findall(rf"\tv?mov[au]ps\t%{REGISTER[ISA.name]}\d+, (-?\d*\(%r[sb]p)", loop)
            assert len(parked) <= at_most, f"{len(parked)} vectors go to the stack among {multiplies} multiplies"
            assert len(set(parked)) <= 1, f"vectors go to several places of the stack: {parked}"
    assert not re.search(FOREIGN[ISA.name], text), "instructions that this ISA does not have"


def test_row_kernels_use_whole_vectors() -> None:
    """Vectors of the ISA's width, and nothing that it lacks."""
    text = assembly(depthwise_3x3, TagType(ISA, Tile(ISA.depthwise_mr, 1)))
    assert re.search(rf"ps\t.*%{REGISTER[ISA.name]}", text)
    assert not re.search(FOREIGN[ISA.name], text), "instructions that this ISA does not have"


def test_who_waits_pauses() -> None:
    """x86's PAUSE, or Arm's ISB, is in the code of a member of a team, which polls for the others; a single thread's
    has none."""
    pause = "\tisb\n" if ISA.name == NEON.name else "\tpause\n"
    one = executor_arguments(ISA)
    member = (*one, types.Array(types.int64, 1, "C"), types.int64, types.int64)
    for function, arguments, pauses in ((executor._participate, member, True), (executor.run_serial, one, False)):
        uncached = numba.njit(nogil=True, error_model="numpy")(function.py_func)
        uncached.compile(arguments)
        assert (pause in uncached.inspect_asm(arguments)) == pauses


_RUN_AGAIN = ("isa", "kernels", "row_kernels", "io_kernels", "quantized_kernels", "real_models", "bfloat16")


@pytest.fixture(scope="module")
def children() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The kernel tests in a process per other ISA, all started at once."""
    tests = [str(_TESTS / f"test_{name}.py") for name in _RUN_AGAIN]
    chosen = (
        "test_isa or test_kernels or test_io_kernels or test_depthwise or test_max_pool or onnxruntimes and tiny_dscnn"
        " or test_extreme or test_random_convolutions or test_dense or test_every_tile or test_add or test_average"
        " or test_bfloat16 and (rounding or geometry or ops_between)"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", chosen, *tests]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    running = {
        isa: subprocess.Popen(
            command, cwd=_TESTS.parent.parent, env={**environment, _VARIABLE: isa}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for isa in OTHERS
    }  # fmt: skip
    yield running
    for process in running.values():
        process.kill()
        process.wait()


@pytest.mark.skipif(_VARIABLE in os.environ, reason="this is the process of another ISA")
@pytest.mark.parametrize("isa", OTHERS)
def test_kernels_of_other_isas(isa: str, children: dict[str, subprocess.Popen[str]]) -> None:
    """AVX2 and generic code on whatever better machine this is, against the same oracles."""
    output, _ = children[isa].communicate(timeout=900)
    assert children[isa].returncode == 0, f"{isa}:\n{output[-4000:]}"
