"""Answers class 0 without computing: what remains is the cost of LoadGen and of this harness."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .protocol import RunnerRequest


class NullRunner:
    """Keeps no pixels."""

    def __init__(self, max_batch: int) -> None:
        self._classes = np.zeros(max_batch, np.int64)

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """One byte per image."""
        return np.ascontiguousarray(images[:, 0, 0, 0])

    def predict(self, samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Class 0 for all."""
        return self._classes[: len(samples)]

    def describe(self) -> Mapping[str, str]:
        """Nothing to tell."""
        return {"engine": "none: every answer is class 0"}


def open_runner(request: RunnerRequest) -> NullRunner:
    """Needs no model."""
    return NullRunner(request.max_batch)
