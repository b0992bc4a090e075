"""The buffers that steps point into: packed weights (words of four bytes) and offset tables (int32), filled while
planning."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..graph.ir import Quantization
from ..simd.element import FLOAT32, INT8_OFFSET, UINT8, Element, to_element

ALIGN_WORDS: Final = 16
"""Words of four bytes in a line of the cache, which is also the widest vector."""

F32Array = npt.NDArray[np.float32]
Packed = F32Array | npt.NDArray[np.uint16] | npt.NDArray[np.int8]
I32Array = npt.NDArray[np.int32]


def aligned(words: int) -> int:
    """The next multiple of `ALIGN_WORDS`."""
    return -(-words // ALIGN_WORDS) * ALIGN_WORDS


def aligned_zeros(words: int) -> F32Array:
    """Words of zeros, float32 to NumPy, that start at a multiple of 64 bytes."""
    raw = np.zeros(words + ALIGN_WORDS, np.float32)
    start = -(raw.ctypes.data // 4) % ALIGN_WORDS
    return raw[start : start + words]


def words_of(depth: int, element: Element) -> int:
    """Words that so many consecutive elements fill, the last one with zeros."""
    return -(-depth // element.per_word)


def words_to_hold(count: int, element: Element) -> int:
    """Of memory for so many elements that convolutions read: of bytes four from any one on, so up to three behind the
    last."""
    return words_of(count, element) + (1 if element == UINT8 else 0)


def whole_words(depth: int, element: Element) -> int:
    """The depth that kernels run through: bytes are filled up with weights of zero, whatever x holds there."""
    return words_of(depth, element) * element.per_word if element == UINT8 else depth


def pack_panels(
    taps_depth_channels: F32Array, first: int, panels: int, width: int, element: Element = FLOAT32
) -> Packed:
    """[taps, depth, channels] -> [panels, taps, words of depth, width, elements of a word], float32 to `element`.

    Where x is UINT8, to int8.

    Channels from `first` on, zeros past the last one and behind the last depth.
    """
    taps, depth, channels = taps_depth_channels.shape
    words, per_word = words_of(depth, element), element.per_word
    packed = np.zeros((panels, taps, words * per_word, width), np.float32)
    for panel in range(panels):
        begin = first + panel * width
        end = min(begin + width, channels)
        packed[panel, :, :depth, : end - begin] = taps_depth_channels[:, :, begin:end]
    if per_word == 1:
        return to_element(packed, element)
    by_word = np.ascontiguousarray(packed.reshape(panels, taps, words, per_word, width).swapaxes(3, 4))
    return by_word.astype(np.int8) if element == UINT8 else to_element(by_word, element)


def stored_bytes(x: F32Array, quantization: Quantization) -> npt.NDArray[np.uint8]:
    """What a value with this quantisation, one scale for all, has in memory for numbers: `ir.Quantize`, as UINT8.

    A NaN becomes the lowest value.
    """
    zero = quantization.zero_point[0] + (INT8_OFFSET if quantization.dtype == "int8" else 0)
    with np.errstate(over="ignore"):
        steps = np.rint(x / np.float32(quantization.scale[0]))
    steps = np.where(np.isnan(steps), -zero, np.clip(steps, -zero, 255 - zero))
    return np.asarray((steps + zero).astype(np.uint8))


class Buffers:
    """Weights in the order in which steps read them, and tables without repetition."""

    def __init__(self) -> None:
        self._weights: list[tuple[int, npt.NDArray[np.uint8]]] = []
        self._weights_size = 0
        self._tables: list[I32Array] = []
        self._tables_size = 0
        self._table_offsets: dict[bytes, int] = {}

    def add_weights(self, array: npt.NDArray[Any]) -> int:
        """Appends an array of any type at an aligned offset; returns the offset in words. It is not to change after."""
        offset = self._weights_size
        self._weights.append((offset, np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
        self._weights_size += aligned(-(-array.nbytes // 4))
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
        places = buffer.view(np.uint8)
        waiting = self._weights[::-1]
        del self._weights
        while waiting:  # an array's memory is let go of at once: the peak is little more than one copy
            offset, array = waiting.pop()
            places[4 * offset : 4 * offset + array.size] = array
        return buffer

    def tables(self) -> I32Array:
        """All tables in one array."""
        return np.concatenate([*self._tables, np.zeros(1, np.int32)])
