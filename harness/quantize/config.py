"""What one quantisation is asked to do, validated in one place. Made by `cli/quantize.py`."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ..config import ProfileName, check_model_file
from ..errors import BadInputError
from .record import record_path

Method: TypeAlias = Literal["minmax", "percentile", "entropy"]

KEEPABLE: Final = ("first", "last")
"""Layers that may stay in float32."""

MOST_IMAGES: Final = 10_000
DEFAULT_COUNT: Final = 100


@dataclass(frozen=True)
class QuantizeConfig:
    """method: how ranges of activations are chosen. count: images to calibrate on, None for the whole list or, without
    one, DEFAULT_COUNT. calibration_list: file with an image name per line. per_tensor: one scale for all weights of a
    layer. keep_float: of KEEPABLE.
    """

    model: Path
    dataset_path: Path
    output: Path
    profile: ProfileName
    method: Method = "minmax"
    count: int | None = None
    calibration_list: Path | None = None
    per_tensor: bool = False
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be done, before anything is computed. Raises: BadInputError."""
        check_model_file(self.model)
        if importlib.util.find_spec("onnxruntime") is None:
            raise BadInputError(
                "quantize needs the Python package 'onnxruntime', which is not installed: "
                "'pip install loadgen-numba[quantize]' installs it"
            )
        if self.count is not None and not 1 <= self.count <= MOST_IMAGES:
            raise BadInputError(f"--count {self.count}: must be from 1 to {MOST_IMAGES:,}")
        if not self.dataset_path.is_dir():
            raise BadInputError(f"--dataset-path {self.dataset_path}: no such folder: name the folder of the images")
        if self.output.is_dir():
            raise BadInputError(f"--output {self.output}: a folder: name the .onnx file to write")
        if self.output.suffix != ".onnx":
            raise BadInputError(f"--output {self.output}: must end in .onnx")
        if not self.output.parent.is_dir():
            raise BadInputError(f"--output {self.output}: there is no folder {self.output.parent}")
        if self.report_path.is_dir():
            raise BadInputError(f"--output {self.output}: its report would be {self.report_path}, which is a folder")
        if not os.access(self.output.parent, os.W_OK):
            raise BadInputError(f"--output {self.output}: the folder {self.output.parent} cannot be written to")
        if self.output.exists() and self.output.samefile(self.model):
            raise BadInputError(f"--output {self.output} is the model itself: name another file")

    @property
    def report_path(self) -> Path:
        """The report as JSON, beside the model."""
        return record_path(self.output)


def parse_kept(text: str | None, flag: str) -> tuple[str, ...]:
    """ "first,last" -> the names. Raises: BadInputError for another name."""
    names = tuple(item.strip() for item in text.split(",")) if text else ()
    for name in names:
        if name not in KEEPABLE:
            raise BadInputError(f"{flag} {text!r}: {name!r} is not one of {', '.join(KEEPABLE)}")
    return names
