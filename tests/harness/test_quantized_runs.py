"""A real network through the whole path in int8: `quantize`, then LoadGen in every scenario and both modes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from harness_support import Command, official_score, run_record

from harness.cli import exit_status
from harness.config import SCENARIOS
from preprocessing import MOBILENET, preprocess, read_val_map


@pytest.fixture(scope="module")
def quantised(models_dir: Path, imagenet_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2, calibrated on two of the images."""
    path = tmp_path_factory.mktemp("int8") / "mobilenet.int8.onnx"
    arguments: dict[str, object] = {
        "--model": models_dir / "mobilenet_v2_1.0_224.onnx",
        "--dataset-path": imagenet_dir,
        "--profile": "mobilenet",
        "--count": 2,
        "--output": path,
    }
    flags = [str(word) for pair in arguments.items() for word in pair]
    assert exit_status(["quantize", *flags, "--quiet"]) == 0
    return path


@pytest.fixture(scope="module")
def classes(quantised: Path, imagenet_dir: Path) -> list[int]:
    """What onnxruntime makes of the same file, image by image; labels, so without the background class."""
    session = onnxruntime.InferenceSession(str(quantised), providers=["CPUExecutionProvider"])
    images = [preprocess(imagenet_dir / name, MOBILENET) for name in read_val_map(imagenet_dir).files]
    feeds = ({session.get_inputs()[0].name: MOBILENET.to_float(image[None], "NCHW")} for image in images)
    tops = [session.run(None, feed)[0] for feed in feeds]
    return [int(scores.argmax()) - (scores.shape[1] - 1000) for scores in tops]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_in_int8(
    scenario: str, command: Command, quantised: Path, imagenet_dir: Path, classes: list[int], tmp_path: Path
) -> None:
    """The answers are those of onnxruntime for all but a few images, and the performance run's log is LoadGen's."""
    given = ("--model", quantised, "--dataset-path", imagenet_dir, "--profile", "mobilenet", "--scenario", scenario)
    rate = ("--qps", 20) if scenario == "Server" else ()
    done = command("run", *given, "--accuracy", *rate, "--quiet")
    assert done.status == 0, done.stderr
    folder = tmp_path / "reports/runs/mobilenet" / scenario
    assert run_record(folder / "accuracy")["backend"]["precision"] == "int8"
    log = json.loads((folder / "accuracy/mlperf_log_accuracy.json").read_text())
    answers = {entry["qsl_idx"]: int(np.frombuffer(bytes.fromhex(entry["data"]), "<f4")[0]) for entry in log}
    assert sorted(answers) == list(range(len(classes)))
    assert sum(answers[index] != found for index, found in enumerate(classes)) <= 3
    good, total = official_score(folder / "accuracy/mlperf_log_accuracy.json", imagenet_dir / "val_map.txt")
    assert f"accuracy={100 * good / total:.3f}%, good={good}, total={total}" in done.stdout.splitlines()

    (tmp_path / "short.conf").write_text("*.Offline.min_query_count = 60\n*.Server.min_query_count = 10\n")
    bound = ("--max-latency", 10) if scenario == "Server" else ()
    short = ("--user-conf", "short.conf", "--time", 0.5, *rate, *bound)
    done = command("run", *given, *short, "--quiet")
    assert done.status == 0, done.stderr
    record = run_record(folder / "performance")
    assert (record["status"], record["backend"]["precision"]) == ("finished", "int8")
    assert record["result"]["metric"] > 0
    assert "Result is :" in (folder / "performance/mlperf_log_summary.txt").read_text()
