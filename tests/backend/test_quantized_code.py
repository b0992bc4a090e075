"""The integer GEMM as machine code: which instructions its inner loop is made of, on CPUs with and without VNNI.

Compiled for CPUs that have them, and not run, so that any x86 host can tell.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from other_cpus import gemm_assembly
from test_isa import loops

from backend.kernels.gemm_tile import UNROLL
from backend.simd.element import UINT8
from backend.simd.isa import AVX2, AVX512, AVX512_VNNI, AVX_VNNI, GENERIC

WITH_VNNI = {
    "avx512-vnni": ("cascadelake", replace(AVX512, extensions=(AVX512_VNNI,)), r"\tvpdpbusd\t.*%zmm\d+$", "zmm"),
    "avx-vnni": ("alderlake", replace(AVX2, extensions=(AVX_VNNI,)), r"\t\{vex\}\s+vpdpbusd\t.*%ymm\d+$", "ymm"),
}
"""LLVM's name of a CPU, the ISA, the dot product in assembly, the registers. AVX-VNNI's has an encoding of its own."""

WITHOUT = {
    "avx512": ("skylake-avx512", AVX512, r"\tvpmaddwd\t.*%zmm\d+$"),
    "avx2": ("haswell", AVX2, r"\tvpmaddwd\t.*%ymm\d+$"),
    "sse2": ("x86-64", GENERIC, r"\tpmaddwd\t.*%xmm\d+$"),
}
"""LLVM's name of a CPU, the ISA, the sum of products of pairs of 16 bits, in 32 bits."""


def _inner_loop(text: str, multiply: str) -> tuple[str, int]:
    """The loop with most multiplies, and how many."""
    found = {loop: len(re.findall(multiply, loop, re.MULTILINE)) for loop in loops(text)}
    hot = max(found, key=lambda loop: found[loop])
    return hot, found[hot]


@pytest.mark.parametrize("name", WITH_VNNI)
def test_tiles_are_compiled_to_dot_products_of_bytes(name: str) -> None:
    """The unrolled loop is MR * NR VPDPBUSD on whole registers per word; sums stay there, each word of x is read once,
    and nothing is left of the products by pairs."""
    cpu, isa, dot, register = WITH_VNNI[name]
    for tile, text in gemm_assembly(cpu, isa, UINT8).items():
        hot, dots = _inner_loop(text, dot)
        assert dots == UNROLL * tile.mr * tile.nr, tile
        spilled = re.findall(rf"\tvmov[a-z0-9]+\t%{register}\d+, -?\d*\(%r[sb]p", hot)
        assert not spilled, f"{tile}: {len(spilled)} vectors go to the stack"
        assert len(re.findall(r"\tvp?broadcast[sd]s?\t-?\d*\(", hot)) == UNROLL * tile.mr, tile
        assert "pmadd" not in hot, tile


@pytest.mark.parametrize("name", WITHOUT)
def test_pairs_are_added_in_32_bits_without_vnni(name: str) -> None:
    """Two per word; VPMADDUBSW, which saturates sums in 16 bits, and what only VNNI has are nowhere."""
    cpu, isa, multiply = WITHOUT[name]
    tile = isa.tiles[0]
    text = gemm_assembly(cpu, replace(isa, tiles=(tile,)), UINT8)[tile]
    assert _inner_loop(text, multiply)[1] == UNROLL * tile.mr * tile.nr * 2
    assert not re.search(r"pmaddubsw|vpdpbusd", text)
