"""One image file -> one preprocessed picture, pure: Pillow decodes, the result is what OpenCV would have given.

Pillow and OpenCV both decode through libjpeg-turbo with its default settings and agree byte for byte. What this file
adds is what OpenCV's `imread` does around that: EXIF orientation, greyscale in three channels, its own CMYK formula.
Pillow's `draft` (decoding at reduced size) is never used, since it changes pixels.

Called by `store` and by whoever wants a single picture. May import: errors, spec, and one of the two resizers, chosen
here once by whether Numba is installed; their results are the same to the byte, and RESIZER says which it is.
"""

from __future__ import annotations

import importlib.util
import io
import os
import struct
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from .errors import ImageError
from .spec import PreprocessSpec

RESIZER: Final[Literal["numba", "numpy"]] = "numba" if importlib.util.find_spec("numba") else "numpy"
"""Which implementation `preprocess` resizes with."""

if RESIZER == "numba":
    from .resize import resize_crop
else:
    from .resize_numpy import resize_crop

MAX_PIXELS: Final = 1024 * 1024 * 1024 // 4 // 3
"""Pillow's own limit (`PIL.Image.MAX_IMAGE_PIXELS`), beyond which it suspects a decompression bomb and only warns."""

_TIFF_MARK: Final = 42
"""What follows the byte order in every TIFF file, and so in every EXIF segment."""


def load_rgb(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """The picture in a JPEG file as uint8 [H, W, 3] in R, G, B: `cv2.imread(path)[..., ::-1]`.

    Raises ImageError when the file is missing or not readable, truncated or damaged, not a JPEG, or larger than
    MAX_PIXELS (found out from the header, before memory is allocated).
    """
    return decode_rgb(read_file(path), path)


def preprocess(path: str | os.PathLike[str], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """The stored form of one image: uint8 [spec.crop_height, spec.crop_width, 3]. Raises ImageError as `load_rgb`."""
    return resize_to_spec(load_rgb(path), spec)


def resize_to_spec(image: npt.NDArray[np.uint8], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Resize and crop as the recipe says. image: uint8 [H, W, 3], C-contiguous."""
    size = spec.resized_size(image.shape[0], image.shape[1])
    return resize_crop(image, size, spec.crop_window(*size), spec.interpolation)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file; ImageError when there is none or it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image; restore it, or take its line out of the label map") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check that it is a file you may read") from error


def decode_rgb(data: bytes, name: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """`load_rgb` for the bytes of a file; `name` appears in errors only."""
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
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: declares {width} x {height} pixels, more than the {MAX_PIXELS} allowed (a decompression bomb?); "
            "replace it by a smaller image"
        )
    try:
        pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(height, width, -1)
    except OSError as error:
        raise ImageError(
            f"{name}: truncated or damaged JPEG of {len(data)} bytes ({error}); replace the file by an intact copy"
        ) from error
    if picture.mode == "L":
        pixels = np.repeat(pixels, 3, axis=2)
    elif picture.mode == "CMYK":
        pixels = _cmyk_to_rgb(pixels)
    return _apply_orientation(pixels, _exif_orientation(picture.info.get("exif", b"")))


def _cmyk_to_rgb(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """OpenCV's formula: with s the stored values (Adobe's, inverted), each of R, G, B is K - ((255 - s) * K >> 8).

    Pillow has inverted what is stored: pixels [H, W, 4] hold 255 - s.
    """
    black = 255 - pixels[..., 3:].astype(np.int32)
    return (black - (pixels[..., :3] * black >> 8)).astype(np.uint8)


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


def _apply_orientation(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Turn [H, W, C] the way it is meant to be seen: 5..8 are transposed, then rows and columns reversed as needed."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
