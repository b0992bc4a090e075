"""When to convolve by Winograd's F(4x4, 3x3), and its weights. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..graph.ir import Conv, Shape
from ..kernels.step import PATCH_OUT, PATCH_POINTS, interpolation_points
from ..machine import Machine
from ..simd.element import UINT8, Element
from ..simd.isa import Tile
from .blocking import L3_BYTES_PER_CYCLE, STREAMED_BYTES_PER_CYCLE, direct_cycles, tile_cycles
from .layout import Layout
from .pack import F32Array, words_of

_FEWEST_UNITS: Final = 2
"""Units of a layer, if it has patches enough. A plan does not know how many threads will share it: larger units read
weights more seldom, smaller ones feed more cores. Teams of many threads find too few units in small batches."""

_TRANSFORM_CYCLES: Final = 300
"""One input or output transform of one patch and one vector of channels, waiting for L2 included: measured by leaving
out one phase at a time in ResNet50's 56 pixel layers (Cascade Lake at 2.5 GHz)."""


_TRANSFORMED_TOGETHER: Final = 1 << 13
"""Filters whose transforms are made at once: 3 MB in float64, as large as a share of L3."""


def _filter_transform(element: Element) -> npt.NDArray[np.float64]:
    """G, [6, 3]: 1, p, p^2 over the product of the differences of p to the other points, and infinity.

    Lavin and Gray 2016, section 4.3, for the points of `interpolation_points`; kernels/winograd.py has the matching B
    and A.
    """
    a, b = interpolation_points(element)
    points = (0.0, a, -a, b, -b)
    rows = [np.array([1.0, p, p * p]) / np.prod([p - other for other in points if other != p]) for p in points]
    return np.array([*rows, [0.0, 0.0, 1.0]])


def transform_weights(weight: F32Array, element: Element) -> F32Array:
    """[O, C, 3, 3] -> G g G^T as [36, C, O], computed in float64, for operands of that type."""
    g = _filter_transform(element)
    points_by_taps = np.kron(g, g)
    out_c, in_c = weight.shape[:2]
    taps = weight.reshape(out_c, in_c, 9).transpose(2, 1, 0)
    transformed = np.empty((PATCH_POINTS, in_c, out_c), np.float32)
    together = max(1, _TRANSFORMED_TOGETHER // out_c)
    for begin in range(0, in_c, together):
        some = slice(begin, begin + together)
        columns = taps[:, some].astype(np.float64, order="C")
        transformed[:, some] = (points_by_taps @ columns.reshape(9, -1)).reshape(PATCH_POINTS, -1, out_c)
    return transformed


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
    """How a layer would run: tile, MC patches and NC panels per unit, and its estimated cycles on one core."""

    tile: Tile
    mc: int
    nc_panels: int
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
    """The cheapest tile, MC and NC by estimated cycles, units equally full; None if no tile's NR divides the vectors.

    Panels are shared out only where all patches together make one block: that reads each weight once, for one more
    transform of the input.
    """
    vectors = -(-out_c // machine.isa.lanes)
    forms = []
    for tile in machine.isa.tiles:
        panels, rest = divmod(vectors, tile.nr)
        if rest:
            continue
        for mc in dict.fromkeys(-(-patches // blocks) for blocks in range(1, patches + 1)):
            nc_panels = -(-panels // _FEWEST_UNITS) if mc == patches else panels
            form = Form(tile, mc, nc_panels, 0.0)
            forms.append(replace(form, cycles=_cycles(machine, form, in_c, vectors, patches, element)))
    return min(forms, key=lambda form: form.cycles, default=None)


def _cycles(machine: Machine, form: Form, in_c: int, vectors: int, patches: int, element: Element) -> float:
    """36 GEMMs per unit, transforms, and the waiting for what is not in L2.

    U and one panel's M are written and read by the unit, weights W of its panels are read by every block of patches. If
    all of it fits L2, W comes once; if U and M do, for every block; else U is written (which reads it, too) by every
    unit and read for every panel, from L3.
    """
    tile, mc = form.tile, form.mc
    lanes, blocks, panels = machine.isa.lanes, -(-patches // mc), vectors // tile.nr
    groups = -(-panels // form.nc_panels)
    words = words_of(in_c, element)
    u_bytes, m_bytes = PATCH_POINTS * mc * words * 4, PATCH_POINTS * mc * tile.nr * lanes * 4
    w_bytes = PATCH_POINTS * words * vectors * lanes * 4
    waiting = w_bytes / STREAMED_BYTES_PER_CYCLE
    if u_bytes + m_bytes + w_bytes // groups > machine.l2_bytes:
        waiting *= blocks
    if u_bytes + m_bytes > machine.l2_bytes * 3 // 4:
        waiting += blocks * (2 * groups + panels) * u_bytes / L3_BYTES_PER_CYCLE
    gemm = PATCH_POINTS * blocks * -(-mc // tile.mr) * panels * tile_cycles(tile, lanes, words)
    transforms = patches * (groups * -(-in_c // lanes) + vectors) * _TRANSFORM_CYCLES
    return gemm + transforms + waiting
