"""BFMMLA, which the C library uses where a tile's rows pair up, gives the bits of BFDOT, which all other tiles use.

As the emulator has it, which was written from the manual's pseudo-code; on an Arm machine, as that has it.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from plan_runner import ISA, KERNELS, MACHINE, plan_graph, run_plan
from small_nets import Net, random_inputs

from backend.simd.isa import NEON_BF16

pytestmark = pytest.mark.skipif(KERNELS != "neon", reason="needs a compiler for Arm: tools/arm64/test --kernels")
if KERNELS == "neon":
    from neon_runner import CROSS, EMULATOR, NATIVE

_DRIVER = Path(__file__).parent / "pair_dots.c"


def test_two_by_two_is_two_dot_products_one_after_the_other(tmp_path: Path) -> None:
    program = str(tmp_path / "pair_dots")
    compiler, emulator = (["cc"], []) if NATIVE else ([*CROSS, "-static"], EMULATOR)
    subprocess.run([*compiler, "-O1", "-march=armv8.2-a+bf16", str(_DRIVER), "-o", program], check=True)
    done = subprocess.run([*emulator, program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("depth", [8, 39])
def test_tiles_of_odd_and_of_even_height_give_the_same_bits(depth: int) -> None:
    """7x3 and 1x8 are BFDOT, the others BFMMLA but for a rest of depth: of 39 elements a word and a half."""
    net = Net()
    graph = net.graph(net.conv(net.input(depth, 9, 9), 96, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)))
    inputs = random_inputs(graph, 1)
    assert NEON_BF16 in ISA.extensions
    machines = (replace(MACHINE, isa=replace(ISA, tiles=(tile,))) for tile in ISA.tiles)
    plans = [plan_graph(graph, 1, machine, "bf16") for machine in machines]
    results = [run_plan(made, inputs)[0] for made in plans]
    assert len({result.tobytes() for result in results}) == 1
    rounded = results[0].astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.mean(rounded == results[0]) < 0.1, "bits that rounding to bfloat16 could hide"
