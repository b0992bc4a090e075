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


STEADY_PLUGIN = """
import itertools, time
import numpy as np

class Runner:
    def __init__(self):
        self.calls = itertools.count()
        self.seen = set()

    def prepare(self, images):
        return np.ascontiguousarray(images[:, 0, 0, 0])

    def predict(self, samples):
        seconds = {seconds}
        time.sleep(seconds)
        return {answer}

    def describe(self):
        return {{"engine": "steady", "precision": "fp32"}}

def open_runner(request):
    return Runner()
"""


def write_steady_plugin(
    folder: Path, name: str, seconds: str = "0.001", answer: str = "samples.astype(np.int64)"
) -> None:
    """A backend that takes a time of its own choosing. seconds, answer: expressions over `self` and `samples`."""
    write_plugin(folder, name, STEADY_PLUGIN.format(seconds=seconds, answer=answer))


def write_run_logs(
    folder: Path,
    scenario: str,
    metric: float,
    *,
    answers: list[tuple[int, float]] | None = None,
    errors: int = 0,
    **values: object,
) -> Path:
    """LoadGen's logs, as far as verification reads them: metric in ns or per second; answers as (image, class)."""
    folder.mkdir(parents=True)
    key, line = {
        "SingleStream": ("early_stopping_latency_ss", f" * Early stopping 90.0th percentile estimate: {metric:.0f}"),
        "MultiStream": ("early_stopping_latency_ms", f" * Early stopping 99.0th percentile estimate: {metric:.0f}"),
        "Offline": ("result_samples_per_second", f"Samples per second: {metric:g}"),
        "Server": ("result_completed_samples_per_sec", f"Completed samples per second    : {metric:.2f}"),
    }[scenario]
    found = {"effective_scenario": scenario, key: metric, "result_validity": "VALID", **values}
    if scenario == "Server":
        found.setdefault("effective_target_latency_ns", 15_000_000)
    records = [{"key": key, "value": value, "metadata": {"is_error": False}} for key, value in found.items()]
    records += [{"key": "error_runtime", "value": "lost", "metadata": {"is_error": True}}] * errors
    (folder / "mlperf_log_detail.txt").write_text("".join(f":::MLLOG {json.dumps(record)}\n" for record in records))
    verdict = found["result_validity"]
    (folder / "mlperf_log_summary.txt").write_text(f"Scenario : {scenario}\n{line}\nResult is : {verdict}\n")
    entries = [
        {"seq_id": number, "qsl_idx": index, "data": np.float32(answer).tobytes().hex().upper()}
        for number, (index, answer) in enumerate(answers or [])
    ]
    (folder / "mlperf_log_accuracy.json").write_text(json.dumps(entries))
    return folder
