"""The loops behind the measured roofs do the work that is counted: judged by NumPy, not by a clock."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from backend import peak
from backend.machine import detect
from backend.simd.element import BFLOAT16, FLOAT32, UINT8

MACHINE = detect()
LANES = MACHINE.isa.lanes


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_every_chain_is_computed(turns: int) -> None:
    random = np.random.default_rng(turns)
    vectors = random.uniform(-1, 1, (2 + peak._CHAINS, LANES)).astype(np.float32)
    sums = np.full(3 * LANES, np.nan, np.float32)
    peak.compiled_chains(MACHINE.isa, FLOAT32)(MACHINE.isa, vectors.ravel(), turns, sums, LANES)
    chains = vectors[2:].astype(np.float64)
    for _ in range(turns):
        chains = chains * vectors[0] + vectors[1]
    np.testing.assert_allclose(sums[LANES : 2 * LANES], chains.sum(axis=0), rtol=1e-5, atol=1e-5)
    assert np.isnan(np.delete(sums, np.s_[LANES : 2 * LANES])).all()


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_every_chain_of_dot_products_is_computed(turns: int) -> None:
    random = np.random.default_rng(turns)
    pairs = random.uniform(-1, 1, (2, 2 * LANES)).astype(ml_dtypes.bfloat16)
    chains = random.uniform(-1, 1, (peak._CHAINS, LANES)).astype(np.float32)
    operands = np.concatenate([pairs.view(np.float32).ravel(), chains.ravel()])
    sums = np.full(LANES, np.nan, np.float32)
    peak.compiled_chains(MACHINE.isa, BFLOAT16)(MACHINE.isa, operands, turns, sums, 0)
    once = (pairs[0].astype(np.float64) * pairs[1].astype(np.float64)).reshape(LANES, 2).sum(axis=1)
    np.testing.assert_allclose(sums, (chains + turns * once).sum(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_every_chain_of_dot_products_of_bytes_is_computed(turns: int) -> None:
    """c = c + the products of c's own bytes, without sign, and y's, with sign, modulo 2^32."""
    random = np.random.default_rng(turns)
    words = random.integers(-(2**31), 2**31, (2 + peak._CHAINS, LANES)).astype(np.int32)
    sums = np.full(LANES, np.nan, np.float32)
    peak.compiled_chains(MACHINE.isa, UINT8)(MACHINE.isa, words.view(np.float32).ravel(), turns, sums, 0)
    chains, y = words[2:], words[1].view(np.int8).reshape(LANES, 4).astype(np.int32)
    for _ in range(turns):
        own = np.ascontiguousarray(chains).view(np.uint8).reshape(peak._CHAINS, LANES, 4).astype(np.int32)
        chains = chains + (own * y).sum(axis=2, dtype=np.int32)
    np.testing.assert_array_equal(sums.view(np.int32), chains.sum(axis=0, dtype=np.int32))


def test_every_byte_is_read() -> None:
    turn = peak._STREAMS * LANES
    array = np.random.default_rng(0).integers(-9, 10, 6 * turn).astype(np.float32)
    sums = np.empty(LANES, np.float32)
    peak._read(MACHINE.isa, array, turn, 5 * turn, sums, 0)
    np.testing.assert_array_equal(sums, array[turn : 5 * turn].reshape(-1, LANES).sum(axis=0))
