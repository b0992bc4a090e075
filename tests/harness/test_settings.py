"""user.conf lines that LoadGen would misread, what flags change, and which differences keep a run from submission."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import RunConfig
from harness.errors import BadInputError
from harness.settings import (
    DEFAULT_USER_CONF,
    deviations,
    is_set,
    overrides,
    read_audit_conf,
    read_user_conf,
    sample_count,
)

CONFIG = RunConfig("resnet50", "resnet50", "Offline", "performance", "null", None, Path("images"))

MISREAD_BY_LOADGEN = {
    "*.Offline.target_qps=5": "`model.scenario.key = value`",
    "*.Offline.target_qps = 5 # comment": "`model.scenario.key = value`",
    "*.Offline.target_qps = 5 6": "`model.scenario.key = value`",
    "#comment without a blank": "`model.scenario.key = value`",
    "Offline.target_qps = 5": "2 parts",
    "*.offline.target_qps = 5": "scenario 'offline'",
    "resnet.Offline.target_qps = 5": "model 'resnet'",
    "*.Offline.target_qsp = 5": "unknown key 'target_qsp'",
    "*.*.qsl_rng_seed = 5": "unknown key 'qsl_rng_seed'",
    "*.Offline.min_query_count = 1e5": "not a whole number",
    "*.Offline.min_query_count = 010": "not a whole number",
    "*.Server.target_latency = 0.5": "not a whole number",
    "*.Offline.target_qps = fast": "not a number",
    "*.Offline.target_qps = -1": "not a number",
}


@pytest.mark.parametrize("line", MISREAD_BY_LOADGEN)
def test_a_line_that_loadgen_would_misread_is_refused_with_its_number(line: str, tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text(f"# fine\n\n{line}\n")
    with pytest.raises(BadInputError) as caught:
        read_user_conf(path, "resnet50")
    assert str(caught.value).startswith(f"{path}:3: ")
    assert MISREAD_BY_LOADGEN[line] in str(caught.value)


MISREAD_IN_AN_AUDIT_FILE = {
    "*.*.performance_issue_same=1": "`model.scenario.key = value`",
    "*.*.accuracy_log_sampling_taget = 64": "unknown key 'accuracy_log_sampling_taget'",
    "*.*.accuracy_log_probability = 10": "unknown key 'accuracy_log_probability'",
    "resnet50.*.mode = 2": "model 'resnet50'",
    "*.*.mode = 4": "no mode of LoadGen",
    "*.*.accuracy_log_rng_seed = x": "not a whole number",
}
"""LoadGen looks up the model `*` in an audit file, and reads the probability from its built-in settings only."""


@pytest.mark.parametrize("line", MISREAD_IN_AN_AUDIT_FILE)
def test_an_audit_file_is_checked_line_by_line_too(line: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.config"
    path.write_text(f"# fine\n*.*.min_duration = 0\n{line}\n")
    with pytest.raises(BadInputError) as caught:
        read_audit_conf(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert MISREAD_IN_AN_AUDIT_FILE[line] in str(caught.value)


def test_the_lines_of_the_official_audit_files_are_good(tmp_path: Path) -> None:
    """Those of TEST01 and TEST04, the compliance tests of image classification."""
    lines = (
        "*.*.mode = 2",
        "*.*.accuracy_log_rng_seed = 720381539243781796",
        "*.*.accuracy_log_sampling_target = 128",
        "*.SingleStream.performance_issue_unique = 0",
        "*.MultiStream.performance_issue_same = 1",
        "*.Server.performance_issue_same_index = 3",
    )
    path = tmp_path / "audit.config"
    path.write_text("\n".join(lines))
    assert [f"*.{s.scenario}.{s.key} = {s.value}" for s in read_audit_conf(path)] == list(lines)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text("*.Server.target_qps = 5\n*.Server.target_qps = 6\n")
    with pytest.raises(BadInputError, match=r"user\.conf:2: .* line 1"):
        read_user_conf(path, "resnet50")


def test_good_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text("#\n# two scenarios\n  *.SingleStream.target_latency   =  0.25 \nresnet50.*.min_duration = 600000")
    settings = read_user_conf(path, "resnet50")
    assert [(s.line_number, s.scenario, s.key, s.value) for s in settings] == [
        (3, "SingleStream", "target_latency", "0.25"),
        (4, "*", "min_duration", "600000"),
    ]
    assert is_set(settings, "Offline", "min_duration")
    assert is_set(settings, "SingleStream", "target_latency")
    assert not is_set(settings, "Offline", "target_latency")


def test_the_package_carries_the_root_files() -> None:
    root = Path(__file__).parents[2]
    for name in ("user.conf", "mlperf.conf"):
        assert (DEFAULT_USER_CONF.parent / name).read_bytes() == (root / name).read_bytes()
    read_user_conf(DEFAULT_USER_CONF, "resnet50")
    read_user_conf(DEFAULT_USER_CONF.parent / "demo.conf", "resnet50")


def test_flags_become_loadgen_settings() -> None:
    assert overrides(CONFIG) == {}
    changed = replace(CONFIG, min_duration_s=1.5, query_count=7, target_qps=2.5, performance_sample_count=9)
    assert overrides(changed) == {
        "min_duration_ms": 1500,
        "min_query_count": 7,
        "max_query_count": 7,
        "offline_expected_qps": 2.5,
        "performance_sample_count_override": 9,
    }
    server = replace(CONFIG, scenario="Server", target_qps=3.0, max_latency_s=0.015)
    assert overrides(server) == {"server_target_qps": 3.0, "server_target_latency_ns": 15_000_000}
    stream = replace(CONFIG, scenario="MultiStream", max_latency_s=0.05, samples_per_query=4)
    assert overrides(stream) == {"multi_stream_expected_latency_ns": 50_000_000, "multi_stream_samples_per_query": 4}


def test_the_number_of_samples_to_expect() -> None:
    """By hand from LoadGen's rules: Offline is one query of 1.1 x duration x rate samples, or more."""
    official = {
        "min_duration_ms": 600_000,
        "min_query_count": 24_576,
        "max_query_count": 0,
        "offline_expected_qps": 25.0,
        "multi_stream_samples_per_query": 8,
    }
    assert sample_count("Offline", official) == (24_576, True)
    assert sample_count("Offline", {**official, "offline_expected_qps": 50.0}) == (33_000, True)
    assert sample_count("Offline", {**official, "min_duration_ms": 1000}) == (24_576, True)
    assert sample_count("MultiStream", {**official, "min_query_count": 662}) == (5296, False)
    assert sample_count("Server", {**official, "min_query_count": 7, "max_query_count": 7}) == (7, True)


def test_deviations_are_what_a_submission_could_not_have() -> None:
    official = {
        "min_duration_ms": 600_000,
        "server_target_latency_ns": 15_000_000,
        "multi_stream_samples_per_query": 8,
        "qsl_rng_seed": 5,
        "server_target_qps": 1.0,
    }
    stricter = {
        **official,
        "min_duration_ms": 700_000,
        "server_target_latency_ns": 10_000_000,
        "server_target_qps": 9.0,
    }
    assert deviations(official, stricter, "Server") == ()
    laxer = {**official, "min_duration_ms": 1, "server_target_latency_ns": 15_000_001, "qsl_rng_seed": 6}
    assert deviations(official, laxer, "Server") == (
        "min_duration_ms 1, official at least 600000 (leave out --time and min_duration)",
        "server_target_latency_ns 15000001, official at most 15000000 (leave out --max-latency and "
        "Server.target_latency)",
        "qsl_rng_seed 6, official 5",
    )
    assert deviations(official, {**official, "multi_stream_samples_per_query": 1}, "Server") == ()
    assert deviations(official, {**official, "multi_stream_samples_per_query": 1}, "MultiStream") != ()
