"""The query sample library: LoadGen's load and unload over an opened store, and batches out of what is loaded.

What `load` does is untimed, so samples are brought into the form the backend wants there (`prepare`).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_NOTHING: Final[npt.NDArray[Any]] = np.empty((0,), np.uint8)
"""In place of samples that are not loaded; an empty view of them would keep them all in RAM."""


_IMAGES_AT_A_TIME: Final = 64
"""Copied out of the store before its pages are let go of again: some 10 MB at the usual size."""


class SampleLibrary:
    """Loaded samples in RAM, first axis the sample, in the order in which LoadGen asked for them."""

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        prepare: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]],
    ) -> None:
        """images: uint8 [total, H, W, 3], may be memory-mapped. prepare: n images -> array with n on its first axis."""
        self._images = images
        self._prepare = prepare
        self._slot_of: dict[int, int] = {}
        self._samples = _NOTHING

    def load(self, indices: Sequence[int]) -> None:
        """Load samples in this order; an index that occurs twice is loaded once."""
        unique = list(dict.fromkeys(indices))
        self._samples = self._prepare(_copy(self._images, unique))
        self._slot_of = {index: slot for slot, index in enumerate(unique)}

    def unload(self, _indices: Sequence[int]) -> None:
        """Forget all samples: LoadGen unloads whole sets only."""
        self._slot_of = {}
        self._samples = _NOTHING

    def gather(self, indices: Sequence[int]) -> npt.NDArray[Any]:
        """The samples of a batch: a view if they lie side by side, which in Offline is the rule, else a copy."""
        slots = [self._slot_of[index] for index in indices]
        first, count = slots[0], len(slots)
        if count == 1 or slots == list(range(first, first + count)):
            return self._samples[first : first + count]
        return np.take(self._samples, slots, axis=0)


def _copy(images: npt.NDArray[np.uint8], indices: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Images in this order, in RAM once: pages of a memory-mapped store would count as this process's memory too."""
    copy = np.empty((len(indices), *images.shape[1:]), np.uint8)
    mapping: object = images.base
    for start in range(0, len(indices), _IMAGES_AT_A_TIME):
        chosen = indices[start : start + _IMAGES_AT_A_TIME]
        copy[start : start + len(chosen)] = images[np.asarray(chosen, np.int64)]
        if isinstance(mapping, mmap.mmap):
            mapping.madvise(mmap.MADV_DONTNEED)
    return copy
