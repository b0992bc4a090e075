"""QDQ models made by onnxruntime's quantizer."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantized_by_onnxruntime(
    model: onnx.ModelProto | Path,
    feeds: Sequence[dict[str, np.ndarray]],
    *,
    activations: QuantType = QuantType.QUInt8,
    weights: QuantType = QuantType.QInt8,
    per_channel: bool = True,
    **options: Any,
) -> onnx.ModelProto:
    """The model with pairs of QuantizeLinear and DequantizeLinear, calibrated on `feeds`."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        onnx.save(onnx.load(model) if isinstance(model, Path) else model, source)
        quantize_static(
            str(source), str(output), _Reader(feeds), quant_format=QuantFormat.QDQ, activation_type=activations,
            weight_type=weights, per_channel=per_channel, extra_options=options,
        )  # fmt: skip
        return onnx.load(output)
