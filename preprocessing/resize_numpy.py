"""The NumPy twin of `resize`: the same function from the same plan, slower and plainer.

It is what the tests hold `resize` against, and what `imagenet` uses where Numba is not installed.
May import: nothing of ours but `resize_plan`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .resize_plan import AreaMean, Bilinear, BlockMean, ResizePlan


def resize(source: npt.NDArray[np.uint8], plan: ResizePlan) -> npt.NDArray[np.uint8]:
    """As `resize.resize`: the pixels `plan.source` of a picture, uint8 [H, W, 3], to the plan's window [h, w, 3]."""
    if isinstance(plan, BlockMean):
        return _block_mean(source, plan)
    if isinstance(plan, AreaMean):
        return _area_mean(source, plan)
    return _bilinear(source, plan)


def _block_mean(source: npt.NDArray[np.uint8], plan: BlockMean) -> npt.NDArray[np.uint8]:
    blocks = source.reshape(source.shape[0] // plan.rows, plan.rows, source.shape[1] // plan.columns, plan.columns, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.int64)
    if plan.rows == plan.columns == 2:
        return np.asarray((total + 2) >> 2, np.uint8)
    factor = np.float32(1.0) / np.float32(plan.rows * plan.columns)
    return np.asarray(np.rint(total.astype(np.float32) * factor), np.uint8)


def _area_mean(source: npt.NDArray[np.uint8], plan: AreaMean) -> npt.NDArray[np.uint8]:
    """Taps are added one by one, in ascending order; those beyond an axis's count weigh zero and change no bit."""
    last_row, last_column = source.shape[0] - 1, source.shape[1] - 1
    total = np.zeros((plan.y.first.size, plan.x.first.size, 3), np.float32)
    for i in range(plan.y.weights.shape[1]):
        rows = source[np.minimum(plan.y.first + np.uintp(i), last_row)]
        columns = np.zeros_like(total)
        for k in range(plan.x.weights.shape[1]):
            taps = rows[:, np.minimum(plan.x.first + np.uintp(k), last_column)].astype(np.float32)
            columns += taps * plan.x.weights[:, k, np.newaxis]
        total += plan.y.weights[:, i, np.newaxis, np.newaxis] * columns
    return np.rint(total).astype(np.uint8)


def _bilinear(source: npt.NDArray[np.uint8], plan: Bilinear) -> npt.NDArray[np.uint8]:
    def blend_columns(rows: npt.NDArray[np.uintp]) -> npt.NDArray[np.int32]:
        left, right = (source[rows][:, plan.x.first[:, side]].astype(np.int32) for side in range(2))
        return left * plan.x.weights[:, :1] + right * plan.x.weights[:, 1:]

    upper, lower = (
        (plan.y.weights[:, side, np.newaxis, np.newaxis] * (blend_columns(plan.y.first[:, side]) >> 4)) >> 16
        for side in range(2)
    )
    return ((upper + lower + 2) >> 2).astype(np.uint8)
