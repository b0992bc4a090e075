"""A file from the web, whole or not at all: goes on where it was cut off, and is what its checksum says.

The part that has arrived lies beside the target, under its name and `.part`.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from ..errors import BadInputError, RunFailedError
from ..progress import Progress

_BLOCK_BYTES: Final = 1 << 18
_TRIES: Final = 5
_MB: Final = 1e6
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416
_TEMPORARY: Final = frozenset({408, 429, 500, 502, 503, 504})


def download(
    url: str, md5: str, target: Path, progress: Progress, *, stall_s: float = 30.0, pause_s: float = 2.0
) -> None:
    """Fetch a file; one that is there already is only checked.

    stall_s: how long nothing may arrive before the connection is given up and taken up anew; pause_s: before that.
    Raises: BadInputError if another file is there or there is no such address; RunFailedError if it cannot be had
    (what has arrived stays), or what came is not what the checksum says (it is removed).
    """
    if target.exists():
        if target.is_file() and _md5_of(target) == md5:
            return
        raise BadInputError(f"{target} is there and is another file (md5 is not {md5}): move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    progress.phase(f"downloading {url}")
    for number in range(1, _TRIES + 1):
        try:
            complete = _fetch(url, part, progress, stall_s)
        except urllib.error.HTTPError as error:
            if error.code not in _TEMPORARY:
                raise BadInputError(f"{url}: the server answers {error.code} {error.reason}") from error
            problem = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            problem = str(error) or type(error).__name__
        else:
            if complete:
                break
            problem = "the connection ended early"
        if number == _TRIES:
            arrived = part.stat().st_size if part.exists() else 0
            raise RunFailedError(
                f"{url}: {problem}, {_TRIES} times; {arrived / _MB:.1f} MB lie in {part}: "
                "the same command goes on there"
            )
        progress.note(f"{problem}; going on after {pause_s:g} s")
        time.sleep(pause_s)
    if _md5_of(part) != md5:
        part.unlink()
        raise RunFailedError(f"{url}: what came has not the md5 {md5} and was removed: try again, or another network")
    part.replace(target)


def _fetch(url: str, part: Path, progress: Progress, stall_s: float) -> bool:
    """Append what is missing of a file; whether that was all, by the length that the server states."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=stall_s)
    except urllib.error.HTTPError as error:
        if have and error.code == _RANGE_NOT_SATISFIABLE:
            return True  # nothing is missing; if it is too much, the checksum will say so
        raise
    with answer, part.open("ab") as file:
        if have and answer.status != _PARTIAL:
            file.truncate(0)
            have = 0
        stated = answer.headers.get("Content-Length")
        total = have + int(stated) if stated else None
        while block := answer.read1(_BLOCK_BYTES):  # what is there, so that a stall loses nothing
            file.write(block)
            have += len(block)
            whole = f" of {total / _MB:.1f}" if total else ""
            progress.update(f"downloading {part.stem}: {have / _MB:.1f}{whole} MB")
        file.flush()
        os.fsync(file.fileno())
    return total is None or have >= total


def _md5_of(path: Path) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            md5.update(block)
    return md5.hexdigest()
