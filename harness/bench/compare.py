"""Do two engines compute the same thing? A bench of wrong results is worthless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import RunFailedError
from .messages import Array

if TYPE_CHECKING:
    from backend import QuantizedEnds

LIMITS: Final[Mapping[str, float]] = {"fp32": 2e-4, "bf16": 0.1, "bf16-emulated": 0.1}
"""Largest difference between two engines, as a share of the largest output, by the precision of ours.

fp32: they differ in the order of summation, and where ours computes 3x3 layers by Winograd's transforms, in some 1e-5
of the largest output of a layer. bfloat16 has 8 bits: some 2^-9 of every value, which dozens of layers add up to
percents.
"""

STEPS: Final = 8
PROBABILITY_STEPS: Final = 32
"""Largest difference between two engines of an output of a quantised model, in its own steps.

Engines that leave out a rounding in between, or round a tie the other way, differ by a step in some values of each
layer, and each layer averages over many. Of ResNet50 and MobileNetV2, quantised in four ways, on numbers spread over
the range of the input, onnxruntime, OpenVINO and ours differ by at most 3 steps of 256 in scores. A probability p
changes by p (1 - p) <= 1/4 times the change of a score: by up to 31 steps of 1/256 where four steps of a score are
0.5; 12 have been seen. Another scale, zero point or padding moves outputs by a good part of their range.
"""

_LEVELS: Final = 255
"""Where an output of a quantised model is not itself quantised, its step is taken to be that share of its span."""


_SLACK: Final = 1.0001
"""Whole steps are whole up to the rounding of float32."""


@dataclass(frozen=True)
class Difference:
    """Of a peer's outputs from ours, the worst over all outputs.

    share: max |ours - theirs| / max |theirs|, for indices the share of elements that differ. steps: for a quantised
    model max |ours - theirs| / step. Of a quantised model, indices are not compared, which change where two scores are
    all but equal; both are None if it has no other output.
    """

    share: float | None
    steps: float | None = None


def check_agreement(
    ours: Sequence[Array], theirs: Sequence[Array], peer: str, precision: str, ends: QuantizedEnds | None
) -> Difference:
    """How far a peer's outputs are from ours, both in model order.

    precision: of ours. ends: of a quantised model, else None.

    Raises: RunFailedError if an output is beyond its limit or holds what is not a number, or if numbers or shapes of
    outputs differ.
    """
    shapes = [[array.shape for array in arrays] for arrays in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise RunFailedError(f"outputs have shapes {shapes[0]} and {shapes[1]}")
    if ends is None:
        share = float(np.max([_share(a, b) for a, b in zip(ours, theirs, strict=True)]))
        _refuse_beyond(LIMITS[precision], share, "of the largest", peer)
        return Difference(share)
    shares, steps = [], []
    for name, a, b in zip(ends.outputs, ours, theirs, strict=True):
        if _is_integer(b) and name not in ends.output_steps:
            continue
        shares.append(_share(a, b))
        steps.append(_distance(a, b) / _step(name, b, ends))
        limit = PROBABILITY_STEPS if name in ends.probabilities else STEPS
        _refuse_beyond(limit, steps[-1], f"steps of the quantisation of {name!r}", peer)
    return Difference(max(shares), max(steps)) if steps else Difference(None)


def _refuse_beyond(limit: float, found: float, unit: str, peer: str) -> None:
    if not found <= limit * _SLACK:
        raise RunFailedError(
            f"our outputs differ from {peer}'s by {found:.3g} {unit}, more than {limit:g}: "
            "a bench of wrong results is worthless"
        )


def _is_integer(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.integer))


def _share(ours: Array, theirs: Array) -> float:
    if theirs.dtype.itemsize > 1 and _is_integer(theirs):
        return float(np.mean(ours != theirs))
    distance, scale = _distance(ours, theirs), float(np.max(np.abs(theirs)))
    return distance / scale if scale else distance


def _distance(ours: Array, theirs: Array) -> float:
    return float(np.max(np.abs(ours.astype(np.float64) - theirs)))


def _step(name: str, output: Array, ends: QuantizedEnds) -> float:
    stated = ends.output_steps.get(name)
    if stated is not None:
        return stated
    span = 1.0 if name in ends.probabilities else float(np.ptp(output))
    return span / _LEVELS if span else 1.0
