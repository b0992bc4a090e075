"""Model and images -> quantised model and report. Called by `cli/quantize.py`.

onnxruntime's quantizer: activations uint8 with a zero point, weights int8 and symmetric, per output channel unless told
otherwise, biases int32. Everything is made in a folder that is thrown away; the output appears whole at the end.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import version_converter

from ..errors import BadInputError
from ..profiles import PROFILES
from ..progress import Progress
from .config import QuantizeConfig
from .images import Chosen, Feeds, choose_images, load_images, write_whole
from .measure import (
    Floats,
    Stability,
    TensorReport,
    WeightSpread,
    count_agreement,
    measure_ranges,
    measure_sqnr,
    open_session,
    weight_spread,
)
from .models import activations_of, has_quantized_nodes, layers_of, set_metadata
from .record import origin

METADATA_KEY: Final = "loadgen_numba.quantization"

_LEAST_OPSET: Final = 13
"""The first operator set whose DequantizeLinear has scales per channel."""

_MOST_SQNR_IMAGES: Final = 8
_MOST_STABILITY_IMAGES: Final = 32
_MOST_AGREEMENT_IMAGES: Final = 100


@dataclass(frozen=True)
class Outcome:
    """What was written, and what is to be said about it.

    agreeing: of `tested` images, those of which both models have the same top-1 class; none of them were calibrated on
    unless `tested_on_calibration`. spreads: None for weights per channel.
    """

    config: QuantizeConfig
    images: Chosen
    kept: tuple[str, ...]
    tensors: tuple[TensorReport, ...]
    stability: Stability
    agreeing: int
    tested: int
    tested_on_calibration: bool
    spreads: tuple[WeightSpread, ...] | None


def run_quantize(config: QuantizeConfig, progress: Progress) -> Outcome:
    """Raises: BadInputError for a model, list, image or folder that cannot be used; then nothing is written."""
    spec = PROFILES[config.profile].spec
    chosen = choose_images(config.dataset_path, config.calibration_list, config.count)
    progress.phase(f"reading {len(chosen.calibration)} images")
    calibration = load_images(chosen.calibration, spec, _counted(progress, "reading images"))
    tested_paths = (chosen.others or chosen.calibration)[:_MOST_AGREEMENT_IMAGES]
    tested = load_images(tested_paths, spec, _counted(progress, "reading images to test with"))

    with tempfile.TemporaryDirectory(prefix="loadgen-numba-quantize-") as folder, _quiet_quantizer():
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        progress.phase(f"preparing {config.model}")
        _prepare(config, prepared)
        name, output = _interface(config, prepared, (3, spec.crop_height, spec.crop_width))
        feeds, test_feeds = Feeds(name, calibration, spec), Feeds(name, tested, spec)
        layers = layers_of(onnx.load(prepared))
        kept = _kept_layers(config, [layer.name for layer in layers])
        _quantize(config, prepared, quantized, feeds, kept, progress)

        activations = activations_of(onnx.load(quantized, load_external_data=False))
        show = _counted(progress, "comparing ranges of images")
        looked_at = feeds[:_MOST_STABILITY_IMAGES]
        stability = measure_ranges(prepared, [a.tensor for a in activations], looked_at, show)
        show = _counted(progress, "measuring SQNR")
        tensors = measure_sqnr(prepared, quantized, activations, test_feeds[:_MOST_SQNR_IMAGES], show)
        progress.phase(f"comparing classes of {len(test_feeds)} images")
        outcome = Outcome(
            config=config,
            images=chosen,
            kept=kept,
            tensors=tuple(tensors),
            stability=stability,
            agreeing=count_agreement(prepared, quantized, test_feeds, output),
            tested=len(test_feeds),
            tested_on_calibration=not chosen.others,
            spreads=tuple(weight_spread(layers)) if config.per_tensor else None,
        )
        record = record_of(outcome, {a.tensor: (a.low, a.high) for a in activations})
        set_metadata(quantized, METADATA_KEY, json.dumps({key: record[key] for key in _IN_MODEL}))
        record |= origin(config.model, quantized)
        write_whole(config.output, quantized.read_bytes(), "--output")
        write_whole(config.report_path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode(), "--output")
    return outcome


_IN_MODEL: Final = ("method", "calibration", "weights", "kept_float32", "ranges")
"""Parts of the record that are in the model's metadata_props, too."""


def record_of(outcome: Outcome, ranges: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """The report as JSON. ranges: [low, high] that each quantised activation can hold."""
    config = outcome.config
    return {
        "model": str(config.model),
        "method": config.method,
        "calibration": {"source": outcome.images.source, "images": [path.name for path in outcome.images.calibration]},
        "weights": "per tensor" if config.per_tensor else "per channel",
        "kept_float32": list(outcome.kept),
        "ranges": {name: list(bounds) for name, bounds in ranges.items()},
        "sqnr_db": {
            tensor.tensor: round(tensor.sqnr_db, 2) if math.isfinite(tensor.sqnr_db) else None
            for tensor in outcome.tensors
        },
        "top1_agreement": {
            "images": outcome.tested,
            "same": outcome.agreeing,
            "calibrated_on": outcome.tested_on_calibration,
        },
        "stability": {key: value if math.isfinite(value) else None for key, value in asdict(outcome.stability).items()},
        "per_tensor_weights": None if outcome.spreads is None else [asdict(spread) for spread in outcome.spreads],
    }


def _prepare(config: QuantizeConfig, prepared: Path) -> None:
    """onnxruntime's own preparation: shapes, BatchNormalization and other constants folded; and an operator set that
    knows scales per channel, which older models are converted to."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        model = onnx.load(config.model)
    except Exception as error:
        raise BadInputError(f"--model {config.model}: is no ONNX model: {_one_line(error)}") from error
    if has_quantized_nodes(model):
        raise BadInputError(f"--model {config.model}: is quantised already: give the float32 model")
    try:
        versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        if versions and versions[0] < _LEAST_OPSET:
            model = version_converter.convert_version(model, _LEAST_OPSET)
        for index, node in enumerate(model.graph.node):  # layers are kept in float32 by name
            node.name = node.name or f"{node.op_type}_{index}"
        converted = prepared.with_name("converted.onnx")
        onnx.save(model, converted)
        quant_pre_process(str(converted), str(prepared), skip_symbolic_shape=True)
    except Exception as error:
        raise BadInputError(f"--model {config.model}: cannot be prepared: {_one_line(error)}") from error


def _interface(config: QuantizeConfig, prepared: Path, picture: tuple[int, ...]) -> tuple[str, str]:
    """Names of the one input, a float32 picture, and of the output that holds scores: the first of floats."""
    session = open_session(prepared)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = ", ".join(f"{node.name} {node.type} {node.shape}" for node in inputs)
    fits = len(inputs) == 1 and "float" in inputs[0].type and tuple(inputs[0].shape[1:]) == picture
    if not fits or not (isinstance(inputs[0].shape[0], str) or inputs[0].shape[0] in (None, 1)):
        raise BadInputError(
            f"--model {config.model}: has inputs {found}; profile {config.profile} makes one, [N, 3, "
            f"{picture[1]}, {picture[2]}] of float32, image by image"
        )
    scores = [node.name for node in outputs if "float" in node.type]
    if not scores:
        raise BadInputError(f"--model {config.model}: no output is of float32, so that classes cannot be compared")
    return inputs[0].name, scores[0]


def _kept_layers(config: QuantizeConfig, layers: Sequence[str]) -> tuple[str, ...]:
    if not layers:
        raise BadInputError(f"--model {config.model}: holds no convolution or dense layer with constant weights")
    ends = {"first": layers[0], "last": layers[-1]}
    return tuple(dict.fromkeys(ends[name] for name in config.keep_float))


def _quantize(
    config: QuantizeConfig,
    prepared: Path,
    quantized: Path,
    feeds: Sequence[dict[str, Floats]],
    kept: tuple[str, ...],
    progress: Progress,
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Image by image, so that the tensors of only one are in memory (`CalibStridedMinMax` of 1)."""

        def __init__(self) -> None:
            self._ahead: Iterator[dict[str, Floats]] = iter(())

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            progress.update(f"calibrating ({config.method}): image {start_index + 1} of {len(feeds)}")
            self._ahead = iter(feeds[start_index:end_index])

        def get_next(self) -> dict[str, Floats] | None:
            return next(self._ahead, None)

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    progress.phase(f"calibrating ({config.method}) on {len(feeds)} images")
    try:
        quantize_static(
            str(prepared),
            str(quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=not config.per_tensor,
            nodes_to_exclude=list(kept),
            calibrate_method=methods[config.method],
            extra_options={"CalibStridedMinMax": 1},
        )
    except Exception as error:
        raise BadInputError(f"--model {config.model}: onnxruntime cannot quantise it: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """onnxruntime's quantizer logs to the root logger what a user can do nothing about."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _counted(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress.update(f"{what}: {done + 1} of {total}")
