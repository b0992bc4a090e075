"""The rules of `check`: each with a tree that breaks it; the round's data against LoadGen's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness_support import Command, run_record
from tree_mutations import BENCHMARK, MUTATIONS, Change, server_bound

from harness.errors import BadInputError
from harness.submission.checks import CheckConfig, check_tree
from harness.submission.checks.run import rule_names
from harness.submission.package import PackageConfig, package
from harness.submission.rounds import ROUNDS, load_round


def broken_rules(folder: Path, submitter: str | None = None) -> list[str]:
    """Names of the rules that a tree breaks."""
    report = check_tree(CheckConfig(folder / "submission", "v6.1", submitter, folder / "originals"))
    return [finding.rule for finding in report.findings]


def test_the_good_tree_breaks_no_rule(good_tree: Path) -> None:
    assert broken_rules(good_tree) == []


def test_every_rule_has_an_example() -> None:
    assert {rule for _, rule, _ in MUTATIONS} | {"server-latency-bound"} == set(rule_names())


@pytest.mark.parametrize(("rule", "change"), [pytest.param(rule, change, id=name) for name, rule, change in MUTATIONS])
def test_mutations(rule: str, change: Change, good_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(good_tree, tmp_path / "tree")
    change(tmp_path / "tree/submission")
    assert rule in broken_rules(tmp_path / "tree")


def test_the_bound_of_server(official_runs: Path, system_toml: Path, tmp_path: Path) -> None:
    package(PackageConfig(official_runs, tmp_path, "v6.1", "closed", "datacenter,edge", "box1", "Acme", system_toml))
    assert broken_rules(tmp_path) == []
    server_bound(15_000_001)(tmp_path / "submission")
    assert set(broken_rules(tmp_path)) == {"server-latency-bound"}


def test_findings_are_lines_that_name_rule_and_file(command: Command, good_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(good_tree, tmp_path / "tree")
    (tmp_path / "tree/submission" / BENCHMARK / "Offline/README.md").unlink()
    done = command("check", "tree/submission")
    assert done.stdout == f"readme: {BENCHMARK}/Offline/README.md: is missing\n"
    assert (done.status, done.stderr) == (1, "error: tree/submission: 1 findings against the rules of v6.1\n")
    assert command("check", "tree/submission", "--submitter", "Other").status == 2
    assert "seeds: " in command("check", "tree/submission", "--round", "v6.0").stdout
    with pytest.raises(BadInputError, match="no such folder"):
        check_tree(CheckConfig(tmp_path / "absent", "v6.1"))


def test_the_open_division_asks_for_less(official_runs: Path, system_toml: Path, tmp_path: Path) -> None:
    package(PackageConfig(official_runs, tmp_path, "v6.1", "open", "edge", "box1", "Acme", system_toml))
    text = tmp_path / "submission/open/Acme/results/box1/resnet50/Offline/accuracy/accuracy.txt"
    text.write_text(text.read_text().replace("accuracy=76.000%, good=38000", "accuracy=10.000%, good=5000"))
    shutil.rmtree(tmp_path / "submission/open/Acme/results/box1/resnet50/SingleStream")
    assert broken_rules(tmp_path) == []


def test_the_round_is_that_of_the_loadgen_that_is_installed(command: Command, dataset: Path, tmp_path: Path) -> None:
    """Its limits are what LoadGen has compiled in."""
    rules = load_round(ROUNDS[0])
    for scenario in ("Offline", "Server"):
        done = command("run", "--backend", "null", "--dataset-path", dataset, "--scenario", scenario, "--accuracy",
                       *(("--qps", 1000) if scenario == "Server" else ()), "--quiet")  # fmt: skip
        assert done.status == 0, done.stderr
        official = run_record(tmp_path / f"reports/runs/resnet50/{scenario}/accuracy")["settings"]["official"]
        assert {name: official[name] for name in rules.seeds} == rules.seeds
        assert official["min_duration_ms"] == rules.limits.min_duration_ms
        assert official["performance_sample_count_override"] == rules.limits.performance_sample_count
        if scenario == "Offline":
            assert official["min_query_count"] == rules.limits.offline_samples_per_query
        else:
            assert official["server_target_latency_ns"] == rules.limits.server_target_latency_ns


@pytest.mark.parametrize("name", ROUNDS)
def test_every_round_can_be_packaged_for(name: str, official_runs: Path, system_toml: Path, tmp_path: Path) -> None:
    """With seeds of another round everything but the seeds is right."""
    package(PackageConfig(official_runs, tmp_path, name, "closed", "edge", "box1", "Acme", system_toml))
    report = check_tree(CheckConfig(tmp_path / "submission", name, None, tmp_path / "originals"))
    assert {finding.rule for finding in report.findings} == (set() if name == "v6.1" else {"seeds"})
