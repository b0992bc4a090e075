"""Do two engines compute the same thing? A bench of wrong results is worthless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from ..config import Precision
from ..errors import RunFailedError
from .messages import Array

LIMITS: Final[Mapping[Precision, float]] = {"fp32": 2e-4, "bf16": 0.1, "bf16-emulated": 0.1, "int8": 0.6}
"""Largest difference between two engines, as a share of the largest output, by the precision of ours.

fp32: they differ in the order of summation, and where ours computes 3x3 layers by Winograd's transforms, in some 1e-5
of the largest output of a layer. bfloat16 has 8 bits: some 2^-9 of every value, which dozens of layers add up to
percents. int8: engines that leave out a rounding in between, or round a tie the other way, differ by a step in some
values of each layer, and noise of unit variance is but a few steps of many models' input: half of the largest output
has been seen of a network of random weights. Another scale, zero point or padding gives outputs that have nothing in
common.
"""


def largest_difference(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The worst over all outputs: max |ours - theirs| / max |theirs|, for integers the share of elements that differ.

    NaN if there is one in either. Raises: RunFailedError if numbers or shapes of outputs differ.
    """
    shapes = [[array.shape for array in arrays] for arrays in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise RunFailedError(f"outputs have shapes {shapes[0]} and {shapes[1]}")
    return float(np.max([_difference(a, b) for a, b in zip(ours, theirs, strict=True)]))


def _difference(ours: Array, theirs: Array) -> float:
    if np.issubdtype(theirs.dtype, np.integer):
        return float(np.mean(ours != theirs))
    absolute = float(np.max(np.abs(ours.astype(np.float64) - theirs)))
    scale = float(np.max(np.abs(theirs)))
    return absolute / scale if scale else absolute


def check_agreement(ours: Sequence[Array], theirs: Sequence[Array], peer: str, precision: Precision) -> float:
    """The largest difference. Raises: RunFailedError if it is beyond the limit or not a number."""
    difference, limit = largest_difference(ours, theirs), LIMITS[precision]
    if not difference <= limit:
        raise RunFailedError(
            f"our outputs differ from {peer}'s by {difference:.3g} of the largest, more than {limit:g}: "
            "a bench of wrong results is worthless"
        )
    return difference
