"""The score of an accuracy log: the official rule, and refusal of every log that is not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_support import official_score

from harness.accuracy import score, score_run
from harness.errors import BadInputError
from harness.results import read_result

LABELS = [27, 0, 999, 5]


def entry(index: int, answer: float) -> dict[str, Any]:
    """One entry as LoadGen writes it."""
    return {"seq_id": index, "qsl_idx": index, "data": np.float32(answer).astype("<f4").tobytes().hex().upper()}


def make_run(folder: Path, entries: list[dict[str, Any]], **changes: Any) -> Path:
    """A finished accuracy run over LABELS in `folder / "run"`, its dataset in `folder / "images"`."""
    images = folder / "images"
    images.mkdir()
    for index in range(len(LABELS)):
        (images / f"{index}.JPEG").touch()
    (images / "val_map.txt").write_text("".join(f"{i}.JPEG {label}\n" for i, label in enumerate(LABELS)))
    run = folder / "run"
    run.mkdir()
    record = {"status": "finished", "config": {"mode": "accuracy", "dataset_path": str(images)}} | changes
    (run / "run.json").write_text(json.dumps(record))
    detail = {
        "effective_scenario": "Offline",
        "effective_test_mode": "AccuracyOnly",
        "effective_target_latency_percentile": 0.99,
        "effective_accuracy_sample_count": len(LABELS),
        "effective_performance_sample_count": len(LABELS),
        "power_end": "01-01-2026 00:00:00.000",
    }
    (run / "mlperf_log_detail.txt").write_text("".join(detail_line(key, value) for key, value in detail.items()))
    lines = ",\n".join(json.dumps(item) for item in entries)
    (run / "mlperf_log_accuracy.json").write_text(f"[\n{lines}\n]\n")
    return run


def detail_line(key: str, value: Any, is_error: bool = False) -> str:
    return ":::MLLOG " + json.dumps({"key": key, "value": value, "metadata": {"is_error": is_error}}) + "\n"


RIGHT = [entry(2, 999), entry(0, 27), entry(3, 4), entry(1, 0)]


def test_the_peak_that_a_search_found_is_read(tmp_path: Path) -> None:
    """LoadGen says so in a message, in the words of its FindPeakPerformanceMode."""
    run = make_run(tmp_path, RIGHT)
    assert read_result(run).peak_qps is None
    detail = run / "mlperf_log_detail.txt"
    trial = detail_line("generic_message", "FindPeakPerformance: Found boundaries: [64.000000, 128.000000)")
    found = detail_line("generic_message", "FindPeakPerformance: Found peak performance field: 103.250000")
    detail.write_text(trial + found + detail.read_text())
    assert read_result(run).peak_qps == 103.25


def test_the_first_answer_counts_as_in_the_official_script(tmp_path: Path) -> None:
    entries = [*RIGHT, entry(3, 5), entry(0, 1)]
    run = make_run(tmp_path, entries)
    accuracy = score_run(run)
    assert accuracy.line == "accuracy=75.000%, good=3, total=4"
    assert (accuracy.good, accuracy.total) == official_score(
        run / "mlperf_log_accuracy.json", tmp_path / "images/val_map.txt"
    )
    assert (run / "accuracy.txt").read_text() == accuracy.line + "\n"


def test_a_moved_dataset_can_be_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, RIGHT)
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(BadInputError, match="--dataset-path"):
        score_run(run)
    assert score_run(run, tmp_path / "moved").good == 3


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (RIGHT[:3], "it answers 3 of the run's 4 images"),
        ([], "it answers 0 of"),
        ([*RIGHT, entry(4, 0)], "sample 4 is not one"),
        ([*RIGHT[:3], {"seq_id": 1, "qsl_idx": 1, "data": ""}], "entry 4 of 4 is malformed"),
        ([*RIGHT[:3], {"seq_id": 1, "qsl_idx": 1, "data": "xyz"}], "entry 4 of 4 is malformed"),
        ([*RIGHT[:3], {"seq_id": 1}], "entry 4 of 4 is malformed"),
    ],
)
def test_incomplete_answers_are_refused(entries: list[dict[str, Any]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        score(entries, LABELS)
    run = make_run(tmp_path, entries)
    with pytest.raises(BadInputError, match=reason):
        score_run(run)
    assert not (run / "accuracy.txt").exists()


@pytest.mark.parametrize("kept", [0, 1, 30, 0.5, 0.99])
def test_a_truncated_log_is_refused(kept: float, tmp_path: Path) -> None:
    run = make_run(tmp_path, RIGHT)
    log = run / "mlperf_log_accuracy.json"
    text = log.read_text()
    log.write_text(text[: int(kept * len(text)) if isinstance(kept, float) else kept])
    with pytest.raises(BadInputError, match="not a complete accuracy log"):
        score_run(run)


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_only_finished_runs_are_scored(status: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=f"'{status}'"):
        score_run(make_run(tmp_path, RIGHT, status=status))


def test_performance_runs_are_not_scored(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="performance run"):
        score_run(make_run(tmp_path, RIGHT, config={"mode": "performance"}))


def test_a_run_that_loadgen_faults_is_not_scored(tmp_path: Path) -> None:
    run = make_run(tmp_path, RIGHT)
    detail = run / "mlperf_log_detail.txt"
    detail.write_text(detail.read_text() + detail_line("error_invalid_config", "Multiple conf files", is_error=True))
    with pytest.raises(BadInputError, match="Multiple conf files"):
        score_run(run)


def test_a_detail_log_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, RIGHT)
    detail = run / "mlperf_log_detail.txt"
    whole = detail.read_text()
    detail.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(BadInputError, match="power_end"):
        score_run(run)
    detail.write_text(whole[:-5])
    with pytest.raises(BadInputError, match="torn record"):
        score_run(run)
    detail.unlink()
    with pytest.raises(BadInputError, match="missing"):
        score_run(run)


def test_a_damaged_run_file_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, RIGHT)
    (run / "run.json").write_text('{"status": "fin')
    with pytest.raises(BadInputError, match=r"run\.json"):
        score_run(run)
