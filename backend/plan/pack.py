"""The buffers that steps point into: packed weights (float32) and offset tables (int32), filled while planning."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

ALIGN_BYTES: Final = 64
_ALIGN: Final = ALIGN_BYTES // 4
F32Array = npt.NDArray[np.float32]
I32Array = npt.NDArray[np.int32]


def aligned_zeros(elements: int) -> F32Array:
    """float32 zeros that start at a multiple of 64 bytes."""
    raw = np.zeros(elements + _ALIGN, np.float32)
    start = -raw.ctypes.data % ALIGN_BYTES // 4
    return raw[start : start + elements]


def pack_panels(taps_depth_channels: F32Array, first: int, panels: int, width: int) -> F32Array:
    """[taps, depth, channels] -> [panels, taps, depth, width], channels from `first` on, zeros past the last one."""
    taps, depth, channels = taps_depth_channels.shape
    packed = np.zeros((panels, taps, depth, width), np.float32)
    for panel in range(panels):
        begin = first + panel * width
        end = min(begin + width, channels)
        packed[panel, :, :, : end - begin] = taps_depth_channels[:, :, begin:end]
    return packed


class Buffers:
    """Weights in the order in which steps read them, and tables without repetition."""

    def __init__(self) -> None:
        self._weights: list[F32Array] = []
        self._weights_size = 0
        self._tables: list[I32Array] = []
        self._tables_size = 0
        self._table_offsets: dict[bytes, int] = {}

    def add_weights(self, array: F32Array) -> int:
        """Appends a flat copy at an aligned offset; returns the offset."""
        offset = self._weights_size
        padded = np.zeros(-(-array.size // _ALIGN) * _ALIGN, np.float32)
        padded[: array.size] = array.ravel()
        self._weights.append(padded)
        self._weights_size += padded.size
        return offset

    def add_table(self, entries: npt.NDArray[np.int64]) -> int:
        """Returns where these entries stand in the tables, appending them if they do not stand there yet.

        Raises: ModelError if an entry needs more than 32 bits (a picture of more than 8 GiB).
        """
        if entries.size and int(np.abs(entries).max()) > np.iinfo(np.int32).max:
            raise ModelError(
                f"a picture inside the model is too large: offset {int(np.abs(entries).max())} does not fit 32 bits"
            )
        table = entries.astype(np.int32)
        key = table.tobytes()
        if key not in self._table_offsets:
            self._table_offsets[key] = self._tables_size
            self._tables.append(table)
            self._tables_size += table.size
        return self._table_offsets[key]

    def weights(self) -> F32Array:
        """All weights in one aligned buffer; to be called once, at the end.

        Nothing lies behind the last panel, though kernels prefetch there: a prefetch neither faults nor writes.
        """
        buffer = aligned_zeros(self._weights_size)
        offset = 0
        for array in self._weights:
            buffer[offset : offset + array.size] = array
            offset += array.size
            array.resize(0, refcheck=False)  # its memory is let go of at once: the peak is one copy of the weights
        return buffer

    def tables(self) -> I32Array:
        """All tables in one array."""
        return np.concatenate([*self._tables, np.zeros(1, np.int32)])
