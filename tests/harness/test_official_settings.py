"""mlperf.conf, which we wrote for the reader, against what LoadGen says it uses when nothing is overridden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness_support import Command, run_record

MLPERF_CONF = Path(__file__).parents[2] / "mlperf.conf"
SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")

LOGGED = {
    ("*", "performance_sample_count_override"): ("requested_performance_sample_count_override", 1),
    ("*", "qsl_rng_seed"): ("requested_qsl_rng_seed", 1),
    ("*", "sample_index_rng_seed"): ("requested_sample_index_rng_seed", 1),
    ("*", "schedule_rng_seed"): ("requested_schedule_rng_seed", 1),
    ("*", "min_duration"): ("requested_min_duration_ms", 1),
    ("*", "min_query_count"): ("requested_min_query_count", 1),
    ("SingleStream", "target_latency_percentile"): ("requested_single_stream_target_latency_percentile", 0.01),
    ("MultiStream", "target_latency_percentile"): ("requested_multi_stream_target_latency_percentile", 0.01),
    ("Server", "target_latency_percentile"): ("requested_server_target_latency_percentile", 0.01),
    ("MultiStream", "samples_per_query"): ("requested_multi_stream_samples_per_query", 1),
    ("Server", "target_latency"): ("requested_server_target_latency_ns", 1e6),
}
"""(scenario or *, key) of mlperf.conf -> key of LoadGen's detail log, and the factor from one's unit to the other's."""

HINTS = {
    ("SingleStream", "target_latency"): ("single_stream_expected_latency_ns", 1e6),
    ("MultiStream", "target_latency"): ("multi_stream_expected_latency_ns", 1e6),
    ("Server", "target_qps"): ("server_target_qps", 1),
    ("Offline", "target_qps"): ("offline_expected_qps", 1),
}
"""What a run measures for itself: compared with the built-in settings that run.json keeps, by LoadGen's attribute."""


def stated() -> dict[tuple[str, str], float]:
    """mlperf.conf: (scenario, key) -> value, with * spread over all scenarios."""
    values = {}
    for line in MLPERF_CONF.read_text().splitlines():
        if line and not line.startswith("#"):
            key, value = line.split(" = ")
            model, scenario, name = key.split(".")
            assert model in ("*", "resnet50")
            for one in SCENARIOS if scenario == "*" else (scenario,):
                values[one, name] = float(value) if "." in value else int(value)
    return values


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_file_states_what_loadgen_uses(scenario: str, command: Command, dataset: Path, tmp_path: Path) -> None:
    conf = tmp_path / "empty.conf"
    conf.write_text("# nothing\n")
    flags = ("run", "--backend", "null", "--dataset-path", dataset, "--accuracy", "--count", 2)
    rate = ("--qps", 100) if scenario == "Server" else ()
    done = command(*flags, "--scenario", scenario, "--user-conf", conf, *rate)
    assert done.status == 0, done.stderr
    folder = tmp_path / "reports/runs/resnet50" / scenario / "accuracy"
    lines = (folder / "mlperf_log_detail.txt").read_text().splitlines()
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    assert not [entry for entry in entries if entry["metadata"]["is_error"]]
    logged = {entry["key"]: entry["value"] for entry in entries}
    built_in = run_record(folder)["settings"]["official"]
    for (of, key), value in stated().items():
        if of != scenario:
            continue
        if (of, key) in HINTS:
            attribute, factor = HINTS[of, key]
            assert built_in[attribute] == pytest.approx(value * factor, rel=1e-12), key
        else:
            log_key, factor = LOGGED.get((of, key)) or LOGGED["*", key]
            assert logged[log_key] == pytest.approx(value * factor, rel=1e-12), key


def test_every_scenario_is_stated() -> None:
    for scenario in SCENARIOS:
        assert {"min_duration", "performance_sample_count_override", "qsl_rng_seed"} <= {
            key for of, key in stated() if of == scenario
        }
