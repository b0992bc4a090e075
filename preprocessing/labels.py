"""`val_map.txt`: which images a data set has, in which order, and the class of each.

The number of a line, from 0, is the sample index that LoadGen and the accuracy script use, so nothing may shift it: a
blank line, an absent image or a map that is too short is an error, never a smaller set.

Called by the harness and by `store`. May import: errors.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from .errors import LabelError

VAL_MAP_NAME: Final = "val_map.txt"
"""Its name in the folder of the data set, as MLCommons' reference expects it."""


@dataclass(frozen=True)
class ValMap:
    """The samples of a data set: sample i is the file `dataset_path / files[i]`, of class labels[i] (0-based)."""

    dataset_path: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)


def read_val_map(
    dataset_path: str | os.PathLike[str], count: int | None = None, *, class_count: int | None = None
) -> ValMap:
    """Read `val_map.txt` of the folder `dataset_path`: the first `count` lines, or all of them.

    Each line is a file name relative to the folder, white space, and the class as a decimal number from 0, below
    `class_count` if that is given. Every image named must exist. Lines after the first `count` are not looked at.

    Raises LabelError: folder or map missing, unreadable or empty, a malformed line, an image absent, outside the folder
    or named twice, fewer lines than `count`, a class out of range.
    """
    folder = Path(dataset_path)
    path = folder / VAL_MAP_NAME
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "no such folder"
        raise LabelError(f"{folder}: {kind}; name the folder that holds the images and {VAL_MAP_NAME}")
    if count is not None and count < 1:
        raise LabelError(f"{path}: {count} images asked for; ask for at least 1")
    lines = _read_lines(path)
    if count is not None and len(lines) < count:
        raise LabelError(
            f"{path}: lists {len(lines)} images, but {count} are asked for; ask for fewer or complete the map"
        )
    line_of_file: dict[str, int] = {}
    labels: list[int] = []
    for number, line in enumerate(lines[:count], start=1):
        file, label = _parse_line(path, number, line)
        if file in line_of_file:
            raise LabelError(
                f"{path}:{number}: {file} is already on line {line_of_file[file]}; take one of the two lines out"
            )
        if not (folder / file).is_file():
            raise LabelError(f"{path}:{number}: no image {folder / file}; restore it, or take the line out of the map")
        if class_count is not None and label >= class_count:
            raise LabelError(
                f"{path}:{number}: label {label} is none of the classes 0..{class_count - 1}; correct the line"
            )
        line_of_file[file] = number
        labels.append(label)
    return ValMap(folder, tuple(line_of_file), tuple(labels))


def count_unnamed_images(val_map: ValMap) -> int:
    """How many JPEG files lie in the data set's folder itself that the map does not name."""
    suffixes = (".jpeg", ".jpg")
    present = {entry.name for entry in os.scandir(val_map.dataset_path) if entry.name.lower().endswith(suffixes)}
    return len(present.difference(val_map.files))


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LabelError(
            f"{path}: no label map; the data set's folder must hold its images and a {VAL_MAP_NAME} "
            "with one 'file label' per line"
        ) from None
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror}); check that it is a file you may read") from error
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{path}: not a text file (byte {error.start} is not UTF-8); expected one 'file label' per line"
        ) from error
    if not text:
        raise LabelError(f"{path}: empty; expected one 'file label' per line")
    return text.removesuffix("\n").split("\n")


def _parse_line(path: Path, number: int, line: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2 or not re.fullmatch("[0-9]{1,9}", fields[1]):
        raise LabelError(
            f"{path}:{number}: expected 'file label' with a label from 0, found {line[:80]!r}; correct the line"
        )
    file = PurePosixPath(fields[0])
    if file.is_absolute() or ".." in file.parts:
        raise LabelError(
            f"{path}:{number}: {fields[0]} lies outside the data set's folder; name files relative to {path.parent}"
        )
    return fields[0], int(fields[1])
