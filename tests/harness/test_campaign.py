"""The demo's sequence of runs, on a small model: Server's settings follow from Offline's result, and all is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness_support import run_record

from harness.config import RunConfig
from harness.console import print_campaign
from harness.demo_campaign import DEMO_CONF, DemoRuns, run_demo
from harness.progress import Quiet


def test_server_is_set_from_offline_and_the_table_tells_all(
    dataset: Path,
    model: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    config = RunConfig(
        name="demo",
        profile="resnet50",
        scenario="SingleStream",
        mode="performance",
        backend="onnxruntime",
        model=model,
        dataset_path=dataset,
        output=tmp_path,
        min_duration_s=0.3,
        user_conf=DEMO_CONF,
        not_submittable=("the demo's model and images",),
    )
    outcomes = list(run_demo(config, DemoRuns(("Server",), ("performance", "accuracy")), Quiet()))
    folders = [outcome.folder.relative_to(tmp_path).as_posix() for outcome in outcomes]
    assert folders == ["demo/Offline/performance", "demo/Server/performance", "demo/Server/accuracy"]
    throughput = outcomes[0].result.metric
    assert throughput is not None
    effective = run_record(outcomes[1].folder)["settings"]["effective"]
    assert 0 < effective["server_target_qps"] < 0.41 * throughput
    inference_ns = outcomes[0].instances * 1e9 / throughput
    assert effective["server_target_latency_ns"] >= 10e9 + 10 * inference_ns
    assert effective["min_query_count"] == 460
    latency_ms = outcomes[1].result.latency_ms["99.00_percentile"]
    assert 0 < run_record(outcomes[2].folder)["settings"]["effective"]["server_target_qps"] < throughput
    print_campaign(outcomes, tmp_path)
    printed = capsys.readouterr().out
    assert f"queries/s issued, 99th percentile of latency {latency_ms:.1f} ms, bound 10" in printed
    for expected in ("Offline", "samples/s", "Server", "75.000%", "not for submission", "the demo's model and images"):
        assert expected in printed
    assert printed.splitlines()[-1] == f"logs: {tmp_path / 'demo'}"
