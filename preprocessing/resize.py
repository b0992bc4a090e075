"""OpenCV's `resize` for 8-bit pictures, bit for bit, in Numba, of the crop alone. `resize_plan` says what is computed.

Called by `imagenet` where Numba is installed; `resize_numpy` is the same function in NumPy.

No fastmath: reassociation or contraction would change bits. The jitted functions call nothing outside this file, so
that Numba's own cache, which watches one file, stays valid. They keep no state and release the GIL. Indices are
unsigned, which spares the inner loops Numba's test for negative ones.

May import: nothing of ours but `resize_plan`.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from .resize_plan import AreaMean, BlockMean, ResizePlan


def resize(source: npt.NDArray[np.uint8], plan: ResizePlan) -> npt.NDArray[np.uint8]:
    """Carry out a plan. source: the pixels `plan.source` of the picture, uint8 [H, W, 3], C-contiguous.

    Returns the window that the plan was made for, uint8 [h, w, 3].
    """
    rows = source.reshape(source.shape[0], -1)
    rows.flags.writeable = False  # Numba compiles anew for arrays that differ in this
    if isinstance(plan, BlockMean):
        out = np.empty((source.shape[0] // plan.rows, source.shape[1] // plan.columns, 3), np.uint8)
        _block_mean(rows, plan.rows, plan.columns, out)
        return out
    out = np.empty((len(plan.y.first), len(plan.x.first), 3), np.uint8)
    out_rows = out.reshape(out.shape[0], -1)
    if isinstance(plan, AreaMean):
        y, x = plan.y, plan.x
        _area_mean(rows, y.first, y.count, y.weights, x.first, x.count, x.weights, out_rows)
    else:
        _bilinear(rows, plan.y.first, plan.y.weights, plan.x.first, plan.x.weights, out_rows)
    return out


@numba.njit(cache=True, nogil=True)
def _block_mean(rows, block_rows, block_columns, out):  # type: ignore[no-untyped-def]
    """`resize_plan.BlockMean`. rows: uint8 [H, W * 3]; out: uint8 [h, w, 3]."""
    factor = np.float32(1.0) / np.float32(block_rows * block_columns)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for channel in range(3):
                total = 0
                for row in range(y * block_rows, (y + 1) * block_rows):
                    for column in range(x * block_columns, (x + 1) * block_columns):
                        total += np.int64(rows[row, 3 * column + channel])
                if block_rows == 2 and block_columns == 2:
                    out[y, x, channel] = (total + 2) >> 2
                else:
                    out[y, x, channel] = np.int32(np.rint(np.float32(total) * factor))


@numba.njit(cache=True, nogil=True)
def _area_mean(rows, y_first, y_count, y_weights, x_first, x_count, x_weights, out):  # type: ignore[no-untyped-def]
    """`resize_plan.AreaMean`. rows: uint8 [H, W * 3]; out: uint8 [h, w * 3].

    The weights of one mean add up to at most 1 + 1e-6, so no result rounds above 255.
    """
    width = out.shape[1]
    values = np.empty(rows.shape[1], np.float32)
    columns = np.empty(width, np.float32)
    total = np.empty(width, np.float32)
    held = np.uint64(rows.shape[0])  # the row that `columns` holds: at first, none
    for y in range(out.shape[0]):
        total[:] = np.float32(0.0)
        for k in range(y_count[y]):
            row = y_first[y] + k
            if row != held:  # the last row of one mean is often the first of the next
                held = row
                for i in range(values.shape[0]):
                    values[i] = np.float32(rows[row, i])
                _average_columns(values, x_first, x_count, x_weights, columns)
            weight = y_weights[y, k]
            for i in range(width):
                total[i] += weight * columns[i]
        for i in range(width):
            out[y, i] = np.int32(np.rint(total[i]))


@numba.njit(cache=True, nogil=True)
def _average_columns(values, x_first, x_count, x_weights, columns):  # type: ignore[no-untyped-def]
    """One row of means: values float32 [W * 3] of the source, columns float32 [w * 3] of the destination."""
    for x in range(np.uint64(x_first.shape[0])):
        i = np.uint64(3) * x_first[x]
        red, green, blue = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(x_count[x]):
            weight = x_weights[x, k]
            red += values[i] * weight
            green += values[i + np.uint64(1)] * weight
            blue += values[i + np.uint64(2)] * weight
            i += np.uint64(3)
        o = np.uint64(3) * x
        columns[o] = red
        columns[o + np.uint64(1)] = green
        columns[o + np.uint64(2)] = blue


@numba.njit(cache=True, nogil=True)
def _bilinear(rows, y_first, y_weights, x_first, x_weights, out):  # type: ignore[no-untyped-def]
    """`resize_plan.Bilinear`. rows: uint8 [H, W * 3]; out: uint8 [h, w * 3]."""
    width = out.shape[1]
    blended = np.empty((2, width), np.int32)  # row r lives in slot r % 2: neighbours never share one
    held = np.full(2, rows.shape[0], np.uint64)
    for y in range(out.shape[0]):
        for k in range(2):
            row = y_first[y, k]
            slot = row & np.uint64(1)
            if held[slot] != row:
                held[slot] = row
                _blend_columns(rows[row], x_first, x_weights, blended[slot])
        upper, lower = blended[y_first[y, 0] & np.uint64(1)], blended[y_first[y, 1] & np.uint64(1)]
        upper_weight, lower_weight = y_weights[y, 0], y_weights[y, 1]
        for i in range(width):
            from_upper = np.int32(np.int32(upper_weight * (upper[i] >> 4)) >> 16)
            from_lower = np.int32(np.int32(lower_weight * (lower[i] >> 4)) >> 16)
            out[y, i] = np.int32(from_upper + from_lower + np.int32(2)) >> 2


@numba.njit(cache=True, nogil=True)
def _blend_columns(row, x_first, x_weights, blended):  # type: ignore[no-untyped-def]
    """One row of sums in units of 2**-11: row uint8 [W * 3] of the source, blended int32 [w * 3]."""
    for x in range(np.uint64(x_first.shape[0])):
        left, right, o = np.uint64(3) * x_first[x, 0], np.uint64(3) * x_first[x, 1], np.uint64(3) * x
        left_weight, right_weight = x_weights[x, 0], x_weights[x, 1]
        for channel in range(np.uint64(3)):
            blended[o + channel] = (
                np.int32(row[left + channel]) * left_weight + np.int32(row[right + channel]) * right_weight
            )
