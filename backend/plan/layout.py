"""How a value lies in memory: N H W C with channels innermost, padded to whole vectors, and a halo of zeros.

Values of fewer axes are pictures too: [N, A, B] is one row of A pixels with B channels, [N, K] is one pixel, [N] is
one pixel with one channel. Axis 0 always counts images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import ModelError
from ..graph.ir import BATCH, Pads, Value
from ..simd.element import FLOAT32, Element

_CROWDED_BYTES: Final = 2048
_SPREAD_BYTES: Final = 64
"""Pixels of a multiple of so many bytes get so many more between them."""

NO_HALO: Pads = (0, 0, 0, 0)


@dataclass(frozen=True)
class Layout:
    """Sizes and pitches of one value, in elements. images: per unit of batch. channels_stored >= c.

    zero: what stands for the number 0 in memory: a quantised value's zero point as stored. The halo holds it.
    """

    images: int
    h: int
    w: int
    c: int
    channels_stored: int
    halo: Pads
    rank: int
    element: Element = FLOAT32
    zero: int = 0

    @property
    def pixel(self) -> int:
        """From one pixel to the next: never a multiple of 2 KiB, whose cache lines fall into the same few sets."""
        crowded = self.h * self.w > 1 and self.channels_stored * self.element.bytes % _CROWDED_BYTES == 0
        return self.channels_stored + (_SPREAD_BYTES // self.element.bytes if crowded else 0)

    @property
    def row(self) -> int:
        return (self.w + self.halo[1] + self.halo[3]) * self.pixel

    @property
    def image(self) -> int:
        return (self.h + self.halo[0] + self.halo[2]) * self.row

    @property
    def inside(self) -> int:
        """From the start of an image's memory to its first pixel inside the halo."""
        return self.halo[0] * self.row + self.halo[1] * self.pixel

    @property
    def image_bytes(self) -> int:
        """Memory of an image, halo and padding included."""
        return self.image * self.element.bytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next along each logical axis, axis 0 first."""
        return {
            1: (self.image,),
            2: (self.image, 1),
            3: (self.image, self.pixel, 1),
            4: (self.image, 1, self.row, self.pixel),
        }[self.rank]


def layout_of(
    value: Value,
    halo: Pads,
    lanes: int,
    pad_channels: bool,
    reach: int = 0,
    element: Element = FLOAT32,
    zero: int = 0,
) -> Layout:
    """The layout of a value; channels are padded to whole vectors of `lanes` if asked, and up to `reach` at least.

    Raises: ModelError for more than four axes or none.
    """
    shape = value.shape
    if not 1 <= len(shape) <= 4:
        raise ModelError(f"value {value.name!r} has {len(shape)} axes {shape}: one to four can be run")
    images = 1 if shape[0] == BATCH else shape[0]
    if len(shape) == 4:
        h, w, c = shape[2], shape[3], shape[1]
    else:
        h, w, c = (1, 1, 1, *shape[1:])[-3:]
    stored = -(-max(c, reach) // lanes) * lanes if pad_channels else c
    return Layout(images, h, w, c, stored, halo, len(shape), element, zero)
