"""The record that tells a kernel everything: one per step of a plan, numbers only.

Offsets, pitches and sizes are in elements of the operand they belong to, whose type the kernel's key names. `weight`,
`bias`, `signed_bias`, `zeros`, `panel` and scratch memory are in words of four bytes, tables in int32.
A picture lies in the arena as N H W C, channels innermost and padded with lanes that hold zeros or leftovers
that nobody reads, with `*_row` elements from a row to the next (more than a row's pixels if there is a halo of
zeros around the picture) and `*_image` from an image to the next. An offset points at the first pixel inside.

A step's work is cut into units that threads share out; which unit a thread gets never changes a result. An operand in
scratch memory is there once per worker, `x_worker` or `y_worker` elements apart; only the kernels of chains look there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..simd.element import ALL_FLOAT32, BFLOAT16, Element, Operands
from ..simd.isa import Tile

KernelName: TypeAlias = Literal[
    "import_f32",
    "import_runs",
    "import_planes_3",
    "import_u8",
    "export",
    "export_runs",
    "conv_gemm",
    "conv_winograd",
    "depthwise",
    "depthwise_3x3",
    "depthwise_u8",
    "depthwise_3x3_u8",
    "quantize",
    "dequantize",
    "quantized_add",
    "quantized_average",
    "max_pool_u8",
    "max_pool",
    "average_pool",
    "global_average",
    "affine",
    "copy",
    "fill",
    "binary",
    "mean",
    "softmax",
    "argmax",
]


@dataclass(frozen=True)
class KernelKey:
    """A kernel as a plan names it: element types of its operands, and a tile if it is a convolution's, but for the
    general depthwise one."""

    name: KernelName
    tile: Tile | None = None
    operands: Operands = ALL_FLOAT32

    def __str__(self) -> str:
        types = "" if self.operands == ALL_FLOAT32 else str(self.operands)
        return "_".join([self.name, *([] if self.tile is None else [str(self.tile)]), *([types] if types else [])])


PATCH_OUT: Final = 4
"""Output pixels of a Winograd patch per axis."""

PATCH_POINTS: Final = 36
"""Points of a Winograd patch: (4 + 3 - 1) squared."""


def interpolation_points(element: Element) -> tuple[float, float]:
    """(a, b): Winograd's F(4x4, 3x3) is evaluated at 0, a, -a, b, -b and infinity for operands of that type.

    Lavin and Gray's 1 and 2 need fewest multiplications. For bfloat16, where each transformed value is rounded to 8
    bits, that would make results 10 times less exact than the plain sum; 5/8 and 3/2 halve that. They are the best of
    the multiples of 1/8 on normally distributed data (how points decide about errors: Barabasz, Anderson, Soodhalter
    and Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
    """
    return (0.625, 1.5) if element == BFLOAT16 else (1.0, 2.0)


GEMM_UNITS, PATCH_UNITS, ROW_UNITS, IMAGE_UNITS, CHAIN_UNITS = range(5)

COUNTER_PITCH: Final = 8
"""int64 per counter of a team: a cache line each, so that participants do not disturb each other."""


def counters_for(steps: int, threads: int) -> npt.NDArray[np.int64]:
    """A team's counters: per step, the next unit of each participant's share and the units done."""
    return np.zeros(steps * (threads + 1) * COUNTER_PITCH, np.int64)


def unit_kind(name: KernelName) -> int:
    """How a kernel's work is cut into units: by blocks of the GEMM, Winograd patches, output rows or images."""
    if name == "conv_gemm":
        return GEMM_UNITS
    if name == "conv_winograd":
        return PATCH_UNITS
    if name in (
        "import_f32",
        "import_runs",
        "import_planes_3",
        "import_u8",
        "depthwise",
        "depthwise_3x3",
        "depthwise_u8",
        "depthwise_3x3_u8",
        "quantize",
        "dequantize",
        "quantized_add",
        "quantized_average",
        "max_pool_u8",
        "max_pool",
        "average_pool",
        "global_average",
        "affine",
    ):
        return ROW_UNITS
    return IMAGE_UNITS


INNER: Final = 1
CLIP: Final = 2
"""Stages of requantisation that not every step has: rounding before b is added, clipping. See requantize.py."""

NUMBERS: Final = ("low", "high", "zero", "inner_low", "inner_high", "inner_scale", "b_zero", "b_scale")
"""What requantize.py reads among the weights, in this order, at a step's `numbers`."""


def unpacked_channels(channels: int) -> list[int]:
    """The channels of a block, a multiple of 16, in the order in which depthwise_3x3_u8 has them in four vectors."""
    parts = range(0, channels, 16)
    return [part + 4 * vector + index for vector in range(4) for part in parts for index in range(4)]


STEP: Final = np.dtype(
    [
        ("kernel", np.int64),  # index into the plan's kernels
        ("unit_kind", np.int64),  # how its work is cut: GEMM_UNITS and so on
        ("images", np.int64),  # images per unit of batch: 1 if the value is batched, else its fixed axis 0
        ("first", np.int64),  # the step runs units of batch [first, first + chunk)
        ("chunk", np.int64),
        # where operands lie: x and y; b is the second operand (a convolution's residual)
        ("x", np.int64),
        ("x_image", np.int64),
        ("x_outer", np.int64),
        ("x_row", np.int64),
        ("x_pixel", np.int64),
        ("x_channel", np.int64),
        ("x_axis", np.int64),
        ("y", np.int64),
        ("y_image", np.int64),
        ("y_outer", np.int64),
        ("y_row", np.int64),
        ("y_pixel", np.int64),
        ("y_channel", np.int64),
        ("y_axis", np.int64),
        # from one worker's x, or y, to the next one's, where they lie in scratch memory; else 0
        ("x_worker", np.int64),
        ("y_worker", np.int64),
        ("b", np.int64),
        ("b_image", np.int64),
        ("b_outer", np.int64),
        ("b_row", np.int64),
        ("b_pixel", np.int64),
        ("b_channel", np.int64),
        ("has_b", np.int64),
        ("weight", np.int64),
        ("bias", np.int64),
        ("signed_bias", np.int64),  # in place of bias where bytes of x are multiplied less 128 (`Isa.signed_dots`)
        # sizes; outer is one more loop for kernels over strides, length the axis that is reduced, or a run
        ("outer", np.int64),
        ("length", np.int64),
        ("in_h", np.int64),
        ("in_w", np.int64),
        ("in_c", np.int64),
        ("out_h", np.int64),
        ("out_w", np.int64),
        ("out_c", np.int64),
        ("kernel_h", np.int64),
        ("kernel_w", np.int64),
        ("stride_h", np.int64),
        ("stride_w", np.int64),
        ("dilation_h", np.int64),
        ("dilation_w", np.int64),
        ("pad_top", np.int64),
        ("pad_left", np.int64),
        # halo of zeros that the writer of y keeps around it, in pixels
        ("halo_top", np.int64),
        ("halo_left", np.int64),
        ("halo_bottom", np.int64),
        ("halo_right", np.int64),
        # implicit GEMM
        ("group_images", np.int64),  # images that one set of row tables covers
        ("x_rows", np.int64),  # tables: offset of each output pixel's window, from the first image of its group
        ("y_rows", np.int64),
        ("b_rows", np.int64),
        ("taps", np.int64),  # tables: offset of each tap from a window's start
        ("tap_count", np.int64),
        ("depth", np.int64),  # contiguous elements of x per tap
        ("panels", np.int64),
        ("panel", np.int64),  # words of one packed panel
        ("mc", np.int64),  # output pixels (Winograd: patches) per unit
        ("nc_panels", np.int64),  # panels per unit
        # K is not cut if pixels are outside
        ("kc_taps", np.int64),  # taps per pc block
        ("kc_depth", np.int64),  # depth per pc block (less than depth only if kc_taps is 1)
        ("panels_outside", np.int64),  # loop order inside a unit: panels outside, pixels inside
        # memory of each worker's own, and zeros among the weights
        ("scratch", np.int64),
        ("scratch_size", np.int64),
        ("zeros", np.int64),
        # a chain: instead of a kernel it runs other steps, its links, unit by unit; see plan/chains.py
        ("parts", np.int64),  # units
        ("link", np.int64),  # index of its first link among the steps
        ("part_links", np.int64),  # tables: where the links of each part begin, and those of the last end, from `link`
        # everything else
        ("rows", np.int64),  # output rows per unit, of kernels that go row by row
        ("option", np.int64),  # meaning is the kernel's
        ("io", np.int64),  # which of the caller's arrays
        ("low", np.float32),
        ("high", np.float32),
        # quantised results: see requantize.py
        ("scale", np.int64),  # weights: float32 per channel
        ("numbers", np.int64),  # weights: NUMBERS
        ("stages", np.int64),  # INNER, CLIP
        ("zero", np.float32),  # what the halo of y holds
    ],
    align=True,
)
