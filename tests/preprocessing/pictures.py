"""Pictures and JPEG files that the tests of `preprocessing` share, and what OpenCV makes of them."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocessing.spec import PreprocessSpec

Pixels = npt.NDArray[np.uint8]

AWKWARD_SIZES = [
    (1, 1), (1, 2), (2, 1), (1, 60), (60, 1), (3, 200), (7, 1000),  # 1-pixel sides, huge aspect ratios
    (5, 9), (100, 100), (224, 224), (223, 225), (255, 255), (255, 400), (400, 255),  # enlarged
    (256, 256), (256, 341), (341, 256), (257, 256), (256, 257), (257, 257), (256, 1000),  # hardly changed
    (512, 512), (512, 1024), (1024, 512), (512, 513), (513, 512), (514, 700),  # 2 x 2 exactly, and nearly
    (768, 768), (768, 1536), (1024, 1024), (1280, 1280), (1792, 1792), (1023, 1025),  # whole ratios, and nearly
    (333, 500), (375, 500), (500, 375), (499, 375), (480, 640), (601, 397), (1131, 757),  # as photographs are
    (300, 1900), (1900, 300), (257, 1999),
]  # fmt: skip
"""(height, width)."""


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Every pixel independent, so that a wrong weight, position or rounding shows."""
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, channels), dtype=np.uint8)


def scenery(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Smooth colours with edges: what a JPEG encoder is made for."""
    coarse = noise(height // 16 + 2, width // 16 + 2, channels, seed)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8).reshape(
        height, width, channels
    )


def jpeg(pixels: Pixels, mode: str = "RGB", **options: object) -> bytes:
    """A JPEG file of pixels [H, W, C], or [H, W, 1] in mode L; options as for Pillow's `save`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode=mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG file that declares this size and holds next to nothing."""
    data = bytearray(jpeg(noise(8, 8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def opencv_load_rgb(path: Path) -> Pixels:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def opencv_resize_and_crop(image: Pixels, spec: PreprocessSpec) -> Pixels:
    """The reference's steps 2 to 4 for a 224 x 224 crop, transcribed from their description, not from our code."""
    height, width = image.shape[:2]
    shorter = int(100 * 224 / 87.5)
    if height > width:
        new_width, new_height = shorter, int(shorter * height / width)
    else:
        new_width, new_height = int(shorter * width / height), shorter
    interpolation = {"imagenet": cv2.INTER_AREA, "imagenet_mobilenet": cv2.INTER_LINEAR}[spec.name]
    resized = cv2.resize(image, (new_width, new_height), interpolation=interpolation)
    left, top = int((new_width - 224) / 2), int((new_height - 224) / 2)
    return np.asarray(resized[top : top + 224, left : left + 224], np.uint8)
