"""Micro-kernels of the C library for bytes that no plan uses, to the bit.

Depths around the unrolled loop and around a group; pixels below, at and above a tile; channels in one panel and three.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from plan_runner import KERNELS

from backend.kernels.step import IMAGE_UNITS, STEP, KernelKey

pytestmark = pytest.mark.skipif(KERNELS != "neon", reason="needs the C library: tools/arm64/test --kernels")
if KERNELS == "neon":
    from neon_runner import run_steps

LANES = 4
INT8 = {
    "gemm_s8_dot_8x3": (np.int8, 4), "gemm_s8_dot_6x4": (np.int8, 4), "gemm_u8_dot_8x3": (np.uint8, 4),
    "gemm_s8_mm_8x3": (np.int8, 8), "gemm_u8_mm_8x3": (np.uint8, 8),
}  # fmt: skip
"""Kernel -> element of x, and bytes of depth that one instruction adds up."""

GUARD = 64
MARK = 123456789


def tile_of(name: str) -> tuple[int, int]:
    mr, nr = name.rsplit("_", 1)[1].split("x")
    return int(mr), int(nr)


def pack(weights: np.ndarray, width: int, group: int) -> np.ndarray:
    """[taps, depth, channels] -> [panel][tap][depth / G][width][G]; pairs of channels in front of G are the same."""
    taps, depth, channels = weights.shape
    groups, panels = -(-depth // group), -(-channels // width)
    padded = np.zeros((taps, groups * group, panels * width), weights.dtype)
    padded[:, :depth, :channels] = weights
    return np.ascontiguousarray(padded.reshape(taps, groups, group, panels, width).transpose(3, 0, 1, 4, 2))


def run(name: str, group_bytes: int, x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x: [pixels, taps, depth], each pixel's taps in rows that lie apart; the sums [pixels, channels] as words."""
    mr, nr = tile_of(name)
    width, size = nr * LANES, x.dtype.itemsize
    pixels, taps, depth = x.shape
    group = group_bytes // size
    packed = pack(weights, width, group)
    panels = len(packed)
    pitch = -(-depth // group) * group + 8 // size * 2  # readable behind the last element, and not a multiple of it
    rows = np.zeros((pixels * taps, pitch), x.dtype)
    rows[:, :depth] = x.reshape(pixels * taps, depth)
    y_pitch = panels * width + 3
    x_words = -(-rows.nbytes // 4)
    memory = np.full(GUARD + x_words + pixels * y_pitch + GUARD, MARK, np.int32)
    memory[GUARD : GUARD + x_words].view(np.uint8)[: rows.nbytes] = rows.ravel().view(np.uint8)
    memory = memory.view(np.float32)
    padded_bias = np.zeros(panels * width, bias.dtype)
    padded_bias[: len(bias)] = bias
    words = np.frombuffer(packed.tobytes() + padded_bias.tobytes(), np.float32).copy()
    ends = np.minimum(np.arange(pixels + mr), pixels - 1)
    tables = np.concatenate([np.arange(taps) * pitch, ends * taps * pitch, ends * y_pitch]).astype(np.int32)
    step = np.zeros(1, STEP)
    for key, entry in {
        "unit_kind": IMAGE_UNITS, "rows": 1, "images": 1, "chunk": 1, "out_h": 1, "out_w": pixels, "y": x_words,
        "tap_count": taps, "depth": depth, "panels": panels, "panel": packed[0].nbytes // 4, "bias": packed.nbytes // 4,
        "x_rows": taps, "y_rows": taps + len(ends),
    }.items():  # fmt: skip
        step[key] = entry
    inside = slice(GUARD, len(memory) - GUARD)
    run_steps((KernelKey(name),), step, 1, 1, 1, words, tables, memory, inside, [])  # type: ignore[arg-type]
    after = memory.view(np.int32)
    assert (after[:GUARD] == MARK).all() and (after[-GUARD:] == MARK).all(), "written outside the arena"
    sums = after[GUARD + x_words : -GUARD].reshape(pixels, y_pitch)
    assert (sums[:, panels * width :] == MARK).all(), "written behind a pixel's channels"
    return sums[:, : weights.shape[2]]


def cases(name: str, group: int) -> list[tuple[int, int, int, int]]:
    mr, nr = tile_of(name)
    width = nr * LANES
    pixels, depths = (1, mr - 1, mr, 2 * mr + 3), (group - 1, group, 4 * group, 5 * group + 1)
    channels = (width - 1, 2 * width + 5)
    return [*itertools.product(pixels, channels, depths, (1, 3))]


@pytest.mark.parametrize("name", INT8)
def test_int8_is_exact(name: str) -> None:
    """Over the whole range of both types: sums of products of 8 bits are exact in int32."""
    kind, group_bytes = INT8[name]
    rng = np.random.default_rng(5)
    bounds = np.iinfo(kind)
    for pixels, channels, depth, taps in cases(name, group_bytes):
        x = rng.integers(bounds.min, bounds.max, (pixels, taps, depth), kind, endpoint=True)
        weights = rng.integers(-128, 127, (taps, depth, channels), np.int8, endpoint=True)
        bias = rng.integers(-(2**20), 2**20, channels, np.int32)
        expected = np.einsum("ptk,tkn->pn", x.astype(np.int64), weights.astype(np.int64)) + bias
        got = run(name, group_bytes, x, weights, bias)
        np.testing.assert_array_equal(got, expected, err_msg=f"pixels {pixels} channels {channels} K {taps}x{depth}")
