"""What a report is about: folders of runs and JSON files of benches, found under the paths that were named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..bench.record import SCHEMA as BENCH_SCHEMA
from ..errors import BadInputError
from ..run_folder import RUN_FILE, is_aside, read_run_file

_OPENING_BYTES: Final = 100
"""In which `bench` states its schema."""


@dataclass(frozen=True)
class RunSource:
    """The folder of a run, and its run.json."""

    folder: Path
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Sources:
    """In the order in which they were named, each once. left_out: earlier runs, found in a search."""

    runs: tuple[RunSource, ...]
    benches: tuple[Path, ...]
    left_out: tuple[Path, ...]


def find_sources(paths: Sequence[Path]) -> Sources:
    """paths: folders of runs, folders that hold some at any depth, JSON files of `bench`.

    An earlier run that lies aside is taken only if it is named itself.
    Raises: BadInputError for a path that is or holds neither, or a run.json that cannot be read.
    """
    runs: dict[Path, RunSource] = {}
    benches: dict[Path, Path] = {}
    left_out: dict[Path, Path] = {}
    for named in paths:
        found = list(_found(named))
        if not found:
            raise BadInputError(
                f"{named} holds no run ({RUN_FILE}) and no JSON of a bench: name folders that `run` or `campaign` "
                "made, or files that `bench` made"
            )
        for path in found:
            if path.name != RUN_FILE:
                benches.setdefault(path.resolve(), path)
                continue
            source = RunSource(path.parent, read_run_file(path.parent))
            if path.parent != named and is_aside(source.folder, source.record):
                left_out.setdefault(path.resolve(), source.folder)
            else:
                runs.setdefault(path.resolve(), source)
    aside = tuple(folder for resolved, folder in left_out.items() if resolved not in runs)
    return Sources(tuple(runs.values()), tuple(benches.values()), aside)


def _found(named: Path) -> Iterator[Path]:
    if named.is_file():
        if not _is_bench(named):
            raise BadInputError(
                f'{named} is no JSON of a bench (its "schema" is not {BENCH_SCHEMA!r}), and runs are folders'
            )
        yield named
    elif (named / RUN_FILE).exists():
        yield named / RUN_FILE
    elif not named.is_dir():
        raise BadInputError(f"{named}: no such file or folder")
    else:
        for folder, subfolders, files in os.walk(named, onerror=_raise):
            subfolders.sort()
            for name in sorted(files):
                path = Path(folder) / name
                if name == RUN_FILE or (name.endswith(".json") and _is_bench(path)):
                    yield path


def _is_bench(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'"schema": "{BENCH_SCHEMA}"'.encode() in file.read(_OPENING_BYTES)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise BadInputError(f"cannot read {error.filename}: {error.strerror}") from error
