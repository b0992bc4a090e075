"""The recipes: from a decoded image to the uint8 picture that is stored, and from there to the model's floats.

A recipe has two halves. The first (geometry and interpolation) makes the stored uint8 pixels; `imagenet.preprocess`
carries it out. The second (`to_float`) is arithmetic on single values, so it is owned here as a table of 256 entries
per channel: whoever needs floats looks them up, and nobody repeats the order of operations.

Source of every number: MLCommons' inference repository, vision/classification_and_detection, its data set profiles
`imagenet` (pre_process_vgg) and `imagenet_mobilenet` (pre_process_mobilenet).

May import: nothing of ours.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Interpolation: TypeAlias = Literal["area", "linear"]
Layout: TypeAlias = Literal["NHWC", "NCHW"]
Operation: TypeAlias = Literal["subtract", "divide", "multiply"]

PIXEL_REVISION: Final = 1
"""Raised whenever a correction changes stored pixels, so that stores made before it are refused as stale."""

_UFUNCS: Final = {"subtract": np.subtract, "divide": np.divide, "multiply": np.multiply}


@dataclass(frozen=True)
class Window:
    """The part of a resized picture that is kept, in pixels of that picture."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class PreprocessSpec:
    """One recipe. Pixels are uint8, channels in the order R, G, B, pictures stored as N H W C.

    crop_height, crop_width: size of the stored picture.
    crop_percent: the crop as a percentage of the resized picture's shorter side.
    interpolation: "area" is OpenCV's INTER_AREA, "linear" its INTER_LINEAR.
    arithmetic: what turns a uint8 value into the model's input: operations with one operand per channel (R, G, B),
    carried out in this order in float32, each rounded before the next.
    """

    name: str
    interpolation: Interpolation
    arithmetic: tuple[tuple[Operation, tuple[float, float, float]], ...]
    crop_height: int = 224
    crop_width: int = 224
    crop_percent: float = 87.5

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the resized picture: shorter side int(100 * crop / percent), the other truncated."""
        resized_height = int(100.0 * self.crop_height / self.crop_percent)
        resized_width = int(100.0 * self.crop_width / self.crop_percent)
        if height > width:
            return int(resized_height * height / width), resized_width
        return resized_height, int(resized_width * width / height)

    def crop_window(self, resized_height: int, resized_width: int) -> Window:
        """The central crop; an odd remainder leaves the larger border below and on the right."""
        top = int((resized_height - self.crop_height) / 2)
        left = int((resized_width - self.crop_width) / 2)
        return Window(top, left, self.crop_height, self.crop_width)

    def digest(self) -> str:
        """sha256 (hex) of everything that can change a stored pixel or a float made from it."""
        recipe = {"pixels": "uint8 NHWC RGB", "pixel_revision": PIXEL_REVISION, **asdict(self)}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def table(self) -> npt.NDArray[np.float32]:
        """float32 [3, 256]: for each channel the model's input for every uint8 value, in the reference's arithmetic."""
        values = np.repeat(np.arange(256, dtype=np.float32)[np.newaxis], 3, axis=0)
        for operation, operands in self.arithmetic:
            values = _UFUNCS[operation](values, np.asarray(operands, np.float32)[:, np.newaxis])
        return values

    def to_float(self, images: npt.NDArray[np.uint8], layout: Layout) -> npt.NDArray[np.float32]:
        """The model's input, float32 [N, H, W, 3] or [N, 3, H, W], from uint8 pictures [N, H, W, 3]."""
        count, height, width, channels = images.shape
        table = self.table()
        shape = (count, channels, height, width) if layout == "NCHW" else images.shape
        floats = np.empty(shape, np.float32)
        for channel in range(channels):
            target = floats[:, channel] if layout == "NCHW" else floats[..., channel]
            target[...] = table[channel][images[..., channel]]
        return floats


IMAGENET: Final = PreprocessSpec(
    name="imagenet",
    interpolation="area",
    arithmetic=(("subtract", (123.68, 116.78, 103.94)),),
)
"""ResNet50 v1.5 in ONNX and TensorFlow form: the means of the training set are subtracted, nothing is divided."""

MOBILENET: Final = PreprocessSpec(
    name="imagenet_mobilenet",
    interpolation="linear",
    arithmetic=(
        ("divide", (255.0, 255.0, 255.0)),
        ("subtract", (0.5, 0.5, 0.5)),
        ("multiply", (2.0, 2.0, 2.0)),
    ),
)
"""MobileNet: the range 0..255 becomes -1..1."""

SPECS: Final = {spec.name: spec for spec in (IMAGENET, MOBILENET)}
"""The recipes by the name of the reference's data set profile."""
