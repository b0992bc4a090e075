"""Op and layouts -> what conv_gemm is to compute for it: sizes, and the bytes that it reads. Pure.

Below the formulas: `segments.py` asks what a chunk would cost, `choose.py` chooses for it, `check.py` checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..graph.ir import Conv, Dense, Graph
from ..machine import Machine
from ..simd.element import Element
from .layout import Layout
from .pack import whole_words, words_of

_GROUP_PIXELS: Final = 512
"""Small pictures are tiled together, up to about this many pixels, so that the last tile's waste is shared: of 512
pixels it is at most 2 %. More only lengthens the tables of rows."""


@dataclass(frozen=True)
class GemmProblem:
    """What conv_gemm is to compute, for each group of a grouped convolution: K = taps x depth, N = vectors x lanes.

    images: most that a step works on at once. pixels: of one output picture. depth: in elements of type
    `element`. x_bytes: of one input picture, all channels, as far as it is read. y_element: of the output.
    """

    images: int
    pixels: int
    vectors: int
    taps: int
    depth: int
    element: Element
    x_bytes: int
    y_element: Element

    @property
    def words(self) -> int:
        """Words of depth of all taps."""
        return self.taps * words_of(self.depth, self.element)

    def weight_bytes(self, lanes: int) -> int:
        """Of one group's weights as packed, but for panels that are wider than what is left."""
        return 4 * self.words * self.vectors * lanes

    @property
    def group_images(self) -> int:
        """Images that should be tiled together: a divisor of all, as few as make up the pixels of a group."""
        most = min(self.images, _GROUP_PIXELS)
        return max(d for d in range(1, most + 1) if self.images % d == 0 and (d - 1) * self.pixels < _GROUP_PIXELS)

    @property
    def image_groups(self) -> int:
        """How often so many images are tiled together."""
        return self.images // self.group_images

    @property
    def group_pixels(self) -> int:
        """M of one group."""
        return self.group_images * self.pixels

    @property
    def group_x_bytes(self) -> int:
        """Of the input that a group reads."""
        return self.group_images * self.x_bytes


def gemm_problem(
    graph: Graph, layouts: Mapping[str, Layout], machine: Machine, op: Conv | Dense, chunk: int
) -> GemmProblem:
    """The problem that `lower_conv` or `lower_dense` gives to conv_gemm, for `chunk` units of batch at once."""
    x, y = layouts[op.x], layouts[op.output]
    shape = graph.values[op.weight].shape
    if isinstance(op, Dense):
        (depth, channels), taps = shape, 1
    elif row_is_one_tap(op, x):
        channels, taps, depth = shape[0], shape[2], shape[1] * shape[3]
    else:
        channels, taps, depth = shape[0] // op.group, shape[2] * shape[3], shape[1]
    vectors, depth = -(-channels // machine.isa.lanes), whole_words(depth, x.element)
    x_bytes = x.element.bytes * min(x.h * x.w * x.pixel, y.h * y.w * taps * depth)
    return GemmProblem(y.images * chunk, y.h * y.w, vectors, taps, depth, x.element, x_bytes, y.element)


def row_is_one_tap(op: Conv, x: Layout) -> bool:
    """Whether a row of the filter's window lies in one piece of x, so that implicit GEMM may take it as one tap."""
    return op.group == 1 and op.dilations[1] == 1 and x.pixel == x.c
