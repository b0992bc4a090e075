"""Preprocessed images on disk: one memory-mapped uint8 array, built once, in parallel, resumable at any moment.

A store is a folder of four files:

- `images.u8`: pictures [N, H, W, 3] one after the other, without a header;
- `manifest.json`: recipe, files, labels, and for each finished picture a record of its source file and its own bytes;
- `journal.jsonl`: while building, the records of pictures finished since the manifest was written, one a line;
- `lock`: held with flock by the process that builds; the kernel lets go of it when that process dies, however it dies.

Why a kill or a power cut at any moment costs no more than the work of the last second: pictures are written in place;
every second their bytes are forced to disk, and only then their records are written to the journal and forced to disk.
A picture counts as finished when its record is whole. At the end the records move into the manifest, which is replaced
atomically, and only then the journal is removed.

A store may grow: asked for more images of the same list, the builder adds those that are missing; asked for fewer,
the first ones are used.

Called by the harness, which decides where stores live. May import: errors, imagenet, labels, manifest, spec.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ImageError, StoreError
from .imagenet import implementation, preprocess_bytes, read_file
from .labels import ValMap
from .manifest import (
    FORMAT,
    JOURNAL_NAME,
    MANIFEST_NAME,
    NEW_MANIFEST_NAME,
    Manifest,
    Record,
    read_journal,
    read_manifest,
    write_at,
    write_journal,
    write_manifest,
)
from .spec import PreprocessSpec

IMAGES_NAME: Final = "images.u8"
LOCK_NAME: Final = "lock"

_COMMIT_INTERVAL_S: Final = 1.0
_QUEUED_PER_WORKER: Final = 4
_CHECKED_AT_ONCE: Final = 64

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (pictures finished, pictures in all) now and then, from the thread that called the function."""


@dataclass(frozen=True)
class ArrayStore:
    """An open store. images: uint8 [N, H, W, 3], mapped read-only; labels: int64 [N]; files: their names, in order."""

    folder: Path
    images: np.memmap[Any, np.dtype[np.uint8]]
    labels: npt.NDArray[np.int64]
    files: tuple[str, ...]


def build_store(
    folder: str | os.PathLike[str],
    spec: PreprocessSpec,
    val_map: ValMap,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ArrayStore:
    """Make the store in `folder` hold all samples of `val_map`, doing only what is not done yet, and open it.

    workers: threads, which suffice since decoding and resizing release the GIL; by default as many as there are cores
    this process may run on. Raises ImageError for an image that cannot be used, StoreError as `open_store` and when
    another process is building, the folder holds something else or cannot be written, or the disk is full. Whatever
    was finished is kept in each case, and the next call continues from there.
    """
    folder = Path(folder)
    _check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            manifest, journal_bytes = _prepare(folder, spec, val_map)
            missing = [index for index in range(len(val_map)) if manifest.records[index] is None]
            if missing:
                if implementation() not in manifest.made_with:
                    manifest = replace(manifest, made_with=(*manifest.made_with, implementation()))
                    write_manifest(folder, manifest)
                threads = len(os.sched_getaffinity(0)) if workers is None else workers
                made = _fill(folder, spec, val_map, missing, journal_bytes, threads, progress)
                records = tuple(made.get(index, record) for index, record in enumerate(manifest.records))
                manifest = replace(manifest, records=records)
            if missing or journal_bytes:
                write_manifest(folder, manifest)
            (folder / JOURNAL_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(folder, error) from error
    return open_store(folder, spec, val_map)


def open_store(
    folder: str | os.PathLike[str],
    spec: PreprocessSpec,
    val_map: ValMap,
    *,
    verify: Literal["nothing", "pictures", "everything"] = "nothing",
    progress: Progress | None = None,
) -> ArrayStore:
    """Open the samples of `val_map` from a finished store, after checking that they are what they should be.

    Always checked: recipe, list of files and labels, and each source image's size and modification time; an image that
    only looks newer is read again and passes if its bytes are the same. verify: "pictures" reads every stored picture
    and compares its checksum, which finds damage to a file whose size is right; "everything" also reads every source
    image. progress: of the pictures verified.

    Raises StoreError: no store, unfinished, stale, foreign or damaged; ImageError: a source image is gone.
    """
    folder = Path(folder)
    _check_folder(folder)
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            raise StoreError(f"{folder}: no store of preprocessed images; build it first")
        manifest, _ = read_journal(folder, manifest)
        _check_list(folder, manifest, spec, val_map)
        finished = sum(record is not None for record in manifest.records[: len(val_map)])
        if finished < len(val_map):
            raise StoreError(
                f"{folder}: only {finished} of {len(val_map)} images are preprocessed; build the store, "
                "which continues where it stopped"
            )
        _check_sources(folder, manifest, val_map, thoroughly=verify == "everything")
        images = _map_images(folder, manifest, len(val_map))
        if verify != "nothing":
            _check_pictures(folder, manifest, images, progress)
    except OSError as error:
        raise _disk_error(folder, error) from error
    return ArrayStore(folder, images, np.array(val_map.labels, np.int64), val_map.files)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The file stays: unlinking it would let two builders lock two files of one name."""
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            raise StoreError(
                f"{folder}: process {owner or 'unknown'} is building this store; wait for it or end it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _prepare(folder: Path, spec: PreprocessSpec, val_map: ValMap) -> tuple[Manifest, int]:
    """Make the folder ready to be filled: manifest and image file as long as needed. Returns as `read_journal`."""
    manifest = read_manifest(folder)
    if manifest is None:
        strangers = sorted({entry.name for entry in folder.iterdir()} - {LOCK_NAME, IMAGES_NAME, NEW_MANIFEST_NAME})
        if strangers:
            raise StoreError(
                f"{folder}: not a store of preprocessed images (it holds {strangers[0]}, but no {MANIFEST_NAME}); "
                "choose an empty or a new folder"
            )
        shape = (spec.crop_height, spec.crop_width, 3)
        manifest = Manifest(FORMAT, spec.name, spec.digest(), shape, (), (), ())
    _check_list(folder, manifest, spec, val_map)
    manifest, journal_bytes = read_journal(folder, manifest)
    _check_sources(folder, manifest, val_map, thoroughly=False)
    if manifest.files:
        _map_images(folder, manifest, len(manifest.files))
    added = len(val_map) - len(manifest.files)
    if added > 0:
        records = manifest.records + (None,) * added
        manifest = replace(manifest, files=val_map.files, labels=val_map.labels, records=records)
        _reserve(folder / IMAGES_NAME, len(val_map) * manifest.picture_bytes)
        write_manifest(folder, manifest)
    return manifest, journal_bytes


def _fill(
    folder: Path,
    spec: PreprocessSpec,
    val_map: ValMap,
    missing: list[int],
    journal_bytes: int,
    workers: int,
    progress: Progress | None,
) -> Mapping[int, Record]:
    """Preprocess the missing pictures; their records, by index. What is finished is in the journal, whatever happens.

    journal_bytes: the length of the journal's whole lines; what follows them is overwritten.
    """
    made: dict[int, Record] = {}
    uncommitted: dict[int, Record] = {}
    queue: deque[tuple[int, Future[Record]]] = deque()
    last_commit_s = time.monotonic()
    journal_path = folder / JOURNAL_NAME
    with contextlib.ExitStack() as stack:
        images = stack.enter_context((folder / IMAGES_NAME).open("r+b", buffering=0)).fileno()
        journal = stack.enter_context(journal_path.open("r+b" if journal_path.exists() else "xb", buffering=0)).fileno()
        os.ftruncate(journal, journal_bytes)

        def commit() -> None:
            nonlocal journal_bytes, last_commit_s
            os.fdatasync(images)
            journal_bytes = write_journal(journal, uncommitted, journal_bytes)
            uncommitted.clear()
            last_commit_s = time.monotonic()

        def collect() -> None:
            index, future = queue.popleft()
            made[index] = uncommitted[index] = future.result()
            if progress is not None:
                progress(len(val_map) - len(missing) + len(made), len(val_map))
            if time.monotonic() - last_commit_s > _COMMIT_INTERVAL_S:
                commit()

        stack.callback(commit)
        pool = ThreadPoolExecutor(workers, "preprocess")
        stack.callback(pool.shutdown, cancel_futures=True)
        for index in missing:
            queue.append((index, pool.submit(_make, images, index, spec, val_map)))
            if len(queue) == workers * _QUEUED_PER_WORKER:
                collect()
        while queue:
            collect()
    return made


def _make(images: int, index: int, spec: PreprocessSpec, val_map: ValMap) -> Record:
    """Preprocess one image into its place in the image file (open as descriptor `images`)."""
    path = val_map.dataset_path / val_map.files[index]
    mtime_ns = _stat(path).st_mtime_ns  # before reading: a change in between must look like a change
    data = read_file(path)
    picture = preprocess_bytes(data, path, spec).tobytes()
    write_at(images, picture, index * len(picture))
    return Record(len(data), mtime_ns, hashlib.sha256(data).hexdigest(), zlib.crc32(picture))


def _check_list(folder: Path, manifest: Manifest, spec: PreprocessSpec, val_map: ValMap) -> None:
    """The store must come from this recipe, and one of the two lists of samples must be the beginning of the other."""
    have, want = manifest.recipe_digest, spec.digest()
    if have != want:
        made = f"{folder}: a store made by recipe {manifest.recipe} ({have[:12]}), not {spec.name} ({want[:12]})"
        if manifest.recipe != spec.name:
            raise StoreError(
                f"{made}: if the profile is wrong, ask for the other; else name another folder for this one"
            )
        raise StoreError(
            f"{made}, which has changed since: delete the folder and build again, or choose another folder"
        )
    have_samples = zip(manifest.files, manifest.labels, strict=True)
    want_samples = zip(val_map.files, val_map.labels, strict=True)
    for index, ((have, have_label), (want, want_label)) in enumerate(zip(have_samples, want_samples, strict=False)):
        if (have, have_label) != (want, want_label):
            raise _stale(
                folder,
                f"its sample {index} is {have} of class {have_label}, in {val_map.dataset_path} it is {want} "
                f"of class {want_label}",
            )


def _check_sources(folder: Path, manifest: Manifest, val_map: ValMap, thoroughly: bool) -> None:
    """The source of every finished picture asked for must be the file that was preprocessed."""
    for file, record in zip(val_map.files, manifest.records, strict=False):
        if record is None:
            continue
        path = val_map.dataset_path / file
        status = _stat(path)
        same = status.st_size == record.source_bytes
        if same and (thoroughly or status.st_mtime_ns != record.source_mtime_ns):
            same = hashlib.sha256(read_file(path)).hexdigest() == record.source_sha256
        if not same:
            raise _stale(folder, f"{path} has changed since it was preprocessed")


def _check_pictures(folder: Path, manifest: Manifest, images: npt.NDArray[np.uint8], progress: Progress | None) -> None:
    """On as many threads as there are cores: computing a checksum releases the GIL."""

    def first_damaged(start: int) -> int | None:
        for index in range(start, min(start + _CHECKED_AT_ONCE, len(images))):
            record = manifest.records[index]
            if record is not None and zlib.crc32(images[index]) != record.picture_crc32:
                return index
        return None

    starts = range(0, len(images), _CHECKED_AT_ONCE)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "verify") as pool:
        for start, damaged in zip(starts, pool.map(first_damaged, starts), strict=True):
            if damaged is not None:
                raise StoreError(
                    f"{folder}: picture {damaged} ({manifest.files[damaged]}) in {IMAGES_NAME} is damaged: its "
                    "checksum is not the one it was stored with; delete the folder and build the store again"
                )
            if progress is not None:
                progress(min(start + _CHECKED_AT_ONCE, len(images)), len(images))


def _map_images(folder: Path, manifest: Manifest, count: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    path = folder / IMAGES_NAME
    needed_bytes = count * manifest.picture_bytes
    have_bytes = path.stat().st_size if path.exists() else 0
    if have_bytes < needed_bytes:
        raise StoreError(
            f"{folder}: {IMAGES_NAME} has {have_bytes} bytes instead of {needed_bytes}; delete the folder and build "
            "the store again"
        )
    return np.memmap(path, np.uint8, "r", shape=(count, *manifest.picture_shape))


def _reserve(path: Path, size_bytes: int) -> None:
    """Make the file this long with its blocks allocated, so that a full disk shows now and not in the middle."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        old_bytes = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError:
            os.ftruncate(descriptor, old_bytes)
            raise
    finally:
        os.close(descriptor)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise ImageError(f"{path}: no such image ({error.strerror}); restore it") from error


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder}: a file, not a folder; name a folder for the store of preprocessed images")


def _stale(folder: Path, reason: str) -> StoreError:
    return StoreError(f"{folder}: stale store: {reason}; delete the folder and build again, or choose another folder")


def _disk_error(folder: Path, error: OSError) -> StoreError:
    where = f"{folder}: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(f"{where}; make room and run again: what is finished is kept")
    return StoreError(f"{where}; choose a folder that you may write to")
