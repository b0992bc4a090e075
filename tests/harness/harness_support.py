"""What several test files of the harness share besides fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_COUNT = 20
"""No multiple of 8, so that MultiStream repeats samples in accuracy mode."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


Command = Callable[..., Finished]


def official_score(log: Path, val_map: Path) -> tuple[int, int]:
    """MLCommons' scoring rule, written independently of the harness: (good, total), first answer per sample counts."""
    labels = [int(line.split()[1]) for line in val_map.read_text().splitlines()]
    first: dict[int, bytes] = {}
    for entry in json.loads(log.read_text()):
        first.setdefault(entry["qsl_idx"], bytes.fromhex(entry["data"]))
    answers = {index: int(np.frombuffer(data, "<f4")[0]) for index, data in first.items()}
    return sum(labels[index] == answer for index, answer in answers.items()), len(answers)


def run_record(folder: Path) -> dict[str, Any]:
    """run.json."""
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def write_plugin(folder: Path, name: str, source: str) -> None:
    """An installed distribution with a backend `name`, as a plugin's author would make one."""
    (folder / f"{name}_plugin.py").write_text(source)
    metadata = folder / f"{name}_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[loadgen_numba.backends]\n{name} = {name}_plugin:open_runner\n")
