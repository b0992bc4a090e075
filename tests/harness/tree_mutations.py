"""A failing example for every rule of `check`: what is done to a good closed edge tree, and the rule that it breaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from submission_support import DROPPED, rewrite_detail

Change: TypeAlias = Callable[[Path], object]

BASE = Path("closed/Acme")
BENCHMARK = BASE / "results/box1/resnet50"
SYSTEM = BASE / "systems/box1.json"


def _edit_json(place: Path, **changes: Any) -> Change:
    def change(tree: Path) -> None:
        values = json.loads((tree / place).read_text())
        values = {key: value for key, value in {**values, **changes}.items() if value is not DROPPED}
        (tree / place).write_text(json.dumps(values))

    return change


def _edit_log(place: Path, **changes: Any) -> Change:
    return lambda tree: rewrite_detail(tree / place, lambda key, value: changes.get(key, value))


def _add_error(place: Path) -> Change:
    def change(tree: Path) -> None:
        record = {"key": "error_runtime", "value": "lost", "metadata": {"is_error": True}}
        with (tree / place).open("a") as log:
            log.write(":::MLLOG " + json.dumps(record) + "\n")

    return change


def _replace(place: Path, old: str, new: str) -> Change:
    def change(tree: Path) -> None:
        text = (tree / place).read_text()
        assert old in text
        (tree / place).write_text(text.replace(old, new))

    return change


def _write(place: Path, text: str = "") -> Change:
    def change(tree: Path) -> None:
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_text(text)

    return change


def _remove(place: Path) -> Change:
    return lambda tree: shutil.rmtree(tree / place) if (tree / place).is_dir() else (tree / place).unlink()


def _move(place: Path, to: Path) -> Change:
    return lambda tree: (tree / place).rename(tree / to)


def _copy(place: Path, to: Path) -> Change:
    return lambda tree: shutil.copytree(tree / place, tree / to)


def _big(place: Path) -> Change:
    def change(tree: Path) -> None:
        with (tree / place).open("wb") as file:
            file.truncate((50 << 20) + 1)

    return change


def _all(*changes: Change) -> Change:
    return lambda tree: [change(tree) for change in changes]


OFFLINE, STREAM, MULTI = (BENCHMARK / name for name in ("Offline", "SingleStream", "MultiStream"))
PERFORMANCE, ACCURACY = "performance/run_1/mlperf_log_detail.txt", "accuracy/mlperf_log_detail.txt"
TEST01, TEST04 = f"TEST01/{PERFORMANCE}", f"TEST04/{PERFORMANCE}"
EVERY_LOG = ("performance/run_1", "TEST01/performance/run_1", "TEST04/performance/run_1")


def server_bound(bound_ns: int) -> Change:
    """Of a tree with Server: another bound in all its logs."""
    logs = [BENCHMARK / "Server" / place / "mlperf_log_detail.txt" for place in EVERY_LOG]
    return _all(*(_edit_log(log, effective_target_latency_ns=bound_ns) for log in logs))


MUTATIONS: list[tuple[str, str, Change]] = [
    # name, rule it breaks, change
    ("unknown division folder", "divisions", lambda tree: (tree / "closd/Acme").mkdir(parents=True)),
    ("no results", "results", _remove(BASE / "results")),
    ("file beside divisions", "root-files", _write(Path("notes.txt"), "x")),
    ("file beside submitters", "division-files", _write(Path("closed/notes.md"), "x")),
    ("file of 50 MiB and a byte", "file-size", _big(BASE / "src/big.bin")),
    ("hidden file", "file-names", _write(BASE / "src/.hidden", "x")),
    ("blank in a name", "file-names", _write(BASE / "src/a b.txt", "x")),
    ("__pycache__", "pycache", _write(BASE / "src/__pycache__/a.pyc", "x")),
    ("empty folder", "empty-folders", lambda tree: (tree / BASE / "documentation/empty").mkdir()),
    ("broken link", "links", lambda tree: (tree / BASE / "src/link").symlink_to("nowhere")),
    ("code instead of src", "source", _move(BASE / "src", BASE / "code")),
    ("no calibration.md", "calibration", _all(_remove(BASE / "documentation"))),
    ("empty calibration.md", "calibration", _write(BASE / "documentation/calibration.md")),
    ("system without results", "systems-without-results", _write(BASE / "systems/box2.json", "{}")),
    ("marked as rehearsal", "rehearsal", _write(OFFLINE / "README.md", "**REHEARSAL, not a submission.**")),
    ("no system description", "system-description", _remove(SYSTEM)),
    ("damaged system description", "system-description", _write(SYSTEM, "{")),
    ("system field missing", "system-fields", _edit_json(SYSTEM, sw_notes=DROPPED)),
    ("system field empty", "system-fields", _edit_json(SYSTEM, cooling="")),
    ("accelerators as the number 0", "system-fields", _edit_json(SYSTEM, accelerators_per_node=0)),
    ("nodes not a number", "system-integers", _edit_json(SYSTEM, number_of_nodes="one")),
    ("status unknown", "system-status", _edit_json(SYSTEM, status="research")),
    ("system type unknown", "system-type", _edit_json(SYSTEM, system_type="Edge")),
    ("system type datacenter", "system-type", _edit_json(SYSTEM, system_type="datacenter")),
    ("another submitter", "system-submitter", _edit_json(SYSTEM, submitter="Ajax")),
    ("another division", "system-division", _edit_json(SYSTEM, division="open")),
    ("is_network false as a text", "system-network", _edit_json(SYSTEM, is_network="false")),
    ("unknown benchmark", "benchmarks", _copy(OFFLINE, BASE / "results/box1/resnet51/Offline")),
    ("scenario missing", "scenarios", _remove(OFFLINE)),
    ("Server on an edge system", "scenarios", _copy(OFFLINE, BENCHMARK / "Server")),
    ("scenario in lower case", "scenarios", _move(OFFLINE, BENCHMARK / "offline")),
    ("no measurements.json", "measurements", _remove(OFFLINE / "measurements.json")),
    ("measurement missing", "measurements", _edit_json(OFFLINE / "measurements.json", retraining=DROPPED)),
    ("measurement empty", "measurements", _edit_json(OFFLINE / "measurements.json", weight_data_types="")),
    ("no README.md", "readme", _remove(OFFLINE / "README.md")),
    ("empty README.md", "readme", _write(OFFLINE / "README.md")),
    ("empty user.conf", "user-conf", _write(OFFLINE / "user.conf")),
    ("user.conf that LoadGen ignores", "user-conf", _write(OFFLINE / "user.conf", "*.Offline.target_qps=5\n")),
    ("no summary", "performance-files", _remove(OFFLINE / "performance/run_1/mlperf_log_summary.txt")),
    ("run_2", "performance-files", _copy(OFFLINE / "performance/run_1", OFFLINE / "performance/run_2")),
    ("extra file beside logs", "performance-files", _write(OFFLINE / "performance/run_1/run.json", "{}")),
    ("extra file beside accuracy", "accuracy-files", _write(OFFLINE / "accuracy/run.json", "{}")),
    ("no accuracy.txt", "accuracy-files", _remove(OFFLINE / "accuracy/accuracy.txt")),
    ("torn detail log", "whole-logs", _replace(OFFLINE / PERFORMANCE, '"key"', '"key')),
    ("detail log cut off", "whole-logs", _edit_log(OFFLINE / PERFORMANCE, num_errors=DROPPED)),
    ("accuracy run as performance", "test-mode", _edit_log(OFFLINE / PERFORMANCE, effective_test_mode="AccuracyOnly")),
    ("logs of another scenario", "scenario-of-logs",
     _all(_remove(STREAM), _copy(OFFLINE, STREAM))),
    ("LoadGen error, performance", "loadgen-errors", _add_error(OFFLINE / PERFORMANCE)),
    ("LoadGen error, accuracy", "loadgen-errors", _add_error(OFFLINE / ACCURACY)),
    ("INVALID Offline", "validity", _edit_log(OFFLINE / PERFORMANCE, result_validity="INVALID")),
    ("INVALID SingleStream", "validity", _edit_log(STREAM / PERFORMANCE, result_validity="INVALID")),
    ("INVALID TEST01", "validity", _edit_log(OFFLINE / TEST01, result_validity="INVALID")),
    ("duration not met", "constraints", _edit_log(OFFLINE / PERFORMANCE, result_min_duration_met=False)),
    ("early stopping not met", "early-stopping", _edit_log(MULTI / PERFORMANCE, early_stopping_met=False)),
    ("no metric", "metric", _edit_log(STREAM / PERFORMANCE, early_stopping_latency_ss=0)),
    ("seed of another round", "seeds", _edit_log(OFFLINE / PERFORMANCE, effective_qsl_rng_seed=2465351861681999779)),
    ("1023 samples", "performance-sample-count",
     _edit_log(OFFLINE / PERFORMANCE, effective_performance_sample_count=1023)),
    ("599 seconds", "min-duration", _edit_log(STREAM / PERFORMANCE, effective_min_duration_ms=599_000)),
    ("599 seconds in TEST04", "min-duration", _edit_log(STREAM / TEST04, effective_min_duration_ms=599_000)),
    ("24,575 samples", "offline-samples", _edit_log(OFFLINE / PERFORMANCE, effective_samples_per_query=24_575)),
    ("49,999 images", "accuracy-coverage",
     _edit_log(OFFLINE / ACCURACY, effective_accuracy_sample_count=49_999, qsl_reported_total_count=49_999)),
    ("49,999 images scored", "accuracy-coverage",
     _replace(OFFLINE / "accuracy/accuracy.txt", "total=50000", "total=49999")),
    ("accuracy not its own quotient", "accuracy-line",
     _replace(OFFLINE / "accuracy/accuracy.txt", "accuracy=76.000", "accuracy=77.000")),
    ("accuracy below the target", "accuracy-target",
     _replace(OFFLINE / "accuracy/accuracy.txt", "accuracy=76.000%, good=38000", "accuracy=75.694%, good=37847")),
    ("no hash", "accuracy-hash", _replace(OFFLINE / "accuracy/accuracy.txt", "hash=", "sha=")),
    ("hash of another log", "accuracy-hash",
     _write(OFFLINE / "accuracy/accuracy.txt", f"accuracy=76.000%, good=38000, total=50000\n\nhash={'0' * 64}\n")),
    ("no hash in TEST01", "accuracy-hash", _write(OFFLINE / "TEST01/accuracy/accuracy.txt")),
    ("accuracy log not truncated", "accuracy-log-size",
     _write(OFFLINE / "accuracy/mlperf_log_accuracy.json", "[" + " " * 20_000 + "]")),
    ("TEST04 missing", "compliance-files", _remove(OFFLINE / "TEST04")),
    ("verify_accuracy.txt missing", "compliance-files", _remove(OFFLINE / "TEST01/verify_accuracy.txt")),
    ("TEST01 without its accuracy log", "compliance-files", _remove(OFFLINE / "TEST01/accuracy")),
    ("TEST04 failed", "compliance-performance",
     _write(OFFLINE / "TEST04/verify_performance.txt", "TEST FAIL: Test score invalid\n")),
    ("TEST01 answers differ", "compliance-accuracy",
     _write(OFFLINE / "TEST01/verify_accuracy.txt", "TEST FAIL\n")),
    ("TEST01 without its settings", "compliance-settings",
     _edit_log(OFFLINE / TEST01, effective_accuracy_log_sampling_target=0)),
    ("TEST04 log as performance log", "compliance-settings",
     _edit_log(OFFLINE / PERFORMANCE, effective_performance_issue_same=True)),
    ("TEST01 far slower than said", "compliance-recomputed",
     _edit_log(OFFLINE / TEST01, result_samples_per_second=1.0)),
    ("TEST01 of 16 samples a query", "compliance-same-load",
     _edit_log(MULTI / TEST01, effective_samples_per_query=16)),
]  # fmt: skip
