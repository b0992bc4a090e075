"""From a seed to a model that classifies the demo images: calibration of the backbone, then a fit of the last layer.

Nothing is trained by gradients. The BatchNormalization statistics are measured in one pass of a few images through
the random backbone, stage by stage in float64; the last layer is ridge regression in closed form on features that
our own engine computes from images that went through JPEG and the ImageNet recipe, as those of a run do.

Same seed, same ISA, same bytes: the engine's bits depend on neither threads nor timing, and what NumPy's BLAS adds
(whose order of summation may depend on both) is float64 and rounded to 12 bits. Called by `assets`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.stride_tricks import sliding_window_view

from backend import InferenceSession, PixelInput, detect
from backend.kernels.jit import target_isa
from preprocessing import IMAGENET
from preprocessing.imagenet import preprocess_bytes

from ..progress import Progress
from . import images
from .images import CLASSES, Split
from .model import (
    EPSILON,
    FEATURE_COUNT,
    INPUT,
    OUTPUT_CLASSES,
    ChannelStatistics,
    ConvLayer,
    Head,
    backbone,
    build_model,
)

F64Array: TypeAlias = npt.NDArray[np.float64]
U8Array: TypeAlias = npt.NDArray[np.uint8]
Features: TypeAlias = Callable[[U8Array], npt.NDArray[np.float32]]
"""uint8 [N, 224, 224, 3] -> float32 [N, 2048]."""

_CALIBRATION_SIDE: Final = 96
"""Pixels of the central crop that statistics are measured on: a fifth of the work of 224, the same textures."""

_PENALTIES: Final = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Candidates for the ridge penalty, in units of the features' mean squared length."""

_LOGIT_GAIN: Final = 10.0
"""Regression answers 0 or 1; ten times that gives Softmax a clear opinion."""
_UNUSED_BIAS: Final = -20.0
"""Logit of the 977 columns (background among them) that stand for no demo class."""

_BATCH: Final = 8


@dataclass(frozen=True)
class FitResult:
    """The model, and how good it was on the held-out images before these joined the fit.

    penalty: in units of the features' mean squared length. held_out_top1: 0..1.
    """

    model: onnx.ModelProto
    penalty: float
    held_out_top1: float


def fit_model(
    seed: int, fitting_count: int, held_out_count: int, progress: Progress, *, isa: str | None = None
) -> FitResult:
    """Make the demo model of a seed.

    fitting_count, held_out_count: images of the two splits; multiples of len(CLASSES) keep the classes balanced.
    isa: what the engine computes features with (as in `InferenceSession`). Raises: MachineError for one that is not
    here, or if this process already compiles for another.
    """
    machine = detect(isa)
    target_isa(machine.isa, machine.best_isa)  # now: the first image resized would fix the best one for the process
    progress.phase("demo model: measuring BatchNormalization statistics")
    pictures = preprocessed(seed, Split.FITTING, fitting_count)
    statistics = calibrate(seed, pictures[: len(CLASSES)])
    progress.phase("demo model: compiling kernels")
    features = engine_features(build_model(seed, statistics, None), progress, isa=isa)
    fitting = features(pictures), classes(seed, Split.FITTING, fitting_count)
    held_out = (
        features(preprocessed(seed, Split.HELD_OUT, held_out_count)),
        classes(seed, Split.HELD_OUT, held_out_count),
    )
    penalty, held_out_top1 = choose_penalty(fitting, held_out)
    everything = np.concatenate([fitting[0], held_out[0]]), np.concatenate([fitting[1], held_out[1]])
    head = make_head(*ridge(*everything, penalty))
    return FitResult(build_model(seed, statistics, head), penalty, held_out_top1)


def preprocessed(seed: int, split: Split, count: int) -> U8Array:
    """The first `count` images of a split as the recipe of a run makes them: uint8 [count, 224, 224, 3]."""

    def picture(index: int) -> U8Array:
        return preprocess_bytes(images.jpeg(seed, split, index), f"{split.name} image {index}", IMAGENET)

    pictures = np.empty((count, IMAGENET.crop_height, IMAGENET.crop_width, 3), np.uint8)
    for index, pixels in enumerate(images.in_order(picture, count)):
        pictures[index] = pixels
    return pictures


def classes(seed: int, split: Split, count: int) -> npt.NDArray[np.int64]:
    """Positions in CLASSES of the first `count` images of a split."""
    return np.array([images.class_position(seed, split, index) for index in range(count)], np.int64)


def engine_features(model: onnx.ModelProto, progress: Progress, *, isa: str | None = None) -> Features:
    """Features by our own engine. model: built without a head."""
    session = InferenceSession(model, max_batch=_BATCH, isa=isa, pixels=PixelInput(IMAGENET.table()))

    def features(pictures: U8Array) -> npt.NDArray[np.float32]:
        result = np.empty((len(pictures), FEATURE_COUNT), np.float32)
        progress.phase(f"demo model: computing features of {len(pictures)} images")
        for start in range(0, len(pictures), _BATCH):
            batch = pictures[start : start + _BATCH]
            (result[start : start + _BATCH],) = session.run(None, {INPUT: batch})
            progress.update(f"{start + len(batch)} of {len(pictures)}")
        return result

    return features


def calibrate(seed: int, pictures: U8Array) -> dict[int, ChannelStatistics]:
    """BatchNormalization statistics by ConvLayer.position: those of every convolution's output over `pictures`."""
    margin = (IMAGENET.crop_height - _CALIBRATION_SIDE) // 2
    centre = np.ascontiguousarray(pictures[:, margin:-margin, margin:-margin])
    calibration = _Calibration(seed)
    backbone(calibration, IMAGENET.to_float(centre, "NHWC").astype(np.float64))
    return calibration.statistics


class _Calibration:
    """Ops over float64 pictures N H W C: notes each convolution's statistics, then normalises by them."""

    def __init__(self, seed: int) -> None:
        self.statistics: dict[int, ChannelStatistics] = {}
        self._seed = seed

    def conv_norm(self, x: F64Array, layer: ConvLayer) -> F64Array:
        half = layer.kernel // 2
        padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
        windows = sliding_window_view(padded, (layer.kernel, layer.kernel), axis=(1, 2))
        windows = windows[:, :: layer.stride, :: layer.stride]  # N H W C R S
        rows = windows.reshape(-1, layer.in_channels * layer.kernel**2)
        products = rows @ layer.weight(self._seed).reshape(layer.out_channels, -1).astype(np.float64).T
        mean, variance = _rounded(products.mean(axis=0)), _rounded(products.var(axis=0))
        self.statistics[layer.position] = ChannelStatistics(mean.astype(np.float32), variance.astype(np.float32))
        normalised: F64Array = (products - mean) * (layer.gain / np.sqrt(variance + EPSILON))
        return normalised.reshape(*windows.shape[:3], layer.out_channels)

    def relu(self, x: F64Array) -> F64Array:
        result: F64Array = np.maximum(x, 0)
        return result

    def add(self, a: F64Array, b: F64Array) -> F64Array:
        return a + b

    def max_pool(self, x: F64Array) -> F64Array:
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
        result: F64Array = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(-2, -1))
        return result


def ridge(
    features: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], penalty: float
) -> tuple[F64Array, F64Array]:
    """Ridge regression of one-hot targets on centred features; (weight [2048, classes], bias [classes]).

    With X the centred features [n, 2048], Y the centred targets and n < 2048, the dual form is the cheaper one:
    W = X^T (X X^T + penalty * t I)^-1 Y, t the mean squared length of a row (Hastie, Tibshirani, Friedman: The
    Elements of Statistical Learning, 2nd ed., eq. 3.44 and section 18.3.5).
    """
    centre = features.mean(axis=0, dtype=np.float64)
    x = features - centre
    one_hot = np.eye(len(CLASSES))[targets]
    gram = x @ x.T
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    weight = _rounded(x.T @ np.linalg.solve(gram, one_hot - one_hot.mean(axis=0)))
    return weight, _rounded(one_hot.mean(axis=0) - centre @ weight)


def choose_penalty(
    fitting: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    held_out: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
) -> tuple[float, float]:
    """(penalty, top-1) of the candidate with the smallest squared error on the held-out images.

    fitting, held_out: features [n, 2048] and classes [n]. Squared error, because the
    top-1 of a few images is too coarse to choose by.
    """
    features, targets = held_out
    one_hot = np.eye(len(CLASSES))[targets]
    candidates = []
    for penalty in _PENALTIES:
        weight, bias = ridge(*fitting, penalty)
        scores = features @ weight + bias
        error = float(np.mean((scores - one_hot) ** 2))
        candidates.append((error, penalty, float(np.mean(scores.argmax(axis=1) == targets))))
    _, penalty, top1 = min(candidates)
    return penalty, top1


def make_head(weight: F64Array, bias: F64Array) -> Head:
    """Spread the columns of CLASSES over 1001: label c is column c + 1, column 0 is background."""
    columns = [image_class.label + 1 for image_class in CLASSES]
    wide_weight = np.zeros((FEATURE_COUNT, OUTPUT_CLASSES), np.float32)
    wide_weight[:, columns] = _LOGIT_GAIN * weight
    wide_bias = np.full(OUTPUT_CLASSES, _UNUSED_BIAS, np.float32)
    wide_bias[columns] = _LOGIT_GAIN * bias
    return Head(wide_weight, wide_bias)


def _rounded(values: F64Array) -> F64Array:
    """To 12 significant bits, so that the last bits of a float64 sum, which vary with BLAS, do not show."""
    mantissa, exponent = np.frexp(values)
    rounded: F64Array = np.ldexp(np.round(mantissa * 2**12), exponent - 12)
    return rounded
