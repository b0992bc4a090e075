"""Compliance tests: real runs with LoadGen, and the rules on logs made for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness_support import Command, run_record, write_run_logs, write_steady_plugin

from harness.config import STREAMS, ComplianceTest, Scenario
from harness.errors import BadInputError
from harness.submission import verify

AUDITED = {
    "TEST01": {
        "effective_accuracy_log_sampling_target": 4096,
        "effective_accuracy_log_rng_seed": 720381539243781796,
    },
    "TEST04": {"effective_performance_issue_same": True, "effective_performance_issue_same_index": 3},
}


def values_of(folder: Path) -> dict[str, object]:
    """Key -> first value of the detail log."""
    values: dict[str, object] = {}
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        entry = json.loads(line.removeprefix(":::MLLOG "))
        values.setdefault(entry["key"], entry["value"])
    return values


def make_runs(command: Command, dataset: Path, backend: str, scenario: str = "SingleStream") -> Path:
    """A performance and an accuracy run."""
    flags = ("run", "--backend", backend, "--dataset-path", dataset, "--scenario", scenario, "--quiet")
    for mode in (("--time", 0.5), ("--accuracy",)):
        done = command(*flags, *mode)
        assert done.status == 0, done.stderr
    return Path("reports/runs/resnet50") / scenario


def test_both_tests_of_a_steady_engine(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_steady_plugin(tmp_path, "steady")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "audit.config").write_text("*.*.mode = 1\n")
    folder = make_runs(command, dataset, "steady")
    before = sorted(tmp_path.rglob("audit*"))
    latency_ns = float(str(values_of(folder / "performance")["early_stopping_latency_ss"]))
    for test in ("TEST01", "TEST04"):
        done = command("audit", test, folder, "--quiet")
        run = folder / test
        assert run_record(run)["status"] == "finished"
        assert values_of(run)["effective_test_mode"] == "PerformanceOnly"
        assert values_of(run).items() >= {**AUDITED[test], "effective_min_duration_ms": 500}.items()
        tested_ns = float(str(values_of(run)["early_stopping_latency_ss"]))
        within = 0.9 * latency_ns <= tested_ns <= 1.1 * latency_ns if test == "TEST01" else 1.2 * tested_ns > latency_ns
        assert done.status == (0 if within else 1), done.stdout
        assert ("TEST PASS" in (run / "verify_performance.txt").read_text().splitlines()) == within
        assert f"{test}: {'passed' if within else 'FAILED'}" in done.stdout.splitlines()
    assert "TEST PASS" in (folder / "TEST01/verify_accuracy.txt").read_text().splitlines()
    assert not (folder / "TEST04/verify_accuracy.txt").exists()
    again = command("audit", "TEST01", folder, "--verify-only")
    assert "num_perf_log_data_mismatch = 0" in again.stdout.splitlines()
    assert sorted(tmp_path.rglob("audit*")) == before


def test_an_engine_that_remembers_is_caught(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers at once what it was asked last time."""
    slow_once = "0.01 if (last := getattr(self, 'last', None)) is None or last != samples.tolist() else 0"
    write_steady_plugin(
        tmp_path, "caching", slow_once, "(setattr(self, 'last', samples.tolist()), samples.astype(int))[1]"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = make_runs(command, dataset, "caching")
    done = command("audit", "TEST04", folder, "--quiet")
    assert done.status == 1
    assert "TEST FAIL: Test score invalid" in (folder / "TEST04/verify_performance.txt").read_text()
    assert done.stderr.splitlines()[-1] == f"error: TEST04 failed: see {folder}/TEST04"


def test_an_engine_with_changing_answers_is_caught(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all its answers are wrong ones of no constancy, so the accuracies do not agree either."""
    write_steady_plugin(tmp_path, "fickle", answer="np.full(len(samples), next(self.calls) % 7)")
    monkeypatch.syspath_prepend(tmp_path)
    folder = make_runs(command, dataset, "fickle")
    assert command("audit", "TEST01", folder, "--quiet").status == 1
    assert "TEST FAIL" in (folder / "TEST01/verify_accuracy.txt").read_text().splitlines()
    for name in ("baseline_accuracy.txt", "compliance_accuracy.txt"):
        assert (folder / "TEST01" / name).read_text().startswith("accuracy=")


def test_what_cannot_be_audited(command: Command, dataset: Path, tmp_path: Path) -> None:
    done = command("audit", "TEST01", tmp_path)
    assert (done.status, "is not the folder of a run" in done.stderr) == (2, True)
    flags = ("run", "--backend", "null", "--dataset-path", dataset, "--quiet", "--user-conf", "mine.conf")
    (tmp_path / "mine.conf").write_text("*.SingleStream.target_latency = 0.004\n")
    assert command(*flags, "--time", 0.2).status == 0
    folder = Path("reports/runs/resnet50/SingleStream")
    done = command("audit", "TEST01", folder)
    assert (done.status, "accuracy is not the folder of a run" in done.stderr) == (2, True)
    (tmp_path / "mine.conf").write_text("*.SingleStream.target_latency = 0.005\n")
    done = command("audit", "TEST04", folder)
    assert (done.status, "mine.conf is not what it was" in done.stderr) == (2, True)
    record = run_record(folder / "performance")
    for change, reason in (({"config": {**record["config"], "colour": 1}}, "'colour'"), ({"format": 0}, "format 0")):
        (folder / "performance/run.json").write_text(json.dumps({**record, **change}))
        done = command("audit", "TEST04", folder)
        assert (done.status, reason in done.stderr) == (2, True), done.stderr
    assert not (folder / "TEST04").exists()


PERFORMANCE_CASES: list[tuple[ComplianceTest, str, float, float, bool]] = [
    ("TEST01", "Offline", 100, 91, True),
    ("TEST01", "Offline", 100, 89, False),
    ("TEST01", "Offline", 100, 109, True),
    ("TEST01", "Offline", 100, 111, False),
    ("TEST01", "SingleStream", 5e6, 5.6e6, False),
    ("TEST01", "SingleStream", 2e5, 2.3e5, True),
    ("TEST01", "MultiStream", 1.6e6, 1.9e6, True),
    ("TEST01", "MultiStream", 1.7e6, 2.0e6, False),
    ("TEST04", "Offline", 100, 109, True),
    ("TEST04", "Offline", 100, 111, False),
    ("TEST04", "Offline", 100, 1, True),
    ("TEST04", "Server", 100, 111, False),
    ("TEST04", "SingleStream", 5e6, 4.3e6, True),
    ("TEST04", "SingleStream", 5e6, 4.1e6, False),
    ("TEST04", "MultiStream", 5e7, 4.3e7, True),
]


@pytest.mark.parametrize(("test", "scenario", "reference", "tested", "passes"), PERFORMANCE_CASES)
def test_tolerances(
    test: ComplianceTest, scenario: str, reference: float, tested: float, passes: bool, tmp_path: Path
) -> None:
    """MLCommons' limits; TEST04's wider one for streams follows from its comparing rates with a bound on latencies."""
    before = write_run_logs(tmp_path / "performance", scenario, reference)
    after = write_run_logs(tmp_path / test, scenario, tested, **AUDITED[test])
    verified = verify.verify_performance(test, before, after)
    assert verified.passed == passes
    assert ("TEST PASS" in verified.text) == passes
    assert ("TEST FAIL" in verified.text) != passes


@pytest.mark.parametrize(("test", "scenario", "reference", "tested", "passes"), PERFORMANCE_CASES)
def test_runs_of_a_test_are_alike_if_the_slower_one_would_pass_beside_the_other(
    test: ComplianceTest, scenario: Scenario, reference: float, tested: float, passes: bool
) -> None:
    """With the same limits for short latencies. Which of the two is better does not matter here."""
    in_ms = 1e6 if scenario in STREAMS else 1
    assert verify.are_alike(test, scenario, [reference / in_ms, tested / in_ms]) == (
        passes and tested > 0.8 * reference
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"result_validity": "INVALID"}, "Invalid results in "),
        ({"errors": 1}, "LoadGen logged an error in "),
        ({"scenario": "SingleStream"}, "scenarios do not match"),
        ({"effective_target_latency_ns": 10_000_000}, "target latency mismatch"),
        ({"effective_accuracy_log_sampling_target": 0}, "TEST01 asks for 4096"),
    ],
)
def test_runs_that_cannot_be_compared(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    before = write_run_logs(tmp_path / "performance", "Server", 100)
    after = {"scenario": "Server", "metric": 100.0, **AUDITED["TEST01"], **changes}
    verified = verify.verify_performance("TEST01", before, write_run_logs(tmp_path / "TEST01", **after))  # type: ignore[arg-type]
    assert not verified.passed
    assert "TEST FAIL: " in verified.text and reason in verified.text


def test_answers_are_compared_image_by_image(tmp_path: Path) -> None:
    reference = [(index, float(index)) for index in range(300)]
    accuracy = write_run_logs(tmp_path / "accuracy", "MultiStream", 1, answers=[*reference, (0, 0.0), (1, 5.0)])
    same = write_run_logs(tmp_path / "same", "MultiStream", 1, answers=[(7, 7.0), (7, 7.0), (299, 299.0)])
    other = write_run_logs(tmp_path / "other", "MultiStream", 1, answers=[(7, 7.0), (8, 9.0), (400, 1.0)])
    none = write_run_logs(tmp_path / "none", "MultiStream", 1)
    verified = verify.verify_accuracy(accuracy, same)
    assert verified.passed
    for line in ("num_acc_log_entries = 302", "num_acc_log_duplicate_keys = 2", "num_acc_log_data_mismatch = 1",
                 "num_perf_log_qsl_idx_match = 3", "num_missing_qsl_idxs = 0", "TEST PASS"):  # fmt: skip
        assert line in verified.text.splitlines()
    verified = verify.verify_accuracy(accuracy, other)
    assert not verified.passed
    assert "num_perf_log_data_mismatch = 1" in verified.text and "num_missing_qsl_idxs = 1" in verified.text
    assert not verify.verify_accuracy(accuracy, none).passed
    labels = [index if index != 8 else 9 for index in range(500)]
    scores = verify.accuracies_over_logged(accuracy, other, labels)
    assert [(score.good, score.total) for score in scores] == [(1, 2), (2, 3)]
    assert not verify.accuracies_agree(*scores)
    (same / "mlperf_log_accuracy.json").write_text("[{")
    with pytest.raises(BadInputError, match="no complete accuracy log"):
        verify.verify_accuracy(accuracy, same)
