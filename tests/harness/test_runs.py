"""Every scenario in both modes through the real LoadGen, judged by LoadGen's own logs and the official scoring rule."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from harness_support import IMAGE_COUNT, Command, official_score, run_record, write_plugin

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")
METRIC_IN_SUMMARY = {
    "SingleStream": (" * Early stopping 90.0th percentile estimate", 1e6),
    "MultiStream": (" * Early stopping 99.0th percentile estimate", 1e6),
    "Offline": ("Samples per second", 1),
    "Server": ("Completed samples per second", 1),
}
"""The line of LoadGen's summary that holds the metric, and what it is divided by for display."""


def detail(folder: Path) -> dict[str, object]:
    """Key -> first value of the detail log."""
    values: dict[str, object] = {}
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        entry = json.loads(line.removeprefix(":::MLLOG "))
        values.setdefault(entry["key"], entry["value"])
    return values


@pytest.mark.parametrize("backend", ["numba", "onnxruntime"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_accuracy_of_every_scenario(
    scenario: str, backend: str, command: Command, dataset: Path, model: Path, tmp_path: Path
) -> None:
    rate = ("--qps", 500) if scenario == "Server" else ()
    done = command(
        "run", "--backend", backend, "--model", model, "--dataset-path", dataset, "--scenario", scenario,
        "--accuracy", "--max-batchsize", 3, *rate,
    )  # fmt: skip
    folder = tmp_path / "reports/runs/resnet50" / scenario / "accuracy"
    assert done.status == 0, done.stderr
    good, total = official_score(folder / "mlperf_log_accuracy.json", dataset / "val_map.txt")
    assert total == IMAGE_COUNT
    assert good == IMAGE_COUNT - len(range(0, IMAGE_COUNT, 4))
    line = f"accuracy={100 * good / total:.3f}%, good={good}, total={total}"
    assert line in done.stdout.splitlines()
    assert (folder / "accuracy.txt").read_text() == line + "\n"
    assert run_record(folder)["status"] == "finished"
    again = command("accuracy", folder)
    assert (again.status, again.stdout) == (0, line + "\n")


@pytest.mark.parametrize("backend", ["numba", "onnxruntime"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_performance_of_every_scenario(
    scenario: str, backend: str, command: Command, dataset: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_user.conf").write_text(
        "*.Offline.min_query_count = 400\n*.Server.target_qps = 200\n*.Server.min_query_count = 460\n"
    )
    flags = {"Server": ("--max-latency", 10), "Offline": ("--qps", 20_000, "--time", 0.05)}.get(scenario, ())
    # LoadGen would obey it: a forgotten file that turns the run into an accuracy run.
    (tmp_path / "audit.config").write_text("*.*.mode = 1\n")
    done = command(
        "run", "--backend", backend, "--model", model, "--dataset_path", dataset, "--scenario", scenario,
        "--output", "out", "--user_conf", "my_user.conf", "--time", 1, *flags,
    )  # fmt: skip
    folder = tmp_path / "out/resnet50" / scenario / "performance"
    assert done.status == 0, done.stderr
    values = detail(folder)
    assert values["effective_test_mode"] == "PerformanceOnly"
    assert values["effective_scenario"] == scenario
    record = run_record(folder)
    assert (record["result"]["valid"], values["result_validity"]) == (True, "VALID")
    name, divisor = METRIC_IN_SUMMARY[scenario]
    summary = (folder / "mlperf_log_summary.txt").read_text()
    shown = re.search(rf"^{re.escape(name)}\s*:\s*([0-9.]+)", summary, re.MULTILINE)
    assert shown is not None, summary
    assert record["result"]["metric"] == pytest.approx(float(shown[1]) / divisor, rel=1e-5, abs=0.005)
    assert f"{record['result']['metric']:.3f}" in done.stdout
    assert "not for submission: min_duration_ms" in done.stdout
    assert all(instance["stray_thread_count"] == 0 for instance in record["instances"])
    if backend == "numba":  # in the streams, several threads where there are several cores: one on each
        first = record["instances"][0]
        assert record["backend"]["threads"] == len(first["cores"])
        assert record["backend"]["cpus_by_thread"] == "; ".join(map(str, first["cores"]))


def test_an_audit_file_that_is_named_is_obeyed_and_said(
    command: Command, dataset: Path, model: Path, tmp_path: Path
) -> None:
    audit = tmp_path / "my_audit.config"
    audit.write_text("*.*.performance_issue_unique = 0\n*.*.performance_issue_same = 1\n")
    done = command(
        "run", "--backend", "onnxruntime", "--model", model, "--dataset-path", dataset, "--scenario", "SingleStream",
        "--time", 0.2, "--audit_conf", audit,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert (
        detail(tmp_path / "reports/runs/resnet50/SingleStream/performance")["effective_performance_issue_same"] is True
    )
    assert f"not for submission: audit settings of {audit}" in done.stdout


def test_an_invalid_run_is_not_for_submission(command: Command, dataset: Path, tmp_path: Path) -> None:
    """A bound that nothing can meet: LoadGen's verdict joins the reasons in run.json and on the screen."""
    done = command(
        "run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Server", "--qps", 500, "--time", 0.2,
        "--max-latency", 1e-9,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    record = run_record(tmp_path / "reports/runs/resnet50/Server/performance")
    assert record["result"]["valid"] is False
    assert record["submission"] == "not for submission"
    assert "LoadGen's verdict is INVALID" in record["not_submittable"]
    assert "not for submission: LoadGen's verdict is INVALID" in done.stdout.splitlines()
    (advised,) = [line for line in done.stdout.splitlines() if line.startswith("-> ")]
    assert advised.endswith(": try *.Server.target_qps = 400 (or --qps 400)")


def test_a_search_that_starts_beyond_the_peak_says_so(command: Command, dataset: Path) -> None:
    done = command(
        "run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Server", "--qps", 500, "--time", 0.2,
        "--max-latency", 1e-6, "--find-peak-performance",
    )  # fmt: skip
    assert done.status == 1
    assert "; start from a lower --qps; marked failed in " in done.stderr.splitlines()[-1]
    assert "/s," not in done.stderr  # no average over trials at different rates


STRAYING_PLUGIN = """
import os, threading
from harness.backends.null import NullRunner

def wander():
    os.sched_setaffinity(0, {cpus})
    threading.Event().wait()

def open_runner(request):
    thread = threading.Thread(target=wander, daemon=True)
    thread.start()
    while os.sched_getaffinity(thread.native_id) != {cpus}:
        pass
    return NullRunner(request.max_batch)
"""


def test_threads_that_leave_their_cores_keep_a_run_from_submission(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("one CPU: nowhere to stray")
    write_plugin(tmp_path, "straying", STRAYING_PLUGIN.format(cpus=cpus))
    monkeypatch.syspath_prepend(tmp_path)
    done = command("run", "--backend", "straying", "--dataset-path", dataset, "--accuracy", "--threads", 1)
    assert done.status == 0, done.stderr
    (instance,) = run_record(tmp_path / "reports/runs/resnet50/SingleStream/accuracy")["instances"]
    assert (instance["thread_count"], instance["stray_thread_count"]) == (2, 1)
    assert "not for submission: 1 thread outside the cores of their instance" in done.stdout.splitlines()


def test_several_instances_answer_each_sample_once_and_an_earlier_run_moves_aside(
    command: Command, dataset: Path, model: Path, tmp_path: Path
) -> None:
    flags = (
        "run", "--backend", "onnxruntime", "--model", model, "--dataset-path", dataset, "--scenario", "MultiStream",
        "--accuracy", "--instances", 2, "--threads", 1, "--count", 12,
    )  # fmt: skip
    folder = tmp_path / "reports/runs/resnet50/MultiStream/accuracy"
    first = command(*flags)
    if "ask for at most 1" in first.stderr:
        pytest.skip("two instances need two CPUs")
    assert first.status == 0, first.stderr
    assert official_score(folder / "mlperf_log_accuracy.json", dataset / "val_map.txt") == (9, 12)
    cores = [instance["cores"] for instance in run_record(folder)["instances"]]
    assert len(cores) == 2
    assert not set(cores[0]) & set(cores[1])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    second = command(*flags)
    assert second.status == 0, second.stderr
    (aside,) = [path for path in folder.parent.iterdir() if path != folder]
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    assert str(aside) in second.stdout


def test_real_images_and_model_get_the_classes_that_onnxruntime_gets(
    command: Command, models_dir: Path, imagenet_dir: Path, tmp_path: Path
) -> None:
    answers = {}
    for backend in ("onnxruntime", "numba"):
        done = command(
            "run", "--backend", backend, "--model", models_dir / "mobilenet_v2_1.0_224.onnx", "--profile", "mobilenet",
            "--dataset-path", imagenet_dir, "--scenario", "Offline", "--accuracy", "--output", backend,
        )  # fmt: skip
        assert done.status == 0, done.stderr
        assert "accuracy=86.000%, good=86, total=100" in done.stdout.splitlines()
        log = tmp_path / backend / "mobilenet/Offline/accuracy/mlperf_log_accuracy.json"
        answers[backend] = {entry["qsl_idx"]: entry["data"] for entry in json.loads(log.read_text())}
    assert answers["numba"] == answers["onnxruntime"]


def test_a_model_run_with_the_wrong_profile_is_told(
    command: Command, models_dir: Path, imagenet_dir: Path, tmp_path: Path
) -> None:
    """A MobileNet fed as ResNet50 is: nothing fails, so every sign that something is wrong must be said."""
    done = command(
        "run", "--model", models_dir / "mobilenet_v2_1.0_224.onnx", "--dataset-path", imagenet_dir, "--scenario",
        "Offline", "--accuracy", "--count", 20, "--quiet",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    reasons = [line for line in done.stdout.splitlines() if line.startswith("not for submission: ")]
    assert any("mobilenet_v2_1.0_224.onnx (md5 " in reason for reason in reasons)
    assert any("is below the benchmark's target 75.6954 % (99 % of 76.46 %)" in reason for reason in reasons)
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert "'input'" in warning and warning.endswith("add --profile mobilenet")
    record = run_record(tmp_path / "reports/runs/resnet50/Offline/accuracy")
    assert [f"not for submission: {reason}" for reason in record["not_submittable"]] == reasons
    assert [f"warning: {warning}" for warning in record["warnings"]] == [warning]


def test_openvino_answers_like_the_others(command: Command, dataset: Path, model: Path) -> None:
    pytest.importorskip("openvino")
    done = command(
        "run", "--backend", "openvino", "--model", model, "--dataset-path", dataset, "--scenario", "Offline",
        "--accuracy",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert "accuracy=75.000%, good=15, total=20" in done.stdout


def test_a_store_damaged_in_place_is_not_scored(command: Command, dataset: Path, tmp_path: Path) -> None:
    """Its size and all records are right; only the pixels of one image are not what they were."""
    store = tmp_path / "store"
    assert command("preprocess", "--dataset-path", dataset, "--preprocessed-dir", store).status == 0
    with (store / "images.u8").open("r+b") as images:
        images.seek(3 * 224 * 224 * 3)
        images.write(bytes(1000))
    done = command(
        "run", "--backend", "null", "--dataset-path", dataset, "--preprocessed-dir", store, "--scenario", "Offline",
        "--accuracy",
    )  # fmt: skip
    assert done.status == 2
    expected = f"error: {store}: picture 3 (ILSVRC2012_val_00000004.JPEG) in images.u8 is damaged"
    assert done.stderr.splitlines()[-1].startswith(expected)
    assert done.stderr.splitlines()[-1].endswith("delete the folder and build the store again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_map_that_names_a_part_and_a_class_that_is_none(command: Command, dataset: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(dataset, part)
    lines = (dataset / "val_map.txt").read_text().splitlines(keepends=True)
    (part / "val_map.txt").write_text("".join(lines[:5]))
    run = ("run", "--backend", "null", "--dataset-path", part, "--scenario", "Offline", "--accuracy")
    done = command(*run, "--quiet")
    assert done.status == 0, done.stderr
    warning = f"warning: {part}/val_map.txt names 5 images, and the folder holds {IMAGE_COUNT - 5} more"
    assert any(line.startswith(warning) for line in done.stdout.splitlines())
    assert "warning" not in command(*run, "--count", 5).stdout
    (part / "val_map.txt").write_text("".join(lines[:4]) + lines[4].split()[0] + " 1000\n")
    done = command(*run)
    assert done.status == 2
    assert f"{part}/val_map.txt:5: label 1000 is none of the classes 0..999" in done.stderr.splitlines()[-1]


def test_reasons_name_the_official_numbers(command: Command, dataset: Path) -> None:
    """The performance set has 1024 samples by MLPerf's rules, whatever was asked for."""
    done = command(
        "run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Offline", "--time", 0.1, "--count", 10,
        "--performance-sample-count", 10,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert "not for submission: performance set of 10 images, official at least 1024" in done.stdout.splitlines()


def test_preprocess_then_run_from_its_store(command: Command, dataset: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = command("preprocess", "--dataset-path", dataset, "--preprocessed-dir", store)
    assert done.status == 0, done.stderr
    assert f"{IMAGE_COUNT} images" in done.stdout
    stamp = (store / "images.u8").stat().st_mtime_ns
    run = command(
        "run", "--backend", "null", "--dataset-path", dataset, "--preprocessed_dir", store, "--scenario", "Offline",
        "--count", 5, "--accuracy",
    )  # fmt: skip
    assert run.status == 0, run.stderr
    assert "total=5" in run.stdout
    assert (store / "images.u8").stat().st_mtime_ns == stamp
