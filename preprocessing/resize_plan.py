"""What OpenCV's `resize` does with 8-bit pictures, as data: the code path it takes, source positions and weights.

OpenCV has three ways of making a picture, and all of them occur with ordinary photographs:

- block mean: both scales are whole numbers; integer block sums. INTER_AREA, and INTER_LINEAR when shrinking by 2 x 2.
- area mean: both scales >= 1; float32 averages, first over columns, then over rows. INTER_AREA.
- bilinear: everything else, in fixed point. INTER_AREA enlarging on either axis has source positions of its own.

Bits hang on the order of roundings: a scale is the double 1 / (dst / src), weights are rounded to float32 once.
Checked against OpenCV 4.10 to 5.0 by the tests; the fixed-point form is the one of OpenCV's 8-bit vector code.

A plan covers only what the crop needs, and says which part of the source that is; its positions count from there.
Carried out by `resize` (Numba) and `resize_numpy` (the twin), which differ in nothing but how they add up.
May import: nothing of ours but `spec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .spec import Interpolation, Window

WEIGHT_BITS: Final = 11
"""Fixed-point fraction of the bilinear weights (OpenCV's INTER_RESIZE_COEF_BITS)."""

_EDGE_EPSILON: Final = 1e-3
"""A partly covered source pixel counts only if more than this much of it is covered."""


@dataclass(frozen=True)
class BlockMean:
    """Destination (y, x) is the mean of the source block whose first pixel is (y * rows, x * columns).

    The integer sum is multiplied by float32(1 / (rows * columns)) and rounded half to even; 2 x 2 is (sum + 2) >> 2.
    """

    source: Window
    rows: int
    columns: int


@dataclass(frozen=True)
class AreaAxis:
    """One axis of an area mean: destination i is the sum over k < count[i] of weights[i, k] * source[first[i] + k].

    first, count: uintp [n]. weights: float32 [n, taps], zero from count[i] on.
    """

    first: npt.NDArray[np.uintp]
    count: npt.NDArray[np.uintp]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True)
class AreaMean:
    """Rows of averaged columns, all in float32 and added in ascending order; rounded half to even at the end."""

    source: Window
    y: AreaAxis
    x: AreaAxis


@dataclass(frozen=True)
class BilinearAxis:
    """One axis of a bilinear resize: destination i lies between source[first[i, 0]] and source[first[i, 1]].

    first: uintp [n, 2], inside the source. weights: int32 [n, 2] in units of 2**-WEIGHT_BITS.
    """

    first: npt.NDArray[np.uintp]
    weights: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Bilinear:
    """Columns exactly in int32; then, with h the two column sums of a pixel and b the two row weights,
    (((b0 * (h0 >> 4)) >> 16) + ((b1 * (h1 >> 4)) >> 16) + 2) >> 2."""

    source: Window
    y: BilinearAxis
    x: BilinearAxis


ResizePlan: TypeAlias = BlockMean | AreaMean | Bilinear


@lru_cache(maxsize=128)
def plan_resize(
    source: tuple[int, int], resized: tuple[int, int], window: Window, interpolation: Interpolation
) -> ResizePlan:
    """How OpenCV makes the pixels of `window` when it resizes a picture; sizes are (height, width), each >= 1.

    Remembered, because photographs come in few sizes and a plan takes half as long as the resize itself.
    """
    scale_y, scale_x = (1.0 / (new / old) for new, old in zip(resized, source, strict=True))
    rows, columns = round(scale_y), round(scale_x)
    epsilon = np.finfo(np.float64).eps
    whole = abs(scale_y - rows) < epsilon and abs(scale_x - columns) < epsilon
    shrinks = scale_y >= 1.0 and scale_x >= 1.0
    if whole and shrinks and (interpolation == "area" or rows == columns == 2):
        blocks = Window(window.top * rows, window.left * columns, window.height * rows, window.width * columns)
        return BlockMean(blocks, rows, columns)
    y = window.top + np.arange(window.height)
    x = window.left + np.arange(window.width)
    if interpolation == "area" and shrinks:
        top, height, y_area = _area_axis(y, source[0], scale_y)
        left, width, x_area = _area_axis(x, source[1], scale_x)
        return AreaMean(Window(top, left, height, width), y_area, x_area)
    if interpolation == "area":
        y_positions = _enlarging_positions(y, source[0], resized[0])
        x_positions = _enlarging_positions(x, source[1], resized[1])
    else:
        y_positions, x_positions = _linear_positions(y, scale_y), _linear_positions(x, scale_x)
    top, height, y_linear = _bilinear_axis(*y_positions, source[0])
    left, width, x_linear = _bilinear_axis(*_stop_at_ends(*x_positions, source[1]), source[1])
    return Bilinear(Window(top, left, height, width), y_linear, x_linear)


def _area_axis(destination: npt.NDArray[np.int64], size: int, scale: float) -> tuple[int, int, AreaAxis]:
    """Destination d covers the source from d * scale to (d + 1) * scale, cut off at the end of the picture.

    Returns the first source pixel used, the number of source pixels used, and the axis.
    """
    begin = destination * scale
    end = begin + scale
    covered = np.minimum(scale, size - begin)
    last = np.minimum(np.floor(end), size - 1)
    whole = np.minimum(np.ceil(begin), last)
    leading = whole - begin > _EDGE_EPSILON
    trailing = end - last > _EDGE_EPSILON
    first = whole - leading
    count = last + trailing - first
    source = first[:, np.newaxis] + np.arange(int(count.max()))
    weights = np.where(
        source < whole[:, np.newaxis],
        ((whole - begin) / covered)[:, np.newaxis],
        np.where(
            source < last[:, np.newaxis],
            (1.0 / covered)[:, np.newaxis],
            (np.minimum(np.minimum(end - last, 1.0), covered) / covered)[:, np.newaxis],
        ),
    )
    weights[source >= (first + count)[:, np.newaxis]] = 0.0
    start, stop = int(first[0]), int((first + count).max())
    axis = AreaAxis((first - start).astype(np.uintp), count.astype(np.uintp), weights.astype(np.float32))
    return start, stop - start, axis


_Positions: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""For each destination pixel the source pixel before it, possibly outside the picture, and the fraction beyond it."""


def _linear_positions(destination: npt.NDArray[np.int64], scale: float) -> _Positions:
    """INTER_LINEAR: pixel centres are mapped to pixel centres, in float32 from the first rounding on."""
    exact = ((destination + 0.5) * scale - 0.5).astype(np.float32)
    before = np.floor(exact)
    return before.astype(np.int64), exact - before


def _enlarging_positions(destination: npt.NDArray[np.int64], size: int, resized: int) -> _Positions:
    """INTER_AREA when it cannot average: a source pixel keeps its full colour over the area it covers alone."""
    inverse = resized / size
    before = np.floor(destination * (1.0 / inverse))
    fraction = ((destination + 1) - (before + 1) * inverse).astype(np.float32)
    fraction = np.where(fraction <= 0, np.float32(0.0), fraction - np.floor(fraction))
    return before.astype(np.int64), fraction


def _stop_at_ends(before: npt.NDArray[np.int64], fraction: npt.NDArray[np.float32], size: int) -> _Positions:
    """Horizontally OpenCV drops the fraction outside the picture; vertically it keeps it and repeats the end row."""
    outside = (before < 0) | (before >= size - 1)
    return np.clip(before, 0, size - 1), np.where(outside, np.float32(0.0), fraction)


def _bilinear_axis(
    before: npt.NDArray[np.int64], fraction: npt.NDArray[np.float32], size: int
) -> tuple[int, int, BilinearAxis]:
    """Returns the first source pixel used, the number of source pixels used, and the axis."""
    first = np.clip(np.stack([before, before + 1], axis=1), 0, size - 1)
    weights = np.stack([np.float32(1.0) - fraction, fraction], axis=1) * np.float32(1 << WEIGHT_BITS)
    start, stop = int(first.min()), int(first.max()) + 1
    return start, stop - start, BilinearAxis((first - start).astype(np.uintp), np.rint(weights).astype(np.int32))
