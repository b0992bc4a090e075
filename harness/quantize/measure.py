"""What is said about a quantised model: SQNR, agreement, stability of ranges, spread of weights.

Both models run in onnxruntime, image by image, so that neither our kernels nor memory for all tensors of all images
matter. SQNR is 10 log10 of signal over noise power: 6 dB are a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import BadInputError
from .models import Activation, Layer, with_outputs

Floats = npt.NDArray[np.float32]

_LEVELS: Final = 127
COLLAPSED_LEVELS: Final = 8
"""A channel whose largest weight is stored as fewer steps than this has lost its shape."""


@dataclass(frozen=True)
class TensorReport:
    """One quantised activation: sqnr_db of its values as the quantised model has them, against float32."""

    tensor: str
    low: float
    high: float
    sqnr_db: float


@dataclass(frozen=True)
class Stability:
    """How far ranges differ from image to image.

    images: that were looked at. spread: standard deviation of a tensor's range over its mean, the median over all
    tensors. uncovered: share of tensors for which leaving out any one image would change the range by over 10 %; with
    one image nothing can be said: both are NaN.
    """

    images: int
    spread: float
    uncovered: float


@dataclass(frozen=True)
class WeightSpread:
    """Per-tensor weights of one layer: steps that the channel with the smallest weights is left with, of 127."""

    layer: str
    fewest_levels: float
    collapsed_channels: int
    channels: int


def open_session(model: Path | bytes) -> Any:
    """onnxruntime on the CPU, silent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadInputError(f"onnxruntime cannot load the model: {' '.join(str(error).split())}") from error


def measure_ranges(
    float_model: Path, tensors: Sequence[str], inputs: Sequence[dict[str, Floats]], progress: Callable[[int, int], None]
) -> Stability:
    """Runs the float32 model on each image and compares the ranges of tensors."""
    session = open_session(with_outputs(float_model, tensors).SerializeToString())
    names = list(dict.fromkeys(name for name in tensors if name not in {node.name for node in session.get_inputs()}))
    if not names:
        return Stability(len(inputs), math.nan, math.nan)
    lows, highs = np.empty((len(inputs), len(names))), np.empty((len(inputs), len(names)))
    for index, feed in enumerate(inputs):
        progress(index, len(inputs))
        for column, values in enumerate(session.run(names, feed)):
            lows[index, column], highs[index, column] = min(values.min(), 0.0), max(values.max(), 0.0)
    if len(inputs) < 2:
        return Stability(len(inputs), math.nan, math.nan)
    ranges = highs - lows
    spread = float(np.median(ranges.std(axis=0) / np.maximum(ranges.mean(axis=0), 1e-30)))
    whole = highs.max(axis=0) - lows.min(axis=0)
    shrunk = np.zeros(len(names))
    for index in range(len(inputs)):
        rest = np.arange(len(inputs)) != index
        left = highs[rest].max(axis=0) - lows[rest].min(axis=0)
        shrunk = np.maximum(shrunk, 1 - left / np.maximum(whole, 1e-30))
    return Stability(len(inputs), spread, float((shrunk > 0.1).mean()))


def measure_sqnr(
    float_model: Path,
    quantized_model: Path,
    activations: Sequence[Activation],
    inputs: Sequence[dict[str, Floats]],
    progress: Callable[[int, int], None],
) -> list[TensorReport]:
    """Both models on each image: what quantisation, of this tensor and of all before it, has done to each tensor."""
    inside = [a for a in activations if a.tensor not in inputs[0]]
    if not inside:
        return []
    ours = open_session(with_outputs(quantized_model, [a.dequantized for a in inside]).SerializeToString())
    theirs = open_session(with_outputs(float_model, [a.tensor for a in inside]).SerializeToString())
    signal, noise = np.zeros(len(inside)), np.zeros(len(inside))
    for index, feed in enumerate(inputs):
        progress(index, len(inputs))
        quantized = ours.run([a.dequantized for a in inside], feed)
        exact = theirs.run([a.tensor for a in inside], feed)
        for column, (q, x) in enumerate(zip(quantized, exact, strict=True)):
            signal[column] += float(np.square(x, dtype=np.float64).sum())
            noise[column] += float(np.square(q.astype(np.float64) - x).sum())
    return [
        TensorReport(a.tensor, a.low, a.high, _decibels(s, n)) for a, s, n in zip(inside, signal, noise, strict=True)
    ]


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def count_agreement(float_model: Path, quantized_model: Path, inputs: Sequence[dict[str, Floats]], output: str) -> int:
    """Images of which both models have the same largest output, the first of equal ones."""
    sessions = open_session(float_model), open_session(quantized_model)
    same = 0
    for feed in inputs:
        tops = [int(np.argmax(session.run([output], feed)[0])) for session in sessions]
        same += tops[0] == tops[1]
    return same


def weight_spread(layers: Sequence[Layer]) -> list[WeightSpread]:
    """What one scale per layer leaves of each layer's channels, the worst first."""
    found = []
    for layer in layers:
        largest = np.abs(layer.weight).reshape(len(layer.weight), -1).max(axis=1)
        levels = _LEVELS * largest[largest > 0] / max(float(largest.max()), 1e-30)
        if levels.size:
            collapsed = int((levels < COLLAPSED_LEVELS).sum())
            found.append(WeightSpread(layer.name, float(levels.min()), collapsed, len(largest)))
    return sorted(found, key=lambda spread: spread.fewest_levels)
