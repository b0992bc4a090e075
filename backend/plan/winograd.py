"""When to convolve by Winograd's F(4x4, 3x3), and its weights. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..graph.ir import Conv, Shape
from ..kernels.step import PATCH_OUT, PATCH_POINTS
from ..machine import Machine
from ..simd.isa import Isa, Tile
from .blocking import FMA_PER_CYCLE, tile_cycles
from .layout import Layout
from .pack import F32Array

_G: Final = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""Lavin and Gray 2016, section 4.3; kernels/winograd.py has the matching B and A."""

_TRANSFORM_VECTOR_OPS: Final = 200
"""Vector instructions of an input or output transform of one patch and one vector of channels: loads and stores of
36 points, 6 + 6 lines of about 12 operations."""

_INSTRUCTIONS_PER_CYCLE: Final = 2
_BYTES_PER_CYCLE: Final = 6
"""Rate at which weights arrive from L3 or memory."""


def transform_weights(weight: F32Array) -> F32Array:
    """[O, C, 3, 3] -> G g G^T as [36, C, O], computed in float64."""
    transformed: npt.NDArray[np.float64] = np.einsum(
        "ir,ocrs,js->ijco", _G, weight.astype(np.float64), _G, optimize=True
    )
    return np.asarray(transformed.reshape(PATCH_POINTS, weight.shape[1], weight.shape[0]), np.float32)


def fits(op: Conv, weight: Shape, output: Layout) -> bool:
    """Whether F(4x4, 3x3) can compute this convolution: 3x3, stride 1, one group, output a multiple of 4 pixels."""
    return (
        weight[2:] == (3, 3)
        and op.strides == op.dilations == (1, 1)
        and op.group == 1
        and output.h % PATCH_OUT == 0
        and output.w % PATCH_OUT == 0
    )


def pays(machine: Machine, in_c: int, out_c: int, pixels: int) -> bool:
    """Whether it is estimated to take fewer cycles than the direct convolution, both on one core.

    Multiply-adds at full rate for both; the transforms' instructions and the 4 times larger weights are the price.
    """
    lanes = machine.isa.lanes
    direct = pixels * in_c * out_c * 9 / lanes / FMA_PER_CYCLE
    weights_bytes = in_c * out_c * 4
    direct += 9 * weights_bytes / _BYTES_PER_CYCLE
    patches = pixels / PATCH_OUT**2
    winograd = patches * PATCH_POINTS * in_c * out_c / lanes / FMA_PER_CYCLE
    winograd += patches * (in_c + out_c) / lanes * _TRANSFORM_VECTOR_OPS / _INSTRUCTIONS_PER_CYCLE
    winograd += PATCH_POINTS * weights_bytes / _BYTES_PER_CYCLE
    return winograd < direct


def choose_patches(machine: Machine, in_c: int, out_c: int, patches: int) -> int:
    """Patches per unit: as many as keep U and M in L2, and the units of a picture equally full."""
    bytes_per_patch = PATCH_POINTS * (in_c + out_c) * 4
    limit = max(1, machine.l2_bytes // bytes_per_patch)
    units = -(-patches // limit)
    return -(-patches // units)


def choose_tile(isa: Isa, patches: int, vectors: int, depth: int) -> Tile | None:
    """The cheapest tile by `tile_cycles` whose NR divides the vectors of output channels; None if none does."""
    divides = [tile for tile in isa.tiles if vectors % tile.nr == 0]
    return min(
        divides,
        key=lambda tile: -(-patches // tile.mr) * (vectors // tile.nr) * tile_cycles(tile, depth),
        default=None,
    )
