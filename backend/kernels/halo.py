"""The frame of zeros around a stored picture (of zero points, if it is quantised), written by whichever kernel writes
the picture.

A convolution reads its padding from this halo, so its inner loop has no branch. The arena is reused between
steps; hence the writer clears the halo in every run.
"""

from __future__ import annotations

from typing import Any

from ..simd.memory import fill_y
from .jit import jit


@jit
def zero_halo(tag: Any, arena: Any, step: Any, begin: int, end: int, worker: int) -> None:
    """Clears the halo beside the output pixels [begin, end), counted over all images in N OH OW order.

    The pixel that starts a row stands for the row's left and right halo, the first row of an image for the top,
    the last for the bottom; so units that cover all pixels clear every halo once.
    """
    if step.halo_top + step.halo_left + step.halo_bottom + step.halo_right == 0:
        return
    first_row = (begin + step.out_w - 1) // step.out_w
    last_row = (end + step.out_w - 1) // step.out_w
    zero = step.zero
    left = step.halo_left * step.y_pixel
    right = step.halo_right * step.y_pixel
    for row in range(first_row, last_row):
        image, oh = divmod(row, step.out_h)
        start = step.y + worker * step.y_worker + image * step.y_image + oh * step.y_row
        stop = start + step.out_w * step.y_pixel
        top = step.halo_top * step.y_row if oh == 0 else 0
        bottom = step.halo_bottom * step.y_row if oh == step.out_h - 1 else 0
        fill_y(tag, arena, start - top - left, start, zero)
        fill_y(tag, arena, stop, stop + bottom + right, zero)
