"""Runs and trees for the tests of submissions: real LoadGen runs of the null backend, and the same as official ones.

A real official run takes ten minutes and 50,000 images. `as_official` rewrites what short runs logged about their
length and their data, as the logs of official runs have it; everything else stays what LoadGen wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

from harness.config import COMPLIANCE_TESTS, RunConfig, Scenario
from harness.progress import Quiet
from harness.run import run
from harness.submission import audit

DROPPED = object()
RATES = {"Server": 5000, "Offline": 100_000}
"""Server: over 459 queries, so that early stopping can end; Offline: no more than the 24,576 samples of the rules."""
IMAGES = 50_000
GOOD = 38_000
OFFICIAL = {
    "min_duration_ms": 600_000,
    "performance_sample_count": 1024,
    "accuracy_sample_count": IMAGES,
    "qsl_reported_total_count": IMAGES,
    "qsl_reported_performance_count": IMAGES,
}


AUDITED: dict[str, dict[str, Any]] = {
    "TEST01": {
        "effective_accuracy_log_sampling_target": 4096,
        "effective_accuracy_log_rng_seed": 720381539243781796,
    },
    "TEST04": {"effective_performance_issue_same": True, "effective_performance_issue_same_index": 3},
}


def short_runs(folder: Path, dataset: Path, scenarios: tuple[Scenario, ...], store: Path) -> Path:
    """Performance and accuracy runs of the null backend; returns the folder of the scenarios."""
    for scenario in scenarios:
        config = RunConfig(
            name="resnet50",
            profile="resnet50",
            scenario=scenario,
            mode="performance",
            backend="null",
            model=None,
            dataset_path=dataset,
            output=folder,
            store_path=store,
            min_duration_s=0.3 if scenario == "Server" else 0.05,
            target_qps=RATES.get(scenario),
            max_latency_s=30.0 if scenario == "Server" else None,  # whatever else the machine is doing
        )
        run(config, Quiet())
        run(RunConfig(**{**vars(config), "mode": "accuracy", "min_duration_s": None}), Quiet())
    return folder / "resnet50"


def as_official(runs: Path) -> None:
    """Rewrite runs in place as if they had been official ones; compliance tests become copies of the performance run.

    The null backend's own speed varies by more than a compliance test allows.
    """
    for scenario in runs.iterdir():
        for folder in scenario.iterdir():
            bound = {"effective_target_latency_ns": 15_000_000} if scenario.name == "Server" else {}
            rewrite_detail(
                folder / "mlperf_log_detail.txt",
                lambda key, value, bound=bound: bound.get(key, _official_value(key, value)),
            )
            record = json.loads((folder / "run.json").read_text())
            record["not_submittable"] = record["not_closed"] = []
            record["backend"] = {"engine": "null", "precision": "fp32"}
            if folder.name == "accuracy":
                write_accuracy_log(folder / "mlperf_log_accuracy.json")
                line = f"accuracy={100 * GOOD / IMAGES:.3f}%, good={GOOD}, total={IMAGES}"
                record["accuracy"] = {"line": line, "good": GOOD, "total": IMAGES}
                (folder / "accuracy.txt").write_text(line + "\n")
            (folder / "run.json").write_text(json.dumps(record))
        for test in COMPLIANCE_TESTS:
            shutil.copytree(scenario / "performance", scenario / test)
            shown = AUDITED[test]
            rewrite_detail(
                scenario / test / "mlperf_log_detail.txt", lambda key, value, shown=shown: shown.get(key, value)
            )
            write_accuracy_log(scenario / test / "mlperf_log_accuracy.json", 4096 if test == "TEST01" else 0)
            assert audit.verify_again(test, scenario).passed


def rewrite_detail(path: Path, change: Callable[[str, Any], Any]) -> None:
    """Give each record of a detail log the value change(key, value); DROPPED drops it."""
    lines = []
    for line in path.read_text().splitlines():
        entry = json.loads(line.removeprefix(":::MLLOG "))
        entry["value"] = change(entry["key"], entry["value"])
        if entry["value"] is not DROPPED:
            lines.append(":::MLLOG " + json.dumps(entry))
    path.write_text("\n".join(lines) + "\n")


def write_accuracy_log(path: Path, images: int = IMAGES) -> None:
    """Answers of class 0, in LoadGen's own form."""
    answer = np.float32(0).tobytes().hex().upper()
    entries = [f'{{ "seq_id" : {number}, "qsl_idx" : {number}, "data" : "{answer}" }}' for number in range(images)]
    path.write_text("[\n" + ",\n".join(entries) + "\n]\n")


def snapshot(tree: Path) -> dict[str, str]:
    """Relative path -> digest of every file."""
    return {
        path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


def _official_value(key: str, value: Any) -> Any:
    return OFFICIAL.get(re.sub("^(effective|requested)_", "", key), value)


def quantised_model() -> onnx.ModelProto:
    """The least that is one."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        net (float[1, 4] x) => (float[1, 4] y)
        <float scale = {0.5}, int8 zero = {0}>
        {
            q = QuantizeLinear(x, scale, zero)
            y = DequantizeLinear(q, scale, zero)
        }
    """)
    onnx.checker.check_model(model)
    return model
