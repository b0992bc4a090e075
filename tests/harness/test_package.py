"""Packaging: what is in the tree, what is refused, the system description."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from harness_support import Command
from submission_support import GOOD, IMAGES, quantised_model, snapshot

from harness.errors import BadInputError
from harness.profiles import PROFILES, not_the_official_model
from harness.submission import system
from harness.submission.checks import CheckConfig, check_tree
from harness.submission.package import PackageConfig, package, truncated
from harness.submission.rounds import load_round

SCENARIO_FILES = {
    "measurements.json", "user.conf", "README.md",
    "performance/run_1/mlperf_log_summary.txt", "performance/run_1/mlperf_log_detail.txt",
    "accuracy/mlperf_log_summary.txt", "accuracy/mlperf_log_detail.txt", "accuracy/mlperf_log_accuracy.json",
    "accuracy/accuracy.txt",
    "TEST01/verify_accuracy.txt", "TEST01/verify_performance.txt",
    "TEST01/performance/run_1/mlperf_log_summary.txt", "TEST01/performance/run_1/mlperf_log_detail.txt",
    "TEST01/accuracy/mlperf_log_accuracy.json", "TEST01/accuracy/accuracy.txt",
    "TEST04/verify_performance.txt",
    "TEST04/performance/run_1/mlperf_log_summary.txt", "TEST04/performance/run_1/mlperf_log_detail.txt",
}  # fmt: skip
"""As the rules of v6.1 have it, with nothing else beside."""


def flags(runs: Path, system_toml: Path, *more: object) -> tuple[object, ...]:
    """A command line of `package`."""
    names = ("--system-name", "box1", "--submitter", "Acme", "--system-toml", system_toml)
    return ("package", runs, "--output", "out", *names, *more)


@pytest.mark.parametrize("system_type", ["edge", "datacenter,edge"])
def test_a_closed_tree(
    system_type: str, command: Command, official_runs: Path, system_toml: Path, tmp_path: Path
) -> None:
    done = command(*flags(official_runs, system_toml, "--scenarios", system_type))
    assert done.status == 0, done.stderr
    base = tmp_path / "out/submission/closed/Acme"
    scenarios = load_round("v6.1").scenarios[system_type]
    results = base / "results/box1/resnet50"
    assert {path.name for path in results.iterdir()} == set(scenarios)
    for scenario in scenarios:
        assert set(snapshot(results / scenario)) == SCENARIO_FILES
        source = official_runs / scenario
        for ours, theirs in (("performance/run_1", "performance"), ("TEST04/performance/run_1", "TEST04")):
            log = "mlperf_log_detail.txt"
            assert (results / scenario / ours / log).read_bytes() == (source / theirs / log).read_bytes()
        original = tmp_path / "out/originals/closed/Acme" / f"results/box1/resnet50/{scenario}/accuracy"
        whole = (original / "mlperf_log_accuracy.json").read_bytes()
        assert whole == (source / "accuracy/mlperf_log_accuracy.json").read_bytes()
        line = f"accuracy={100 * GOOD / IMAGES:.3f}%, good={GOOD}, total={IMAGES}"
        text = (results / scenario / "accuracy/accuracy.txt").read_text()
        assert text == f"{line}\n\nhash={hashlib.sha256(whole).hexdigest()}\n"
        short = (results / scenario / "accuracy/mlperf_log_accuracy.json").read_bytes()
        assert short == whole[:4096] + b"\n\n...\n\n" + whole[-4096:]
        assert "REHEARSAL" not in (results / scenario / "README.md").read_text()
    description = json.loads((base / "systems/box1.json").read_text())
    assert (description["system_type"], description["accelerators_per_node"]) == (system_type, "0")
    assert "is_network" not in description
    assert (base / "documentation/calibration.md").read_text().startswith("# Calibration")
    assert (base / "src/resnet50/harness/submission/package.py").is_file()
    before = snapshot(tmp_path / "out")
    assert command(*flags(official_runs, system_toml, "--scenarios", system_type)).status == 0
    assert snapshot(tmp_path / "out") == before
    checked = command("check", "out/submission")
    assert (checked.status, checked.stdout.split(":")[0]) == (0, "looks OK"), checked.stdout


def test_an_open_tree_of_one_scenario(command: Command, official_runs: Path, system_toml: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("performance", "accuracy"):
        shutil.copytree(official_runs / "Offline" / name, runs / "Offline" / name)
    record = json.loads((runs / "Offline/performance/run.json").read_text())
    record["not_submittable"] = record["not_closed"] = ["another model"]
    (runs / "Offline/performance/run.json").write_text(json.dumps(record))
    assert command(*flags(runs, system_toml, "--division", "open")).status == 0
    base = tmp_path / "out/submission/open/Acme"
    expected = {name for name in SCENARIO_FILES if not name.startswith("TEST")}
    assert set(snapshot(base / "results/box1/resnet50/Offline")) == expected
    assert command("check", "out/submission").status == 0


def test_inferred_scenarios(command: Command, official_runs: Path, system_toml: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(official_runs / "SingleStream", runs / "SingleStream")
    assert "MultiStream/performance is missing" in command(*flags(runs, system_toml)).stderr
    assert command(*flags(runs, system_toml, "--infer")).status == 0
    folder = tmp_path / "out/submission/closed/Acme/results/box1/resnet50"
    for name in ("MultiStream", "Offline"):
        log = "performance/run_1/mlperf_log_detail.txt"
        assert (folder / name / log).read_bytes() == (folder / "SingleStream" / log).read_bytes()
        assert "Inferred from SingleStream" in (folder / name / "README.md").read_text()
    assert command("check", "out/submission").status == 0


def test_a_rehearsal_says_so_everywhere(
    command: Command, official_runs: Path, system_toml: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(official_runs, runs)
    record = json.loads((runs / "Offline/TEST04/run.json").read_text())
    record["not_submittable"] = ["a made-up reason"]
    (runs / "Offline/TEST04/run.json").write_text(json.dumps(record))
    done = command(*flags(runs, system_toml))
    assert done.status == 2
    assert "Offline/TEST04 is not for submission: a made-up reason" in done.stderr
    assert not (tmp_path / "out").exists()
    done = command("package", runs, "--output", "out", "--system-name", "box1", "--submitter", "Acme", "--rehearsal")
    assert done.status == 0, done.stderr
    readmes = list((tmp_path / "out/submission").rglob("README.md"))
    assert len(readmes) == 4
    assert all("REHEARSAL" in path.read_text() for path in readmes)
    assert (
        "a made-up reason"
        in (tmp_path / "out/submission/closed/Acme/results/box1/resnet50/Offline/README.md").read_text()
    )
    assert "rehearsal: closed/Acme/" in command("check", "out/submission").stdout
    assert command("check", "out/submission", "--rehearsal").status == 0


REFUSED = {
    "INVALID": ("Offline/performance", "mlperf_log_detail.txt", '"VALID"', '"INVALID"', "verdict is INVALID"),
    "an error": ("Offline/TEST01", "mlperf_log_detail.txt", '"is_error": false', '"is_error": true', "logged an error"),
    "not finished": ("Offline/accuracy", "run.json", '"finished"', '"failed"', "'failed', not finished"),
    "another backend": ("Offline/accuracy", "run.json", '"null"', '"numba"', "in the performance run"),
    "failed test": ("Offline/TEST04", "verify_performance.txt", "PASS", "FAIL", "TEST04 is not passed"),
    "another user.conf": ("Offline/TEST01", "run.json", "# user.conf", "# other.conf", "its user.conf differs"),
    "cut off": ("Offline/performance", "mlperf_log_summary.txt", "No errors encountered", "No", "was cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_runs_that_are_refused(
    name: str, command: Command, official_runs: Path, system_toml: Path, tmp_path: Path
) -> None:
    """What MLCommons' present checker overlooks is refused before it gets that far."""
    folder, file, old, new, reason = REFUSED[name]
    shutil.copytree(official_runs, tmp_path / "runs")
    path = tmp_path / "runs" / folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = command(*flags(tmp_path / "runs", system_toml, "--rehearsal"))
    assert done.status == 2
    assert reason in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_quantised_model_needs_its_calibration_described(
    command: Command, official_runs: Path, system_toml: Path, tmp_path: Path
) -> None:
    shutil.copytree(official_runs, tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("performance/run.json"):
        path.write_text(path.read_text().replace('"precision": "fp32"', '"precision": "int8"'))
    done = command(*flags(tmp_path / "runs", system_toml))
    assert (done.status, "--calibration" in done.stderr) == (2, True)
    (tmp_path / "how.md").write_text("Ranges are the extremes over 500 images.\n")
    assert command(*flags(tmp_path / "runs", system_toml, "--calibration", "how.md")).status == 0
    base = tmp_path / "out/submission/closed/Acme"
    assert "500 images" in (base / "documentation/calibration.md").read_text()
    values = json.loads((base / "results/box1/resnet50/Offline/measurements.json").read_text())
    assert values["weight_data_types"] == "int8"


def test_what_is_quantised_is_read_from_the_model(
    command: Command, official_runs: Path, system_toml: Path, model: Path, tmp_path: Path
) -> None:
    """Not every engine says in what precision it computes."""
    shutil.copytree(official_runs, tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("run.json"):
        record = json.loads(path.read_text())
        record["config"]["model"], record["backend"]["precision"] = str(model), "as in the model"
        path.write_text(json.dumps(record))
    assert command(*flags(tmp_path / "runs", system_toml)).status == 0
    text = (tmp_path / "out/submission/closed/Acme/documentation/calibration.md").read_text()
    assert "Precision: as in the model. Nothing is quantised" in text
    for path in (tmp_path / "runs").rglob("run.json"):
        path.write_text(path.read_text().replace('"as in the model"', '"int8"'))
    assert command(*flags(tmp_path / "runs", system_toml)).status == 2, "an engine that quantises by itself"
    onnx.save(quantised_model(), tmp_path / "quantised.onnx")
    for path in (tmp_path / "runs").rglob("run.json"):
        text = path.read_text().replace('"int8"', '"as in the model"')
        path.write_text(text.replace(str(model), str(tmp_path / "quantised.onnx")))
    done = command(*flags(tmp_path / "runs", system_toml))
    assert (done.status, "--calibration" in done.stderr) == (2, True)


def test_the_record_of_a_quantisation_becomes_its_description(
    command: Command, official_runs: Path, system_toml: Path, dataset: Path, model: Path, tmp_path: Path
) -> None:
    """And a model counts as the benchmark's own if it was quantised from a published file, and is that very result."""
    done = command(
        "quantize", "--model", model, "--dataset-path", dataset, "--output", "int8.onnx", "--count", 8, "--quiet"
    )
    assert done.status == 0, done.stderr
    quantised = tmp_path / "int8.onnx"
    shutil.copytree(official_runs, tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("run.json"):
        record = json.loads(path.read_text())
        record["config"]["model"], record["backend"]["precision"] = str(quantised), "int8"
        path.write_text(json.dumps(record))
    assert command(*flags(tmp_path / "runs", system_toml)).status == 0
    text = (tmp_path / "out/submission/closed/Acme/documentation/calibration.md").read_text()
    report = json.loads((tmp_path / "int8.json").read_text())
    source_md5 = hashlib.md5(model.read_bytes(), usedforsecurity=False).hexdigest()
    assert source_md5 in text and "over 8 images" in text
    assert all(f"- {name}\n" in text for name in report["calibration"]["images"])
    assert all(f"| `{name}` | {low:.6g} |" in text for name, (low, _) in report["ranges"].items())
    assert check_tree(CheckConfig(tmp_path / "out/submission", "v6.1")).passed
    resnet50 = PROFILES["resnet50"]
    assert resnet50.official is not None
    ours = replace(resnet50, official=replace(resnet50.official, md5=(source_md5,)))
    assert not_the_official_model(ours, quantised) is None
    assert "was not quantised from one of" in str(not_the_official_model(resnet50, quantised))
    quantised.write_bytes(quantised.read_bytes() + b" ")  # another file than the record's
    assert "is none of" in str(not_the_official_model(ours, quantised))
    done = command(*flags(tmp_path / "runs", system_toml))
    assert (done.status, "--calibration" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--system-name", "my box"), "no blanks"),
        (("--scenarios", "datacenter"), "has none in the closed division"),
        (("--round", "v9.9"), "none of those known"),
        (("--system-toml", "absent.toml"), "absent.toml: No such file"),
    ],
)
def test_bad_flags(
    more: tuple[str, ...], reason: str, command: Command, official_runs: Path, system_toml: Path, tmp_path: Path
) -> None:
    done = command(*flags(official_runs, system_toml, *more))
    assert (done.status, reason in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_the_description_is_completed_by_toml_or_answers(command: Command, tmp_path: Path) -> None:
    rules = load_round("v6.1")
    assert command("describe-system", "--output", "system.toml").status == 0
    toml = tmp_path / "system.toml"

    def describe(**more: object) -> dict[str, object]:
        return system.describe(rules, "closed", "Acme", "edge", "box1", toml, storage=tmp_path, **more)  # type: ignore[arg-type]

    with pytest.raises(BadInputError, match=r"lacks .*cooling.*describe-system"):
        describe()
    answers = {"status": "preview"}
    described = describe(ask=lambda field, _hint: answers.get(field, "told"))
    assert (described["cooling"], described["status"]) == ("told", "preview")
    assert set(described) == {*rules.system.filled, *rules.system.present}
    assert all(described[name] for name in rules.system.filled)
    with pytest.raises(BadInputError, match="status = 'told' is none of available"):
        describe(ask=lambda *_: "told")
    toml.write_text('colour = "red"\n')
    with pytest.raises(BadInputError, match="unknown field 'colour'"):
        describe()
    toml.write_text('division = "open"\n')
    with pytest.raises(BadInputError, match="'closed' was asked for"):
        describe()
    toml.write_text('number_of_nodes = "one"\n')
    with pytest.raises(BadInputError, match="not a whole number"):
        describe(rehearsal=True)


def test_a_short_log_is_not_cut() -> None:
    assert truncated(b"x" * 4095) == b"x" * 4095
    assert len(truncated(b"x" * 4096)) == 2 * 4096 + 7


def test_nothing_is_left_of_a_package_that_failed(official_runs: Path, system_toml: Path, tmp_path: Path) -> None:
    config = PackageConfig(official_runs, tmp_path, "v6.1", "closed", "edge", "box1", "Acme", system_toml)
    (official_runs / "Offline/TEST04/mlperf_log_summary.txt").rename(tmp_path / "away")
    try:
        with pytest.raises(BadInputError, match="is missing"):
            package(config)
    finally:
        (tmp_path / "away").rename(official_runs / "Offline/TEST04/mlperf_log_summary.txt")
    assert not list(tmp_path.iterdir())
