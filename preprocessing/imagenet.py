"""One image file -> one preprocessed picture, pure: Pillow decodes, the result is what OpenCV would have given.

Pillow and OpenCV both decode through libjpeg-turbo with its default settings and agree byte for byte. What this file
adds is what OpenCV's `imread` does around that: EXIF orientation, greyscale in three channels, its own CMYK formula.
Pillow's `draft` (decoding at reduced size) is never used, since it changes pixels.

Called by `store` and by whoever wants a single picture. May import: errors, spec, and one of the two resizers, chosen
here once by whether Numba is installed; their results are the same to the byte, and RESIZER says which it is.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, features
from PIL.JpegImagePlugin import JpegImageFile

from .errors import ImageError
from .resize_plan import ResizePlan, plan_resize
from .spec import PreprocessSpec

RESIZER: Final[Literal["numba", "numpy"]] = "numba" if importlib.util.find_spec("numba") else "numpy"
"""Which implementation `preprocess` resizes with."""


def implementation() -> str:
    """Whatever of this installation could change a pixel: the resizer and the decoder, with their versions."""
    return (
        f"resizer {RESIZER} {importlib.metadata.version(RESIZER)}, Pillow {importlib.metadata.version('pillow')}, "
        f"libjpeg-turbo {features.version('libjpeg_turbo')}"
    )


MAX_PIXELS: Final = 1024 * 1024 * 1024 // 4 // 3
"""Pillow's own limit (`PIL.Image.MAX_IMAGE_PIXELS`), beyond which it suspects a decompression bomb and only warns."""

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of this EXIF orientation upright; 1 is upright already."""

_TIFF_MARK: Final = 42
"""What follows the byte order in every TIFF file, and so in every EXIF segment."""


def load_rgb(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """The picture in a JPEG file as uint8 [H, W, 3] in R, G, B: `cv2.imread(path)[..., ::-1]`.

    Raises ImageError when the file is missing or not readable, truncated or damaged, not a JPEG, or larger than
    MAX_PIXELS (found out from the header, before memory is allocated). Stricter than OpenCV, which fills up what is
    missing with grey; but a file that was cut off and then given an end marker looks complete to libjpeg.
    """
    return _rgb_pixels(_decode(read_file(path), path))


def preprocess(path: str | os.PathLike[str], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """The stored form of one image: uint8 [spec.crop_height, spec.crop_width, 3]. Raises ImageError as `load_rgb`."""
    return preprocess_bytes(read_file(path), path, spec)


def preprocess_bytes(data: bytes, name: str | os.PathLike[str], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """`preprocess` for the bytes of a file; `name` appears in errors only."""
    picture = _decode(data, name)
    size = spec.resized_size(picture.height, picture.width)
    plan = plan_resize((picture.height, picture.width), size, spec.crop_window(*size), spec.interpolation)
    part = plan.source
    # Cropped inside Pillow, because copying pixels out of it costs almost as much as resizing; and the decoded picture
    # is let go of at once, so that its memory serves for the copy.
    picture = picture.crop((part.left, part.top, part.left + part.width, part.top + part.height))
    return _resizer()(_rgb_pixels(picture), plan)


@functools.cache
def _resizer() -> Callable[[npt.NDArray[np.uint8], ResizePlan], npt.NDArray[np.uint8]]:
    """RESIZER's function, imported when the first picture needs it: Numba fixes the CPU that a process compiles for
    at its first jitted function, and a process that only reads a store may want to choose that itself."""
    if RESIZER == "numba":
        from .resize import resize
    else:
        from .resize_numpy import resize
    return resize


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file; ImageError when there is none or it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image; restore it, or take its line out of the label map") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check that it is a file you may read") from error


def _decode(data: bytes, name: str | os.PathLike[str]) -> Image.Image:
    """The decoded picture, upright, in Pillow's mode L, RGB or CMYK."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            f"{name}: not decoded, because PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set and Pillow would fill up "
            "truncated images with grey; leave it False"
        )
    if not data.startswith(b"\xff\xd8\xff"):
        raise ImageError(
            f"{name}: not a JPEG ({len(data)} bytes, beginning with {data[:4].hex(' ') or 'nothing'}); "
            "replace it by the original JPEG file"
        )
    try:
        picture = JpegImageFile(io.BytesIO(data))
    except (SyntaxError, OSError) as error:
        raise ImageError(f"{name}: damaged JPEG header ({error}); replace the file by an intact copy") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: declares {picture.width} x {picture.height} pixels, more than the {MAX_PIXELS} allowed "
            "(a decompression bomb?); replace it by a smaller image"
        )
    picture.decodermaxblock = len(data)  # decode in one go instead of 64 KiB at a time
    try:
        picture.load()
    except OSError as error:
        raise ImageError(
            f"{name}: truncated or damaged JPEG of {len(data)} bytes ({error}); replace the file by an intact copy"
        ) from error
    turn = _TURNS.get(_exif_orientation(picture.info.get("exif", b"")))
    return picture if turn is None else picture.transpose(turn)


def _rgb_pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3] of a picture in mode L, RGB or CMYK.

    CMYK is OpenCV's formula: with s the stored values (Adobe's, inverted), each of R, G, B is K - ((255 - s) * K >> 8).
    Pillow has inverted what is stored, so its values are 255 - s.
    """
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, -1)
    if picture.mode == "L":
        return np.repeat(pixels, 3, axis=2)
    if picture.mode == "CMYK":
        black = 255 - pixels[..., 3:].astype(np.int32)
        return (black - (pixels[..., :3] * black >> 8)).astype(np.uint8)
    return pixels


def _exif_orientation(exif: bytes) -> int:
    """Orientation 1..8 from an APP1 segment (b"Exif", two zeros, a TIFF file); 1 when it is absent or nonsense.

    Read as OpenCV reads it: any byte order but II is big-endian, the value is 16 bits whatever type the entry claims,
    and XMP's orientation, which Pillow would take, is ignored. (OpenCV gives up at an earlier entry whose text lies
    outside the segment; such a file is read here as if that entry were whole.)
    """
    tiff = exif[6:]
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        mark, directory = struct.unpack_from(order + "HI", tiff, 2)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        if mark != _TIFF_MARK:
            return 1
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, orientation = struct.unpack_from(order + "H6xH", tiff, entry)
            if tag == ExifTags.Base.Orientation:
                return orientation if orientation in range(1, 9) else 1
    except struct.error:
        return 1  # the directory runs beyond its segment
    return 1
