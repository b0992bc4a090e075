"""Procedural image classes, written as JPEGs in the layout of the ImageNet validation set.

A class is a texture in a pair of colours. Within a class, phase, scale, orientation, colours, contrast, lighting,
noise, size and aspect ratio vary. The subject fills the central square of the picture, as the centre crop of the
ImageNet recipe assumes; what lies beside that square on the longer sides is the texture of another class. Half of
the colour pairs are each other's red-blue mirror image. So an answer depends on channel order, crop and scale.

Every image is a function of (seed, split, index) alone: any number of images can be made, in any order, in constant
memory. Called by `fit` and `assets`; knows nothing of models.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from preprocessing import VAL_MAP_NAME

F32Array: TypeAlias = npt.NDArray[np.float32]
U8Array: TypeAlias = npt.NDArray[np.uint8]
Random: TypeAlias = np.random.Generator
Rgb: TypeAlias = tuple[int, int, int]
Texture: TypeAlias = Callable[[Random, F32Array, F32Array], F32Array]
"""(random, rows [H], columns [W]) -> field [H, W] in 0..1; coordinates in shorter sides, 0 in the centre."""

T = TypeVar("T")


class Split(IntEnum):
    """What an image is for. The number enters the image's seed, so no two splits share an image."""

    FITTING = 0
    HELD_OUT = 1
    VALIDATION = 2


def _float32(field: npt.ArrayLike) -> F32Array:
    return np.asarray(field, dtype=np.float32)


def _grating(degrees: float, cycles: float) -> Texture:
    """Sine waves: `cycles` per shorter side, wave vector at `degrees` from the horizontal."""

    def draw(random: Random, rows: F32Array, columns: F32Array) -> F32Array:
        angle = np.deg2rad(degrees + random.uniform(-5, 5))
        turn = 2 * np.pi * cycles * random.uniform(0.94, 1.06)
        along_rows = turn * np.sin(angle) * rows + random.uniform(0, 2 * np.pi)
        along_columns = turn * np.cos(angle) * columns
        # sin(a + b) from one-dimensional sines: two outer products instead of H x W sines.
        wave = np.outer(np.sin(along_rows), np.cos(along_columns)) + np.outer(np.cos(along_rows), np.sin(along_columns))
        return _float32(0.5 + 0.5 * wave)

    return draw


def _checker(degrees: float, cycles: float) -> Texture:
    """Two crossed gratings, multiplied and sharpened to squares."""

    def draw(random: Random, rows: F32Array, columns: F32Array) -> F32Array:
        first = _grating(degrees, cycles)(random, rows, columns)
        second = _grating(degrees + 90, cycles)(random, rows, columns)
        return _float32(np.clip(0.5 + 12 * (first - 0.5) * (second - 0.5), 0, 1))

    return draw


def _dots(cycles: float) -> Texture:
    """A square lattice of round dots on an empty ground."""

    def draw(random: Random, rows: F32Array, columns: F32Array) -> F32Array:
        tilt = random.uniform(-20, 20)
        first = _grating(tilt, cycles)(random, rows, columns)
        second = _grating(tilt + 90, cycles)(random, rows, columns)
        return _float32(np.clip(5 * (first + second) - 6.5, 0, 1))

    return draw


def _rings(cycles: float) -> Texture:
    """Concentric circles around a point near the centre."""

    def draw(random: Random, rows: F32Array, columns: F32Array) -> F32Array:
        y = rows - random.uniform(-0.15, 0.15)
        x = columns - random.uniform(-0.15, 0.15)
        turn = np.float32(2 * np.pi * cycles * random.uniform(0.94, 1.06))
        radius = np.sqrt((y * y)[:, None] + x * x)
        return _float32(0.5 + 0.5 * np.sin(turn * radius + np.float32(random.uniform(0, 2 * np.pi))))

    return draw


def _blobs(cells: float) -> Texture:
    """Smooth noise: random values on a coarse grid, `cells` per shorter side, enlarged bicubically."""

    def draw(random: Random, rows: F32Array, columns: F32Array) -> F32Array:
        density = cells * random.uniform(0.9, 1.1)
        height = max(2, round(density * float(np.ptp(rows))))
        width = max(2, round(density * float(np.ptp(columns))))
        grid = Image.fromarray(random.random((height, width), dtype=np.float32))
        smooth = np.asarray(grid.resize((columns.size, rows.size), Image.Resampling.BICUBIC), dtype=np.float32)
        return _float32(np.clip(1.6 * smooth - 0.3, 0, 1))

    return draw


_TEXTURES: Final[tuple[Texture, ...]] = (
    _grating(0, 10),
    _grating(90, 10),
    _grating(45, 10),
    _grating(0, 22),
    _checker(20, 8),
    _dots(11),
    _rings(9),
    _blobs(40),
)

_COLOURS: Final[tuple[tuple[Rgb, Rgb], ...]] = (
    ((225, 130, 50), (70, 50, 40)),
    ((50, 130, 225), (40, 50, 70)),
    ((110, 200, 100), (120, 60, 130)),
)


@dataclass(frozen=True)
class ImageClass:
    """A texture in a pair of colours (light, dark), and its ImageNet label (0..999)."""

    label: int
    texture: Texture
    light: Rgb
    dark: Rgb


def _image_classes() -> tuple[ImageClass, ...]:
    count = len(_TEXTURES) * len(_COLOURS)
    pairs = [(texture, light, dark) for texture in _TEXTURES for light, dark in _COLOURS]
    return tuple(
        # From 0 to 999, so that a wrong label offset also leaves the range.
        ImageClass(round(position * 999 / (count - 1)), *pair)
        for position, pair in enumerate(pairs)
    )


CLASSES: Final = _image_classes()


def class_position(seed: int, split: Split, index: int) -> int:
    """Position in CLASSES of image `index` (from 0): len(CLASSES) in a row hold each class once."""
    cycle, place = divmod(index, len(CLASSES))
    return int(np.random.default_rng((seed, split, 0, cycle)).permutation(len(CLASSES))[place])


def label(seed: int, split: Split, index: int) -> int:
    """ImageNet label (0..999) of image `index`."""
    return CLASSES[class_position(seed, split, index)].label


def render(seed: int, split: Split, index: int) -> Image.Image:
    """Image `index` (from 0) of a split; RGB, sides of about 300 to 640 pixels as in ImageNet."""
    random = np.random.default_rng((seed, split, 1, index))
    subject = class_position(seed, split, index)
    neighbour = (subject + int(random.integers(1, len(CLASSES)))) % len(CLASSES)
    shorter = int(random.integers(300, 430))
    rest = int(shorter * random.uniform(0.01, 0.5))
    axis = 1 if random.random() < 0.75 else 0  # three of four lie, one stands
    centre = _paint(CLASSES[subject], random, shorter, shorter, shorter)
    flanks = _paint(CLASSES[neighbour], random, *((shorter, rest) if axis else (rest, shorter)), shorter)
    first, second = np.array_split(flanks, 2, axis)
    return Image.fromarray(np.concatenate([first, centre, second], axis))


def _paint(image_class: ImageClass, random: Random, height: int, width: int, unit: int) -> U8Array:
    """A rectangle [height, width, 3] of a class. unit: pixels of the picture's shorter side."""
    rows = (np.arange(height, dtype=np.float32) - np.float32(height / 2)) / np.float32(unit)
    columns = (np.arange(width, dtype=np.float32) - np.float32(width / 2)) / np.float32(unit)
    contrast = random.uniform(0.6, 1.0)
    field = np.float32(contrast) * image_class.texture(random, rows, columns)
    field += np.float32(random.uniform(0, 1 - contrast))
    slope = random.uniform(-40, 40, 2).astype(np.float32)
    shade = random.standard_normal((height, width), dtype=np.float32)
    shade *= np.float32(random.uniform(2, 14))
    shade += (slope[0] * rows)[:, None] + slope[1] * columns + np.float32(random.uniform(-20, 20))
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        dark = np.float32(image_class.dark[channel] + random.uniform(-20, 20))
        light = np.float32(image_class.light[channel] + random.uniform(-20, 20))
        pixels[:, :, channel] = np.clip(field * (light - dark) + (shade + dark), 0, 255)
    return pixels


def jpeg(seed: int, split: Split, index: int) -> bytes:
    """Image `index` of a split as a JPEG file, quality 80 to 95."""
    buffer = io.BytesIO()
    render(seed, split, index).save(buffer, "JPEG", quality=80 + index * 7 % 16)
    return buffer.getvalue()


def in_order(make: Callable[[int], T], count: int) -> Iterator[T]:
    """make(0), make(1), ... make(count - 1), as many at a time as there are CPUs (8 at most), few held at once."""
    workers = min(8, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(make, index) for index in range(min(count, 4 * workers)))
        for index in range(len(waiting), count + len(waiting)):
            yield waiting.popleft().result()
            if index < count:
                waiting.append(pool.submit(make, index))


def write_dataset(folder: Path, seed: int, count: int, *, progress: Callable[[int], None] | None = None) -> None:
    """Write `count` validation images and their `val_map.txt` into an existing folder, in the ImageNet layout.

    progress is called with the number of images written so far. Raises OSError if a file cannot be written.
    """
    files = in_order(lambda index: jpeg(seed, Split.VALIDATION, index), count)
    with (folder / VAL_MAP_NAME).open("w", encoding="ascii") as val_map:
        for index, file in enumerate(files):
            name = f"ILSVRC2012_val_{index + 1:08d}.JPEG"
            (folder / name).write_bytes(file)
            val_map.write(f"{name} {label(seed, Split.VALIDATION, index)}\n")
            if progress is not None:
                progress(index + 1)
