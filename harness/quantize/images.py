"""Which images ranges are calibrated on: an official list, a file, or a sample spread over the folder.

MLPerf allows post-training calibration on one of two published lists of 500 validation images, or a part of one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from preprocessing import VAL_MAP_NAME, PreprocessingError, PreprocessSpec, preprocess, read_val_map

from ..errors import BadInputError
from .config import DEFAULT_COUNT

_ADDRESS: Final = "https://raw.githubusercontent.com/mlcommons/inference/master/calibration/ImageNet/"
_TIMEOUT_S: Final = 30.0
_MOST_BYTES: Final = 1 << 20

_IMAGE_SUFFIXES: Final = (".jpeg", ".jpg")


@dataclass(frozen=True)
class OfficialList:
    """A published list: where it is, and what it is to the byte."""

    url: str
    sha256: str


OFFICIAL_LISTS: Final = {
    1: OfficialList(
        f"{_ADDRESS}cal_image_list_option_1.txt", "7662247d1d9407d6cb564268f64c5a4a6cf9f1a34fd2e6cdc3b94dcf278b3dc9"
    ),
    2: OfficialList(
        f"{_ADDRESS}cal_image_list_option_2.txt", "11ce810122226ec0ca8c56e47ee356e3c1185f3c6ce8262edb50c3c1d0a9705e"
    ),
}
"""By MLCommons' number of the option."""


def download_list(option: int, output: Path, lists: dict[int, OfficialList] = OFFICIAL_LISTS) -> int:
    """Writes an official list to `output`, checked; returns how many images it names. A failure writes nothing.

    Raises: BadInputError if it cannot be fetched or written, or is not what was published.
    """
    official = lists[option]
    try:
        with urllib.request.urlopen(official.url, timeout=_TIMEOUT_S) as response:
            data: bytes = response.read(_MOST_BYTES)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise BadInputError(
            f"{official.url}: cannot be fetched ({reason}): fetch it elsewhere and give it as --calibration-list"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != official.sha256:
        raise BadInputError(
            f"{official.url}: has sha256 {found}, the published list {official.sha256}: it was changed or is damaged; "
            "nothing was written"
        )
    write_whole(output, data, "--output")
    return len(_names(data.decode("utf-8")))


def write_whole(path: Path, data: bytes, flag: str) -> None:
    """Writes a file at once: it is there whole, or as it was before. Raises: BadInputError."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadInputError(f"{flag} {path}: cannot be written: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _names(text: str) -> list[str]:
    """The first word of each line that has one: lists with and without labels."""
    return [line.split()[0] for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Chosen:
    """Files to calibrate on, and others of the same folder to test with. source: where the choice came from."""

    calibration: tuple[Path, ...]
    others: tuple[Path, ...]
    source: str


def choose_images(folder: Path, calibration_list: Path | None, count: int | None) -> Chosen:
    """Raises: BadInputError for a list or folder that cannot be used."""
    available = _images_of(folder)
    if calibration_list is None:
        if count is not None and count > len(available):
            raise BadInputError(f"--count {count}: --dataset-path {folder} holds {len(available)} images")
        count = min(count or DEFAULT_COUNT, len(available))
        spread = {round(index) for index in np.linspace(0, len(available) - 1, count)}
        chosen = [available[index] for index in sorted(spread)]
        return Chosen(tuple(chosen), _rest(available, chosen), f"{len(chosen)} of {len(available)} images of {folder}")
    try:
        names = _names(calibration_list.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise BadInputError(f"--calibration-list {calibration_list}: cannot be read: {reason}") from error
    if not names:
        raise BadInputError(f"--calibration-list {calibration_list}: names no images")
    if count is not None and count > len(names):
        raise BadInputError(f"--count {count}: --calibration-list {calibration_list} names {len(names)} images")
    chosen = [folder / name for name in names[:count]]
    for name in names[:count]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInputError(f"--calibration-list {calibration_list}: {name!r} is outside {folder}")
    missing = [path.name for path in chosen if not path.is_file()]
    if missing:
        raise BadInputError(
            f"--calibration-list {calibration_list}: {len(missing)} of {len(chosen)} images are not in {folder}, "
            f"first {missing[0]!r}"
        )
    return Chosen(tuple(chosen), _rest(available, chosen), f"{len(chosen)} images of {calibration_list}")


def _images_of(folder: Path) -> list[Path]:
    """The images that the label map names, in its order, or all JPEG files of a folder without one."""
    if (folder / VAL_MAP_NAME).exists():
        try:
            return [folder / name for name in read_val_map(folder).files]
        except PreprocessingError as error:
            raise BadInputError(str(error)) from error
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    if not found:
        raise BadInputError(f"--dataset-path {folder}: holds neither {VAL_MAP_NAME} nor JPEG files")
    return found


def _rest(available: list[Path], chosen: list[Path]) -> tuple[Path, ...]:
    used = set(chosen)
    return tuple(path for path in available if path not in used)


@dataclass(frozen=True)
class Feeds(Sequence[dict[str, npt.NDArray[np.float32]]]):
    """What a session is fed, image by image: made when asked for, as float32 takes four times the memory.

    name: of the model's input. images: uint8 [N, H, W, 3].
    """

    name: str
    images: npt.NDArray[np.uint8]
    spec: PreprocessSpec

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.float32]]: ...
    @overload
    def __getitem__(self, index: slice) -> Feeds: ...
    def __getitem__(self, index: int | slice) -> dict[str, npt.NDArray[np.float32]] | Feeds:
        if isinstance(index, slice):
            return replace(self, images=self.images[index])
        return {self.name: self.spec.to_float(self.images[index][None], "NCHW")}


def load_images(
    paths: tuple[Path, ...], spec: PreprocessSpec, progress: Callable[[int, int], None]
) -> npt.NDArray[np.uint8]:
    """uint8 [N, H, W, 3]. Raises: BadInputError for a damaged image."""
    images = np.empty((len(paths), spec.crop_height, spec.crop_width, 3), np.uint8)
    for index, path in enumerate(paths):
        progress(index, len(paths))
        try:
            images[index] = preprocess(path, spec)
        except PreprocessingError as error:
            raise BadInputError(str(error)) from error
    return images
