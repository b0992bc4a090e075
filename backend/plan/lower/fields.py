"""Fields that many steps share: where operands lie, the halo, windows, loops over strides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from ...graph.ir import BATCH, Shape
from ..layout import Layout

ROW_UNIT_ELEMENTS: Final = 1 << 15
"""Elements, times taps, that a unit of a row-wise kernel should work through: some microseconds."""


def strides_y(layout: Layout) -> dict[str, int]:
    return {"y_image": layout.image, "y_row": layout.row, "y_pixel": layout.pixel, "y_channel": 1}


def strides_x(layout: Layout) -> dict[str, int]:
    return {"x_image": layout.image, "x_row": layout.row, "x_pixel": layout.pixel, "x_channel": 1}


def halo_fields(layout: Layout) -> dict[str, int]:
    """The frame around a picture, and what it holds."""
    top, left, bottom, right = layout.halo
    return {"halo_top": top, "halo_left": left, "halo_bottom": bottom, "halo_right": right, "zero": layout.zero}


def window_fields(
    x: Layout,
    y: Layout,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, ...],
) -> dict[str, int]:
    per_row = y.w * y.channels_stored * kernel[0] * kernel[1]
    return {
        "images": y.images,
        **strides_x(x),
        **strides_y(y),
        **halo_fields(y),
        "in_h": x.h,
        "in_w": x.w,
        "out_h": y.h,
        "out_w": y.w,
        "out_c": min(x.channels_stored, y.channels_stored),
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": strides[0],
        "stride_w": strides[1],
        "dilation_h": dilations[0],
        "dilation_w": dilations[1],
        "pad_top": pads[0],
        "pad_left": pads[1],
        "rows": max(1, ROW_UNIT_ELEMENTS // max(1, per_row)),
    }


_LOOPS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("image",),
    2: ("image", "channel"),
    3: ("image", "pixel", "channel"),
    4: ("image", "channel", "row", "pixel"),
}
"""Which loop runs over which logical axis of a value of so many axes."""

_SIZES: Final = {"outer": "outer", "row": "out_h", "pixel": "out_w", "channel": "out_c"}


def row_major_strides(shape: Shape) -> tuple[int, ...]:
    """Row-major strides; BATCH counts as any size, being in axis 0."""
    return tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))


def loop_fields(shape: Shape, batch_free: bool, **strides: tuple[int, ...]) -> dict[str, int]:
    """Sizes and strides of loops over `shape`. batch_free: axis 0 is the `outer` loop, and there is one image."""
    fields: dict[str, int] = {"images": 1, "outer": 1, "out_h": 1, "out_w": 1, "out_c": 1, "rows": 1}
    for axis, loop in enumerate(_LOOPS[len(shape)]):
        loop = "outer" if loop == "image" and batch_free else loop
        if loop == "image":
            fields["images"] = 1 if shape[0] == BATCH else shape[0]
        else:
            fields[_SIZES[loop]] = shape[axis]
        for operand, steps in strides.items():
            fields[f"{operand}_{loop}"] = steps[axis]
    return fields
