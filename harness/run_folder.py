"""The folder of one test: LoadGen's logs and run.json. Never holds two runs.

Rule for leftovers: whatever an earlier run left (finished or not) is moved aside as a whole, to a sibling named after
its start, when the new test is about to begin; a folder in which a run is going on, or which holds files that are no
run's, is refused. A folder in use is locked by the kernel (flock), so a crashed run leaves no lock behind.

While a test runs, some room on the disk is held back: if LoadGen's logs fill it up, run.json can still say so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from .errors import BadInputError, DiskFullError, RunFailedError

RUN_FILE: Final = "run.json"

_RESERVE_FILE: Final = ".reserve"
_RESERVE_BYTES: Final = 64 << 10
"""Room for run.json, twice because it is replaced, timings.json and accuracy.txt, several times over."""

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def utc_now() -> str:
    """E.g. 2026-08-01T12:00:00Z."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_run_file(folder: Path) -> dict[str, Any]:
    """run.json of a run. Raises: BadInputError if there is none or it is damaged."""
    path = folder / RUN_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{folder} is not the folder of a run: it has no {RUN_FILE}") from error
    except NotADirectoryError as error:
        raise BadInputError(f"{folder} is a file: name the folder of a run, which holds {RUN_FILE}") from error
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadInputError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise BadInputError(f"{path} is damaged: expected a JSON object")
    return record


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either the old one or the whole new one, whatever happens.

    Raises: DiskFullError, RunFailedError if the new one cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        problem = DiskFullError if error.errno in _DISK_FULL else RunFailedError
        raise problem(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


class RunFolder:
    """A folder claimed for one test: `claim`, then `begin`, `write`, `conclude`; `release` at the end in any case."""

    def __init__(self, path: Path, lock: int, created: list[Path]) -> None:
        self.path = path
        self._lock = lock
        self._created = created
        self._begun = False

    @classmethod
    def claim(cls, path: Path) -> RunFolder:
        """Create and lock the folder; earlier contents stay where they are until `begin`.

        Raises: BadInputError if it cannot be created or written, its disk is full, it is in use, or it holds files that
        are no run's.
        """
        path = path.absolute()
        created = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            claimed = cls(path, _lock(path), created)
            try:
                _take_room(path)
                (path / _RESERVE_FILE).unlink()
            except OSError:
                claimed.release()
                raise
        except OSError as error:
            raise BadInputError(
                f"cannot write to output folder {path}: {error.strerror}; choose another with --output"
            ) from error
        if any(path.iterdir()) and not (path / RUN_FILE).exists():
            claimed.release()
            raise BadInputError(
                f"output folder {path} holds files but no {RUN_FILE}: not a run's; choose another with --output"
            )
        return claimed

    def begin(self) -> Path | None:
        """Make the folder empty but for the room held back: an earlier run is moved to the returned sibling.

        Raises: DiskFullError if there is no room.
        """
        self._begun = True
        aside = self._move_aside() if any(self.path.iterdir()) else None
        try:
            _take_room(self.path)
        except OSError as error:
            raise DiskFullError(f"cannot write to output folder {self.path}: {error.strerror}") from error
        return aside

    def _move_aside(self) -> Path:
        aside = _free_sibling(self.path)
        self.path.rename(aside)
        self.path.mkdir()
        old_lock, self._lock = self._lock, _lock(self.path)
        os.close(old_lock)
        return aside

    def write(self, record: dict[str, Any]) -> None:
        """Replace run.json. Raises: DiskFullError, RunFailedError."""
        write_atomically(self.path / RUN_FILE, json.dumps(record, indent=2) + "\n")

    def conclude(self, record: dict[str, Any]) -> None:
        """`write` the verdict, in the room that was held back."""
        (self.path / _RESERVE_FILE).unlink(missing_ok=True)
        self.write(record)

    def is_full(self) -> bool:
        """Whether the disk has no room left but what is held back."""
        probe = self.path / f"{_RESERVE_FILE}.probe"
        try:
            _take_room(self.path, probe.name)
        except OSError as error:
            if error.errno in _DISK_FULL:
                return True
            raise
        probe.unlink()
        return False

    def release(self) -> None:
        """Unlock; if the test never began, remove the folders that `claim` created and nobody has used since."""
        try:
            if not self._begun:
                _remove_empty(self._created)
        finally:
            os.close(self._lock)


def _take_room(folder: Path, name: str = _RESERVE_FILE) -> None:
    """Make a file of _RESERVE_BYTES, or none. Raises: OSError."""
    path = folder / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise BadInputError(
            f"a run is going on in {folder}: wait for it or choose another folder with --output"
        ) from error
    return descriptor


def _remove_empty(folders: list[Path]) -> None:
    """Innermost first, up to one that something else has come to use, or has removed already."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            return


def _free_sibling(folder: Path) -> Path:
    try:
        stamp = _stamp(read_run_file(folder))
    except BadInputError:
        stamp = _UNKNOWN_STAMP
    for count in range(1, 1_000_000):
        sibling = folder.with_name(f"{folder.name}.{stamp}" + (f".{count}" if count > 1 else ""))
        if not sibling.exists():
            return sibling
    raise BadInputError(f"too many earlier runs beside {folder}")


def is_aside(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a run lies where `begin` moved it when a later one took its folder."""
    return re.search(rf"\.({re.escape(_stamp(record))}|{_UNKNOWN_STAMP})(\.\d+)?$", folder.name) is not None


_UNKNOWN_STAMP: Final = "earlier"


def _stamp(record: Mapping[str, Any]) -> str:
    started = str(record.get("started_utc", ""))
    return "".join(character for character in started if character.isalnum()) or _UNKNOWN_STAMP
