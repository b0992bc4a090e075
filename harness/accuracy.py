"""Top-1 accuracy of an accuracy run, by the rule of MLCommons' accuracy-imagenet.py.

The first answer to each image counts (MultiStream may ask twice). Unlike that script, a log that does not answer every
image of the run's set is refused: it divides by the images seen, so that half a run looks like a whole one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from preprocessing import PreprocessingError, read_val_map

from .config import IMAGENET_CLASS_COUNT
from .errors import BadInputError, RunFailedError
from .responses import decode
from .results import ACCURACY_LOG, read_result
from .run_folder import read_run_file, write_atomically

ACCURACY_FILE: Final = "accuracy.txt"


@dataclass(frozen=True)
class Accuracy:
    """good of total images have the right class."""

    good: int
    total: int

    @property
    def percent(self) -> float:
        return 100.0 * self.good / self.total

    @property
    def line(self) -> str:
        """The official script's own line."""
        return f"accuracy={self.percent:.3f}%, good={self.good}, total={self.total}"


def score(entries: Sequence[Mapping[str, Any]], labels: Sequence[int]) -> Accuracy:
    """entries: of mlperf_log_accuracy.json. labels: class 0..999 by sample index; every index must be answered.

    Raises: ValueError with the reason if an entry is malformed or images are unanswered or unknown.
    """
    scored = score_some(entries, labels)
    if scored.total < len(labels):
        raise ValueError(f"it answers {scored.total} of the run's {len(labels)} images")
    return scored


def score_some(entries: Sequence[Mapping[str, Any]], labels: Sequence[int]) -> Accuracy:
    """As `score`, over the images that are answered, as the official script does."""
    answers: dict[int, int] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            index, answer = entry["qsl_idx"], decode(entry["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"entry {number} of {len(entries)} is malformed ({error})") from error
        answers.setdefault(index, answer)
    unknown = [index for index in answers if not 0 <= index < len(labels)]
    if unknown:
        raise ValueError(f"sample {unknown[0]} is not one of the run's {len(labels)} images")
    good = sum(labels[index] == answer for index, answer in answers.items())
    return Accuracy(good, len(answers))


def score_run(folder: Path, dataset_path: Path | None = None) -> Accuracy:
    """Score a finished accuracy run and write accuracy.txt beside its log.

    dataset_path: where val_map.txt is now, if the dataset was moved since.
    Raises: BadInputError if the folder holds no finished accuracy run, or its log is incomplete.
    """
    record = read_run_file(folder)
    status, mode = record.get("status"), record.get("config", {}).get("mode")
    if status != "finished":
        raise BadInputError(
            f"{folder}: this run is {status!r}, not finished; only finished runs are scored: run it again"
        )
    if mode != "accuracy":
        raise BadInputError(f"{folder}: this is a {mode} run; only runs with --accuracy can be scored")
    try:
        result = read_result(folder)
    except RunFailedError as error:
        raise BadInputError(f"{error}; not scored: run it again") from error
    if result.mode != "AccuracyOnly":
        raise BadInputError(
            f"{folder}: LoadGen ran in mode {result.mode} (an audit file?), not AccuracyOnly; not scored"
        )
    if result.errors:
        raise BadInputError(f"{folder}: LoadGen logged an error: {result.errors[0]}; not scored")
    labels = labels_of(dataset_path or Path(record["config"]["dataset_path"]), result.accuracy_sample_count)
    path = folder / ACCURACY_LOG
    try:
        accuracy = score(_read_log(path), labels)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} is not a complete accuracy log: {error}; not scored: run it again") from error
    write_atomically(folder / ACCURACY_FILE, accuracy.line + "\n")
    return accuracy


def labels_of(dataset_path: Path, sample_count: int) -> Sequence[int]:
    """Class 0..999 of the first images of a dataset. Raises: BadInputError."""
    try:
        return read_val_map(dataset_path, sample_count, class_count=IMAGENET_CLASS_COUNT).labels
    except PreprocessingError as error:
        raise BadInputError(f"{error}; --dataset-path names the folder if it has moved") from error


def _read_log(path: Path) -> list[Mapping[str, Any]]:
    entries = json.loads(path.read_text(encoding="ascii"))
    if not isinstance(entries, list):
        raise ValueError("expected a JSON list")
    return entries
