"""The record keeping of a store of preprocessed images: its manifest and its journal, and how they survive a crash.

Called by `store` alone. Knows files, not images. May import: errors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from .errors import StoreError

FORMAT: Final = "loadgen-numba preprocessed images, format 1"
MANIFEST_NAME: Final = "manifest.json"
NEW_MANIFEST_NAME: Final = MANIFEST_NAME + ".new"
JOURNAL_NAME: Final = "journal.jsonl"


@dataclass(frozen=True)
class Record:
    """What is known of one finished picture: its source's size, modification time and sha256, and its own crc32."""

    source_bytes: int
    source_mtime_ns: int
    source_sha256: str
    picture_crc32: int


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`; records[i] is None while picture i is not finished.

    made_with: the implementations (`imagenet.implementation`) that filled it, in turn; empty where a store was made
    before this was written down. It says where to look if pictures are wrong; the recipe alone makes a store stale,
    because all implementations agree to the byte.
    """

    format: str
    recipe: str
    recipe_digest: str
    picture_shape: tuple[int, int, int]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    records: tuple[Record | None, ...]
    made_with: tuple[str, ...] = ()

    @property
    def picture_bytes(self) -> int:
        height, width, channels = self.picture_shape
        return height * width * channels


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, or None when there is none. Raises StoreError when it is not one of ours, OSError."""
    path = folder / MANIFEST_NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(text)
        if fields["format"] != FORMAT:
            raise StoreError(
                f"{path}: unknown format {str(fields['format'])[:80]!r}, expected {FORMAT!r}; "
                "delete the folder and build the store again, or choose another folder"
            )
        fields["records"] = tuple(record and Record(**record) for record in fields["records"])
        fields.setdefault("made_with", ())
        for name in ("picture_shape", "files", "labels", "made_with"):
            fields[name] = tuple(fields[name])
        manifest = Manifest(**fields)
        if not len(manifest.files) == len(manifest.labels) == len(manifest.records):
            raise ValueError("lists of different lengths")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: not the manifest of a store ({type(error).__name__}: {error}); choose another folder, or delete "
            "this one and build the store again"
        ) from error
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically: after a crash there is the old one or the new one, whole. Raises OSError."""
    new = folder / NEW_MANIFEST_NAME
    try:
        with new.open("wb") as file:
            file.write(json.dumps(asdict(manifest)).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / MANIFEST_NAME)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_journal(folder: Path, manifest: Manifest) -> tuple[Manifest, int]:
    """The manifest with the journal's records added, and the length in bytes of the journal's whole lines.

    Reading stops at the first line that is not whole: what a crash has torn comes last.
    """
    records = list(manifest.records)
    whole_bytes = 0
    path = folder / JOURNAL_NAME
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            fields = json.loads(line)
            index = fields.pop("index")
            record = Record(**fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            break
        if not line.endswith(b"\n") or index not in range(len(records)):
            break
        records[index] = record
        whole_bytes += len(line)
    return replace(manifest, records=tuple(records)), whole_bytes


def write_journal(descriptor: int, records: Mapping[int, Record], offset_bytes: int) -> int:
    """Write records by index at this place of the journal and force them to disk; the place after them.

    The place is explicit so that a repetition after a failure (disk full) overwrites what the failure has torn.
    """
    lines = (json.dumps({"index": index, **asdict(record)}) + "\n" for index, record in records.items())
    data = "".join(lines).encode()
    write_at(descriptor, data, offset_bytes)
    os.fdatasync(descriptor)
    return offset_bytes + len(data)


def write_at(descriptor: int, data: bytes, offset_bytes: int) -> None:
    """Write all of data at this place of a file. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset_bytes)
        view = view[written:]
        offset_bytes += written
