"""When to convolve by Winograd's F(4x4, 3x3), and its weights. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..graph.ir import Conv, Shape
from ..kernels.step import PATCH_OUT, PATCH_POINTS
from ..machine import Machine
from ..simd.element import UINT8, Element
from ..simd.isa import Tile
from .blocking import STREAMED_BYTES_PER_CYCLE, direct_cycles, tile_cycles
from .layout import Layout
from .pack import F32Array, words_of

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

_FEWEST_UNITS: Final = 2
"""Units of a layer, if it has patches enough. A plan does not know how many threads will share it: larger units read
weights more seldom, smaller ones feed more cores. Teams of many threads find too few units in small batches."""

_TRANSFORM_CYCLES: Final = 300
"""One input or output transform of one patch and one vector of channels, waiting for L2 included: measured by leaving
out one phase at a time in ResNet50's 56 pixel layers (Cascade Lake at 2.5 GHz)."""


def transform_weights(weight: F32Array) -> F32Array:
    """[O, C, 3, 3] -> G g G^T as [36, C, O], computed in float64."""
    transformed: npt.NDArray[np.float64] = np.einsum(
        "ir,ocrs,js->ijco", _G, weight.astype(np.float64), _G, optimize=True
    )
    return np.asarray(transformed.reshape(PATCH_POINTS, weight.shape[1], weight.shape[0]), np.float32)


def has_the_shape(op: Conv, weight: Shape) -> bool:
    """Whether the convolution is one for F(4x4, 3x3): 3x3, stride 1, one group."""
    return weight[2:] == (3, 3) and op.strides == op.dilations == (1, 1) and op.group == 1


def overhang(op: Conv, weight: Shape, output: Shape) -> tuple[int, int]:
    """Pixels by which the last patches would reach beyond the bottom and the right of the output."""
    if not has_the_shape(op, weight):
        return 0, 0
    return -output[2] % PATCH_OUT, -output[3] % PATCH_OUT


def fits(op: Conv, weight: Shape, x: Layout, y: Layout, lanes: int) -> bool:
    """Whether conv_winograd can compute it: of the shape, input in whole vectors, halo wide enough for the overhang."""
    below, right = -y.h % PATCH_OUT, -y.w % PATCH_OUT
    return (
        has_the_shape(op, weight)
        and x.element != UINT8  # the transforms' sums would not fit bytes
        and x.channels_stored % lanes == 0
        and x.halo[2] >= op.pads[2] + below
        and x.halo[3] >= op.pads[3] + right
    )


def patches_of(h: int, w: int) -> int:
    """Patches that cover a picture."""
    return -(-h // PATCH_OUT) * -(-w // PATCH_OUT)


@dataclass(frozen=True)
class Form:
    """How a layer would run: register tile, MC patches per unit, and what that is estimated to take on one core."""

    tile: Tile
    mc: int
    cycles: float


def pays(form: Form, direct: float) -> bool:
    """Whether it is estimated to take fewer cycles than the direct convolution."""
    return form.cycles < direct


def chosen_form(machine: Machine, op: Conv, weight: Shape, x: Layout, y: Layout, chunk: int) -> Form | None:
    """How the layer runs by conv_winograd for `chunk` units of batch at once; None if it cannot or does not pay."""
    if not fits(op, weight, x, y, machine.isa.lanes):
        return None
    out_c, in_c = weight[:2]
    images = y.images * chunk
    form = best_form(machine, in_c, out_c, images * patches_of(y.h, y.w), x.element)
    direct = direct_cycles(machine, images * y.h * y.w * 9 * in_c * out_c, 9 * in_c * out_c, x.element)
    return form if form is not None and pays(form, direct) else None


@cache
def best_form(machine: Machine, in_c: int, out_c: int, patches: int, element: Element) -> Form | None:
    """The cheapest tile and MC by estimated cycles, units equally full; None if no tile's NR divides the vectors."""
    vectors = -(-out_c // machine.isa.lanes)
    forms = []
    for units in range(min(_FEWEST_UNITS, patches), patches + 1):
        mc = -(-patches // units)
        forms += [
            Form(tile, mc, _cycles(machine, tile, mc, in_c, vectors, patches, element))
            for tile in machine.isa.tiles
            if vectors % tile.nr == 0
        ]
    return min(forms, key=lambda form: form.cycles, default=None)


def _cycles(machine: Machine, tile: Tile, mc: int, in_c: int, vectors: int, patches: int, element: Element) -> float:
    """36 GEMMs per unit, transforms, and the waiting for what is not in L2.

    U and one panel's M are written and read by the unit, weights W are read by every unit. If all of it fits L2, W
    comes once; if U and M do, for every unit; else U is written and read back for every panel, too.
    """
    lanes, units, panels = machine.isa.lanes, -(-patches // mc), vectors // tile.nr
    words = words_of(in_c, element)
    u_bytes, m_bytes = PATCH_POINTS * mc * words * 4, PATCH_POINTS * mc * tile.nr * lanes * 4
    w_bytes = PATCH_POINTS * words * vectors * lanes * 4
    streamed = w_bytes if u_bytes + m_bytes + w_bytes <= machine.l2_bytes else units * w_bytes
    if u_bytes + m_bytes > machine.l2_bytes:
        streamed += units * (1 + panels) * u_bytes
    gemm = PATCH_POINTS * units * -(-mc // tile.mr) * panels * tile_cycles(tile, words)
    transforms = patches * (-(-in_c // lanes) + vectors) * _TRANSFORM_CYCLES
    return gemm + transforms + streamed / STREAMED_BYTES_PER_CYCLE
