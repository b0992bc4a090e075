"""conv_gemm: every ordinary convolution and dense layer, as implicit GEMM in BLIS's loops.

M = output pixels, N = output channels, K = taps x depth. Nothing is copied: the micro-kernel reads windows of the
picture through a table of row offsets, and the halo around the picture holds the padding. Weights come packed in
panels of NR vectors, [panel][tap][word of depth][NR * lanes][element of the word], one after the other, so that the
next panel is the next memory and can be prefetched past a step's end. (A word holds one float32 or two bfloat16; the
last word of a tap is filled up with zeros.)

    unit  jc, ic: cut N (nc_panels) and M (mc); units are what threads share out
    pc    cuts K (kc_taps, kc_depth) so that a block of a panel and its successor fit L2
    jr    a panel of NR vectors
    ir    a tile of MR pixels

Where K is cut, sums of float32 wait for the next block in y if that is float32, else in the worker's scratch memory.

Two orders inside a unit, chosen by the planner: pixels outside if all weights of the step stay in L2 (each pixel
is then read once, and K is not cut), otherwise panels outside (each panel is then read once from memory). Both are one
nest of loops, over one panel at a time or all of them together: the tile is most of what is compiled, and is in it
once.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..simd.tags import mr_of, sums_are_y, width_of, x_is_signed, x_per_word
from .gemm_tile import UNROLL, gemm_tile
from .halo import zero_halo
from .jit import jit

_INFINITY: Final = np.float32(np.inf)


@jit
def _pixel_blocks(step: Any, images: int) -> tuple[int, int]:
    """(blocks of mc pixels in a full group, blocks in all groups)."""
    pixels = step.out_h * step.out_w
    group = step.group_images * pixels
    per_group = (group + step.mc - 1) // step.mc
    groups = images // step.group_images
    rest = (images - groups * step.group_images) * pixels
    return per_group, groups * per_group + (rest + step.mc - 1) // step.mc


@jit
def conv_gemm_units(step: Any, images: int) -> int:
    """Units of a step for so many images."""
    _, blocks = _pixel_blocks(step, images)
    return blocks * ((step.panels + step.nc_panels - 1) // step.nc_panels)


@jit
def conv_gemm(
    tile: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """One unit: mc output pixels (within one group of images) x nc_panels panels of output channels."""
    mr = mr_of(tile)
    width = width_of(tile)
    blocks_per_group, blocks = _pixel_blocks(step, images)
    jc, ic = divmod(unit, blocks)  # neighbouring units share their panels
    group, block = divmod(ic, blocks_per_group)
    image0 = group * step.group_images
    group_pixels = min(step.group_images, images - image0) * step.out_h * step.out_w
    m_begin = block * step.mc
    m_end = min(m_begin + step.mc, group_pixels)
    panel_begin = jc * step.nc_panels
    panel_end = min(panel_begin + step.nc_panels, step.panels)
    x = step.x + worker * step.x_worker + image0 * step.x_image
    y = step.y + worker * step.y_worker + image0 * step.y_image
    residual = step.b + image0 * step.b_image
    bias = step.signed_bias if x_is_signed(tile) else step.bias

    per_word = x_per_word(tile)
    sums = step.scratch + worker * step.scratch_size
    tiles = (group_pixels + mr - 1) // mr
    together = 1 if step.panels_outside else panel_end - panel_begin
    for jr in range(panel_begin, panel_end, together):
        w_block = step.weight
        for tap in range(0, step.tap_count, step.kc_taps):
            taps = min(step.kc_taps, step.tap_count - tap)
            for k in range(0, step.depth, step.kc_depth):
                depth = min(step.kc_depth, step.depth - k)
                block_size = taps * ((depth + per_word - 1) // per_word) * width
                first = tap + k == 0
                last = tap + taps == step.tap_count and k + depth == step.depth
                has_b, low, high = step.has_b, step.low, step.high
                # Parts of K end as the last does: a second end in the tile costs layers of depth 16 to 32 2 % (AVX512).
                if sums_are_y(tile) and not last:
                    has_b, low, high = 0, -_INFINITY, _INFINITY
                ahead = prefetch = prefetch_step = 0
                if step.panels_outside:
                    ahead, prefetch_step = block_size // tiles, UNROLL * width // tiles
                    prefetch = block_size + m_begin // mr * ahead
                for m in range(m_begin, m_end, mr):
                    for panel in range(jr, jr + together):
                        n = panel * width
                        w = w_block + panel * step.panel
                        gemm_tile(
                            tile, arena, weights, tables,
                            x + k, step.x_rows + m, w, step.taps + tap, taps, depth,
                            y + n, step.y_rows + m, bias + n,
                            sums + (m - m_begin) * width, residual + n, step.b_rows + m, has_b,
                            first, sums_are_y(tile) or last, low, high, step.scale + n, step.numbers, step.stages,
                            w + prefetch, prefetch_step,
                        )  # fmt: skip
                    prefetch += ahead
                w_block += block_size
    if jc == 0:
        pixels = step.out_h * step.out_w
        zero_halo(tile, arena, step, image0 * pixels + m_begin, image0 * pixels + m_end, worker)
