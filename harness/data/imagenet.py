"""ImageNet's validation set as it is handed out, turned into a folder that `run` takes: JPEGs and val_map.txt.

Labels come from a val_map.txt, or from the development kit: its ground truth counts classes by ILSVRC2012_ID, and the
benchmark by the rank of the sorted synset ids; the kit's meta.mat holds both. Archives are read as foreign: members
that are links, or would lie elsewhere, are refused.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from preprocessing import VAL_MAP_NAME

from ..config import IMAGENET_CLASS_COUNT
from ..doctor import check_labels
from ..errors import BadInputError
from ..profiles import IMAGENET_VALIDATION_COUNT
from ..progress import Progress
from ..run_folder import write_atomically

_NAME: Final = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")
_GROUND_TRUTH: Final = "ILSVRC2012_validation_ground_truth.txt"
_META: Final = "meta.mat"
_START, _END = b"\xff\xd8", b"\xff\xd9"
"""Of a JPEG. Two files of the set have bytes behind the end marker, hence it is only looked for."""
_TAIL_BYTES: Final = 4096


def prepare(
    images: Path,
    output: Path | None,
    progress: Progress,
    *,
    devkit: Path | None,
    val_map: Path | None,
    count: int = IMAGENET_VALIDATION_COUNT,
) -> Path:
    """Make a dataset folder; returns it. Goes on where an interruption left it.

    images: ILSVRC2012_img_val.tar, or a folder of its JPEGs, which is completed in place unless there is an output.
    devkit, val_map: exactly one of them. Raises: BadInputError.
    """
    if (devkit is None) == (val_map is None):
        raise BadInputError("labels come from one of --devkit and --val-map: give one of them")
    labels = labels_of_devkit(devkit) if devkit is not None else None
    given = None if val_map is None else _read_val_map(val_map)
    if labels is not None and len(labels) != count:
        raise BadInputError(f"{devkit}: {_GROUND_TRUTH} has {len(labels)} lines, expected {count}")
    if images.is_dir():
        folder = images if output is None else output
        if folder != images:
            _copy_folder(images, folder, count, progress)
    else:
        if output is None:
            raise BadInputError("--images is an archive: name the folder to extract it to with --output")
        folder = output
        _extract(images, folder, count, progress)
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, count + 1)]
    _verify(folder, names, progress)
    pairs = given or list(zip(names, labels or [], strict=True))
    if sorted(name for name, _ in pairs) != names:
        raise BadInputError(f"{val_map} does not name the {count} images of the set, each once")
    pairs.sort()
    if count == IMAGENET_VALIDATION_COUNT:
        wrong = next((one for one in check_labels(names, [label for _, label in pairs]) if one.level == "fail"), None)
        if wrong is not None:
            raise BadInputError(f"labels: {wrong.text}")
    write_atomically(folder / VAL_MAP_NAME, "".join(f"{name} {label}\n" for name, label in pairs))
    return folder


def labels_of_devkit(archive: Path) -> list[int]:
    """Class 0..999 of each validation image, in the order of the file numbers.

    Raises: BadInputError if the archive is damaged, unsafe, or not the development kit, or SciPy is not installed.
    """
    found = {PurePosixPath(name).name: content for name, content in _small_files(archive, (_GROUND_TRUTH, _META))}
    missing = {_GROUND_TRUTH, _META} - found.keys()
    if missing:
        raise BadInputError(f"{archive} holds no {min(missing)}: name ILSVRC2012_devkit_t12.tar.gz")
    rank = _rank_by_id(archive, found[_META])
    labels = []
    for number, line in enumerate(found[_GROUND_TRUTH].decode("ascii", "replace").split(), start=1):
        if not line.isdigit() or int(line) not in rank:
            raise BadInputError(f"{archive}: {_GROUND_TRUTH}:{number}: {line!r} is no id of meta.mat")
        labels.append(rank[int(line)])
    return labels


def _rank_by_id(archive: Path, meta: bytes) -> dict[int, int]:
    """ILSVRC2012_ID -> rank of its synset id among those of the classes, which come first in meta.mat."""
    try:
        from scipy import io as scipy_io
    except ModuleNotFoundError as error:
        raise BadInputError(
            "reading the devkit's meta.mat needs SciPy: pip install 'loadgen-numba[imagenet]'"
        ) from error
    try:
        synsets = scipy_io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        ids = {str(row["WNID"]): int(row["ILSVRC2012_ID"]) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:
        raise BadInputError(f"{archive}: {_META} is damaged: {error}") from error
    if len(ids) > IMAGENET_CLASS_COUNT:
        raise BadInputError(f"{archive}: {_META} names {len(ids)} classes, at most {IMAGENET_CLASS_COUNT} are there")
    return {ids[synset]: rank for rank, synset in enumerate(sorted(ids))}


def _read_val_map(path: Path) -> list[tuple[str, int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--val-map {path}: {error}") from error
    pairs = []
    for number, line in enumerate(filter(None, lines), start=1):
        words = line.split()
        if len(words) != 2 or not words[1].isdigit() or int(words[1]) >= IMAGENET_CLASS_COUNT:
            raise BadInputError(
                f"{path}:{number}: {line!r} is not a file name and a class 0..{IMAGENET_CLASS_COUNT - 1}"
            )
        pairs.append((PurePosixPath(words[0]).name, int(words[1])))
    return pairs


def _members(archive: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Plain files of an archive, one after the other. Raises: BadInputError for anything that is unsafe."""
    try:
        with tarfile.open(archive, mode="r|*") as file:
            for member in file:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise BadInputError(f"{archive}: member {member.name!r} lies outside the archive's folder: refused")
                if member.isdir():
                    continue
                if not member.isreg():
                    raise BadInputError(f"{archive}: member {member.name!r} is a link or a device: refused")
                yield file, member
    except FileNotFoundError as error:
        raise BadInputError(f"{archive}: no such file") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInputError(f"{archive} is damaged: {error}") from error


def _small_files(archive: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for file, member in _members(archive):
        if PurePosixPath(member.name).name in names:
            content = file.extractfile(member)
            assert content is not None
            yield member.name, content.read()


def _extract(archive: Path, folder: Path, count: int, progress: Progress) -> None:
    progress.phase(f"extracting {archive}")
    for done, (file, member) in enumerate(_members(archive), start=1):
        name = PurePosixPath(member.name).name
        if not _NAME.fullmatch(name):
            raise BadInputError(f"{archive}: member {member.name!r} is none of ImageNet's validation images")
        folder.mkdir(parents=True, exist_ok=True)
        if not _has(folder / name, member.size):
            content = file.extractfile(member)
            assert content is not None
            _write(content, folder / name)
        progress.update(f"extracting {archive.name}: {done} of {count} images")


def _copy_folder(images: Path, folder: Path, count: int, progress: Progress) -> None:
    progress.phase(f"copying {images}")
    folder.mkdir(parents=True, exist_ok=True)
    for done, path in enumerate(sorted(images.glob("*.JPEG")), start=1):
        if _NAME.fullmatch(path.name) and not _has(folder / path.name, path.stat().st_size):
            with path.open("rb") as content:
                _write(content, folder / path.name)
        progress.update(f"copying {images.name}: {done} of {count} images")


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(content: IO[Any], path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            shutil.copyfileobj(content, file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _verify(folder: Path, names: Sequence[str], progress: Progress) -> None:
    """Every image is there and is a whole JPEG, as far as its two ends show. Raises: BadInputError."""
    progress.phase(f"verifying {len(names)} images")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BadInputError(f"{folder} lacks {len(missing)} of {len(names)} images, the first is {missing[0]}")
    for done, name in enumerate(names, start=1):
        path = folder / name
        with path.open("rb") as file:
            start = file.read(len(_START))
            file.seek(-min(_TAIL_BYTES, path.stat().st_size), os.SEEK_END)
            if start != _START or _END not in file.read():
                raise BadInputError(f"{path} is no whole JPEG: remove it and give the archive again")
        progress.update(f"verifying: {done} of {len(names)} images")
