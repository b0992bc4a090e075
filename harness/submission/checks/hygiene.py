"""Rules about files and folders, whatever is in them. Source: MLPerf submission rules, repository checks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..documents import REHEARSAL_MARK
from .records import Problems, Rule, Submission

_ROOT_SUFFIXES: Final = (".md", ".pdf")


def _files_beside_divisions(submission: Submission) -> Problems:
    for path in _files_in(submission.root):
        if path.suffix not in _ROOT_SUFFIXES:
            yield path, "only .md and .pdf files may lie beside the divisions: move it into a submitter's folder"


def _files_beside_submitters(submission: Submission) -> Problems:
    for path in _files_in(submission.root / submission.division):
        yield path, "no file may lie directly in a division's folder: move it into a submitter's folder"


def _file_sizes(submission: Submission) -> Problems:
    limit = submission.rules.limits.file_bytes
    for path in _all_files(submission):
        if not path.is_symlink() and path.stat().st_size > limit:
            yield path, f"{path.stat().st_size} bytes, at most {limit} are allowed"


def _names(submission: Submission) -> Problems:
    for path in _everything(submission):
        if path.name.startswith("."):
            yield path, "names must not begin with a dot: remove it"
        elif any(character.isspace() for character in path.name):
            yield path, "names must not hold blanks: rename it"


def _pycache(submission: Submission) -> Problems:
    for path in _everything(submission):
        if path.name == "__pycache__":
            yield path, "compiled Python does not belong in a submission: remove it"


def _empty_folders(submission: Submission) -> Problems:
    for path in _everything(submission):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            yield path, "empty folder: remove it"


def _links(submission: Submission) -> Problems:
    for path in _everything(submission):
        if path.is_symlink():
            yield path, "links are not allowed: put the file itself there"


def _source(submission: Submission) -> Problems:
    folder = submission.base / submission.rules.layout.source
    if not folder.is_dir():
        yield folder, "folder of the source code is missing"
    elif not any(path.is_file() for path in folder.rglob("*")):
        yield folder, "folder of the source code holds no file"


def _calibration(submission: Submission) -> Problems:
    if submission.division != "closed" or not submission.rules.calibration_required:
        return
    places = [submission.base / submission.rules.layout.calibration, submission.base / "calibration.md"]
    if not any(path.is_file() and path.stat().st_size > 0 for path in places):
        yield places[0], "description of the calibration is missing or empty; without quantisation it says so"


def _systems_without_results(submission: Submission) -> Problems:
    folder = (submission.base / submission.rules.layout.system).parent
    systems = {path.name for path in submission.results.iterdir()} if submission.results.is_dir() else set()
    for path in sorted(folder.glob("*.json")):
        if path.stem not in systems:
            yield path, "describes a system without results: remove it or add results"


def _rehearsal(submission: Submission) -> Problems:
    if submission.rehearsal:
        return
    for path in _all_files(submission):
        if path.name == "README.md" and REHEARSAL_MARK in path.read_text(encoding="utf-8", errors="replace"):
            yield path, "this is a rehearsal, made of runs that are not for submission"


RULES: Final[tuple[Rule[Submission], ...]] = (
    Rule("root-files", _files_beside_divisions),
    Rule("division-files", _files_beside_submitters),
    Rule("file-size", _file_sizes),
    Rule("file-names", _names),
    Rule("pycache", _pycache),
    Rule("empty-folders", _empty_folders),
    Rule("links", _links),
    Rule("source", _source),
    Rule("calibration", _calibration),
    Rule("systems-without-results", _systems_without_results),
    Rule("rehearsal", _rehearsal),
)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _everything(submission: Submission) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(submission.base):
        found += [Path(folder) / name for name in (*folders, *files)]
    return sorted(found)


def _all_files(submission: Submission) -> list[Path]:
    return [path for path in _everything(submission) if path.is_file()]
