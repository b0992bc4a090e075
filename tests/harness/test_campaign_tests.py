"""What a campaign does when a compliance test fails: repeats it, finds the run that is the odd one out, gives up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness_support import write_run_logs

from harness.config import RunConfig
from harness.errors import RunFailedError
from harness.explain import Advice
from harness.progress import Quiet
from harness.results import RunResult
from harness.settings import read_user_conf
from harness.submission import audit, campaign
from harness.submission.campaign import Campaign, CampaignConfig
from harness.submission.package import PackageConfig
from harness.tuning.tune import Tuned

MS = 1_000_000
AUDITED = {
    "TEST01": {"effective_accuracy_log_sampling_target": 4096, "effective_accuracy_log_rng_seed": 720381539243781796},
    "TEST04": {"effective_performance_issue_same": True, "effective_performance_issue_same_index": 3},
}
ANSWERS = [(image, 1.0) for image in range(20)]


class Machine:
    """Writes the logs of runs that it does not make: SingleStream latencies in ms by kind, one after the other."""

    def __init__(self, latencies_ms: dict[str, list[float]]) -> None:
        self.left = {kind: iter(values) for kind, values in latencies_ms.items()}
        self.made: list[str] = []

    def run(self, config: RunConfig, _progress: object) -> SimpleNamespace:
        """In place of `run.run`."""
        kind, folder = config.folder.name, config.folder
        self.made.append(kind)
        latency_ms = next(self.left.get(kind, iter([30.0])))
        if folder.exists():
            folder.rename(folder.with_name(f"{kind}.{len(self.made)}"))
        write_run_logs(folder, "SingleStream", latency_ms * MS, answers=ANSWERS, **AUDITED.get(kind, {}))
        load = config.user_conf.read_text() if config.user_conf else ""
        record = {
            "format": 2, "status": "finished", "accuracy": {}, "result": {"valid": True}, "started_utc": "",
            "config": {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()},
            "user_conf": {"path": str(config.user_conf), "text": load},
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record))
        result = RunResult("SingleStream", "PerformanceOnly", True, (), (), latency_ms, "", "ms", 100, {}, 0, 20)
        return SimpleNamespace(result=result, accuracy=SimpleNamespace(line="accuracy"), folder=folder)


@pytest.fixture
def config(dataset: Path, tmp_path: Path) -> CampaignConfig:
    """SingleStream alone, in the order performance, accuracy, TEST01, TEST04."""
    shared = RunConfig(
        "resnet50", "resnet50", "SingleStream", "performance", "null", None, dataset, tmp_path / "out/runs"
    )
    package = PackageConfig(
        tmp_path / "out/runs/resnet50", tmp_path / "out", "v6.1", "closed", "edge", "box1", "Acme",
        infer=True, rehearsal=True,
    )  # fmt: skip
    return CampaignConfig(shared, package, 1.0, 1.0)


def told(config: CampaignConfig, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Lines that a campaign says, to its end or failure."""
    monkeypatch.setattr(campaign, "run", machine.run)
    monkeypatch.setattr(audit, "run", machine.run)
    found = Tuned("SingleStream", "target_latency", 20.0, (30.0, 30.0, 30.0), 1.0, 30.0, 1.0, "by hand")
    monkeypatch.setattr(campaign, "tune", lambda config, _progress: [replace(found, scenario=config.scenarios[0])])
    running = Campaign(config)
    running.tune_loads(Quiet())
    said: list[str] = []
    try:
        running.run_all(Quiet(), said.append)
    except RunFailedError as error:
        said.append(f"error: {error}")
    return iter(line.removeprefix("SingleStream ") for line in said)


ALL = ["performance", "accuracy", "TEST01", "TEST04"]


def test_nothing_is_repeated_where_all_is_well(config: CampaignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"TEST01": [32.9]})
    assert list(told(config, machine, monkeypatch))[2:] == ["TEST01: passed", "TEST04: passed"]
    assert machine.made == ALL
    again = Machine({})
    assert (list(told(config, again, monkeypatch)), again.made) == ([], [])


def test_one_disturbed_test_is_repeated(config: CampaignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"TEST01": [33.1, 30.0]})
    said = list(told(config, machine, monkeypatch))
    assert said[2].startswith("TEST01: Reference score = 30000000.0; Test score = 33100000.0; TEST FAIL")
    assert said[2].endswith("; once more")
    assert said[3:] == ["TEST01: passed", "TEST04: passed"]
    assert machine.made == ["performance", "accuracy", "TEST01", "TEST01", "TEST04"]


def test_a_disturbed_performance_run_is_found_and_repeated(
    config: CampaignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tests agree with each other. The test is then judged beside the new run, without a third one."""
    machine = Machine({"performance": [36.0, 30.5], "TEST01": [30.0, 31.0]})
    said = list(told(config, machine, monkeypatch))
    assert said[3] == "TEST01: its runs agree with each other, the performance run does not: measuring that again"
    assert said[4:] == ["performance: 30.500 ms, VALID", "TEST01: passed", "TEST04: passed"]
    assert machine.made == ["performance", "accuracy", "TEST01", "TEST01", "performance", "TEST04"]


def test_tests_before_a_repeated_performance_run_are_judged_again(
    config: CampaignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEST04 shows that performance was slow; TEST01, as slow as it, has to be run again beside the new one."""
    machine = Machine({"performance": [40.0, 30.0], "TEST01": [40.0, 30.0], "TEST04": [30.0, 30.0]})
    said = list(told(config, machine, monkeypatch))
    assert said[-2:] == ["TEST04: passed", "TEST01: passed"]
    assert machine.made == [*ALL, "TEST04", "performance", "TEST01"]
    assert "30000000.0" in (config.package.runs / "SingleStream/TEST01/verify_performance.txt").read_text()


def test_a_campaign_killed_while_it_repeats_a_performance_run_goes_on(
    config: CampaignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder then holds no log, or the beginning of one; both tests wait for it."""
    list(told(config, Machine({}), monkeypatch))
    folder = config.package.runs / "SingleStream/performance"
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    log = folder / "mlperf_log_detail.txt"
    for left in (log.read_text()[:-10], None):
        log.unlink() if left is None else log.write_text(left)
        assert [step.done for step in Campaign(config).steps()] == [False, True, False, False]
    going_on = Machine({"performance": [31.0]})
    assert [line.split(":")[0] for line in told(config, going_on, monkeypatch)] == ["performance", "TEST01", "TEST04"]
    assert going_on.made == ["performance"], "the tests that were there are judged beside it"
    assert all(step.done for step in Campaign(config).steps())


def test_a_performance_run_repeated_late_leaves_no_test_behind(
    config: CampaignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEST04 has performance repeated, then TEST01, then TEST04 again, which leaves TEST01 to be run a third time."""
    machine = Machine(
        {"performance": [40.0, 30.0, 50.0, 30.0], "TEST01": [40.0, 50.0, 50.0, 30.0], "TEST04": [30.0] * 4}
    )
    assert list(told(config, machine, monkeypatch))[-1] == "TEST01: passed"
    repeated = ["performance", "TEST01", "TEST01", "performance", "TEST04", "TEST04", "performance", "TEST01"]
    assert machine.made == [*ALL, "TEST04", *repeated]
    assert all(step.done for step in Campaign(config).steps())


def test_runs_measured_again_for_ever_end_the_campaign(config: CampaignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each repeated performance run suits the test for which it was made and no other."""
    monkeypatch.setattr(campaign, "_PASSES", 1)
    machine = Machine({"performance": [40.0, 30.0], "TEST01": [40.0], "TEST04": [30.0, 30.0]})
    last = list(told(config, machine, monkeypatch))[-1]
    assert last.startswith(
        "error: performance runs were measured again and again, and still to be done: SingleStream TEST01"
    )


def test_the_same_load_once_more_keeps_what_is_finished(
    config: CampaignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advice to change nothing leaves the file as it is, to the byte; of one key there is never more than one line."""
    list(told(config, Machine({}), monkeypatch))
    running, load = Campaign(config), config.package.output / "load/SingleStream.conf"
    before = load.read_text()
    running._back_off("SingleStream", Advice("SingleStream", "target_latency", 20.0, "a standstill"))
    assert load.read_text() == before
    assert all(step.done for step in running.steps())
    for count in (200, 200, 300):
        running._back_off("SingleStream", Advice("SingleStream", "min_query_count", count, f"{count} are needed"))
        assert load.read_text() == f"{before}\n# {count} are needed.\n*.SingleStream.min_query_count = {count}\n"
        read_user_conf(load, "resnet50")
    assert not any(step.done for step in running.steps())


def test_a_machine_that_is_never_the_same_ends_the_campaign(
    config: CampaignConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine({"TEST01": [40.0, 50.0]})
    last = list(told(config, machine, monkeypatch))[-1]
    assert last.startswith("error: SingleStream TEST01 failed twice: Reference score = 30000000.0; ")
    assert "(its runs: 40 and 50); stop what else is running, and go on with the same command" in last
    assert machine.made == ["performance", "accuracy", "TEST01", "TEST01"]
    going_on = Machine({"TEST01": [31.0]})
    assert list(told(config, going_on, monkeypatch)) == ["TEST01: passed", "TEST04: passed"]
    assert going_on.made == ["TEST01", "TEST04"]


def test_a_cache_is_not_excused(config: CampaignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image over and over is faster, however often performance is measured."""
    machine = Machine({"performance": [30.0, 30.0], "TEST04": [10.0, 10.0]})
    last = list(told(config, machine, monkeypatch))[-1]
    assert last.startswith(
        "error: SingleStream TEST04 failed twice, and beside a second performance run: reference score"
    )
