"""`loadgen-numba plan`, and plan files in `run` and `bench`: the same plan everywhere, its digest recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness_support import Command, run_record


def make_plan_file(command: Command, model: Path, path: Path, batch: int) -> str:
    """What `plan` printed; in the file, the dense layer's loops are then turned around."""
    done = command("plan", model, "--max-batchsize", batch, "--threads", 1, "--json", path, "--quiet")
    assert done.status == 0, done.stderr
    record = json.loads(path.read_text())
    (choice,) = record["nodes"].values()
    for run in choice["runs"]:
        run |= {"panels_outside": not run["panels_outside"], "nc_panels": 1}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return done.stdout


def test_plan_prints_and_writes_what_run_and_bench_follow(
    command: Command, model: Path, dataset: Path, tmp_path: Path
) -> None:
    """Digests are of the file itself, which is written the way that records are."""
    path = tmp_path / "plan.json"
    printed = make_plan_file(command, model, path, batch=2)
    for text in ("kernel", "conv_gemm", "global_average", "expected us", "GFLOP/s", "ratio", f"JSON: {path}"):
        assert text in printed
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    again = command("plan", model, "--max-batchsize", 2, "--threads", 1, "--plan", path, "--quiet")
    assert again.status == 0, again.stderr
    assert digest[:16] in again.stdout and digest[:16] not in printed

    done = command(
        "run", "--model", model, "--dataset-path", dataset, "--scenario", "Offline", "--accuracy",
        "--max-batchsize", 2, "--instances", 1, "--plan", path, "--quiet",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    record = run_record(tmp_path / "reports/runs/resnet50/Offline/accuracy")
    assert record["backend"]["plan_sha256"] == digest
    made_for = json.loads(path.read_text())["machine"]
    assert f"L2 {made_for['l2_bytes'] >> 10} KiB" in record["backend"]["plan_made_for"]
    assert record["config"]["plan"] == str(path)

    done = command("bench", "--model", model, "--batch", 2, "--against", "none", "--rounds", 1,
                   "--seconds-per-round", 0.02, "--plan", path, "--json", "bench.json", "--quiet")  # fmt: skip
    assert done.status == 0, done.stderr
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert bench["settings"]["plan"] == str(path)
    assert bench["rows"][0]["engines"]["numba"]["settings"]["plan_sha256"] == digest


def test_a_plan_that_does_not_fit_is_refused_before_anything_is_written(
    command: Command, model: Path, dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    make_plan_file(command, model, path, batch=2)
    run = ("--model", model, "--dataset-path", dataset, "--scenario", "Offline", "--plan", path, "--quiet")
    for command_line in (
        ("run", *run),
        ("bench", "--model", model, "--batch", "8", "--against", "none", "--plan", path, "--quiet"),
        ("plan", model, "--max-batchsize", 8, "--plan", path, "--json", "other.json", "--quiet"),
    ):
        done = command(*command_line)
        assert done.status == 2, done.stderr
        assert done.stderr.splitlines()[-1].endswith(
            "plan: it is for max_batch 2, not 8: ask for 2, or make another plan"
        )
    done = command("plan", model, "--max-batchsize", 2, "--json", "plan.json/plan.json", "--quiet")
    assert done.status == 2 and "cannot be written" in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix == ".json") == ["plan.json"]
