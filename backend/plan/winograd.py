"""When to convolve by Winograd's F(4x4, 3x3), and its weights. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..graph.ir import Conv, Shape
from ..kernels.step import PATCH_OUT, PATCH_POINTS
from ..machine import Machine
from ..simd.isa import Isa, Tile
from .blocking import FMA_PER_CYCLE, L3_BYTES_PER_CYCLE, MEMORY_BYTES_PER_CYCLE, tile_cycles
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

_PANEL_CHANNELS: Final = 64
"""Width of the widest panel."""

_TRANSFORM_CYCLES: Final = 300
"""One input or output transform of one patch and one vector of channels; half of it is waiting for L2."""


def transform_weights(weight: F32Array) -> F32Array:
    """[O, C, 3, 3] -> G g G^T as [36, C, O], computed in float64."""
    transformed: npt.NDArray[np.float64] = np.einsum(
        "ir,ocrs,js->ijco", _G, weight.astype(np.float64), _G, optimize=True
    )
    return np.asarray(transformed.reshape(PATCH_POINTS, weight.shape[1], weight.shape[0]), np.float32)


def fits(op: Conv, weight: Shape) -> bool:
    """Whether F(4x4, 3x3) can compute this convolution: 3x3, stride 1, one group."""
    return weight[2:] == (3, 3) and op.strides == op.dilations == (1, 1) and op.group == 1


def overhang(op: Conv, weight: Shape, output: Shape) -> tuple[int, int]:
    """Pixels by which the last patches reach beyond the bottom and the right of the output, if it fits."""
    if not fits(op, weight):
        return 0, 0
    return -output[2] % PATCH_OUT, -output[3] % PATCH_OUT


def patches_of(h: int, w: int) -> int:
    """Patches that cover a picture."""
    return -(-h // PATCH_OUT) * -(-w // PATCH_OUT)


def pays(machine: Machine, in_c: int, out_c: int, patches: int, direct: float) -> bool:
    """Whether it is estimated to take fewer cycles than the direct convolution."""
    return cycles(machine, in_c, out_c, patches) < direct


def cycles(machine: Machine, in_c: int, out_c: int, patches: int) -> float:
    """Estimated cycles on one core: per unit, multiply-adds or the arrival of all weights, whichever takes longer.

    Weights are 4 times those of the direct convolution, and each unit reads all of them.
    """
    units = -(-patches // choose_patches(machine, in_c, patches))
    multiply = patches * PATCH_POINTS * in_c * out_c / machine.isa.lanes / FMA_PER_CYCLE
    weight_bytes = PATCH_POINTS * in_c * out_c * 4
    first = max(multiply / units, weight_bytes / MEMORY_BYTES_PER_CYCLE)
    others = max(multiply / units, weight_bytes / L3_BYTES_PER_CYCLE)
    transforms = patches * (in_c + out_c) / machine.isa.lanes * _TRANSFORM_CYCLES
    return first + (units - 1) * others + transforms


def choose_patches(machine: Machine, in_c: int, patches: int) -> int:
    """Patches per unit: as many as keep U and a panel's M in L2, and all units equally full."""
    bytes_per_patch = PATCH_POINTS * (in_c + _PANEL_CHANNELS) * 4
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
