"""The line that is shown while a test runs, and the explanation of verdicts: both judged by LoadGen's rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from harness_support import Command, run_record

from harness.explain import RAN_OUT, advise
from harness.live import Goal, as_clock, forecast, line
from harness.results import RunResult
from harness.timings import RESPONSE, SLOTS_PER_INSTANCE, Durations, Recorder

OFFLINE = Goal("Offline", "performance", 24_576, True, 24_576, 600, 0.9, None)
SERVER = Goal("Server", "performance", 100, False, 100, 600, 0.99, 0.015)
STREAM = Goal("MultiStream", "performance", 5296, False, 662, 600, 0.99, None)


def responses(count: int, seconds: float = 0.004, late: int = 0) -> Durations:
    """So many of one duration, and some that are late."""
    cells = [0] * SLOTS_PER_INSTANCE
    recorder = Recorder(cells, 0)
    recorder.record(RESPONSE, round(seconds * 1e9), count - late)
    recorder.record(RESPONSE, 40_000_000, late)
    return Durations.of(cells, RESPONSE)


def test_offline_tells_early_whether_it_will_be_long_enough() -> None:
    slow = forecast(OFFLINE, 4000, 100, responses(0))
    assert slow.left_s == pytest.approx((24_576 - 4000) / 40)
    assert (slow.still_open, slow.doubts) == (("duration", "count"), ())
    fast = forecast(OFFLINE, 8192, 100, responses(0))
    assert fast.left_s == pytest.approx(200)
    assert fast.doubts == ("duration: 300 s of at least 600 s, target_qps is too low",)
    assert forecast(OFFLINE, 0, 5, responses(0)).left_s is None


def test_server_tells_whether_latency_and_early_stopping_will_hold() -> None:
    good = forecast(SERVER, 1000, 10, responses(1000))
    assert (good.left_s, good.still_open, good.doubts) == (590, ("duration",), ())
    few = forecast(SERVER, 400, 4, responses(400))  # none late: 459 are needed
    assert few.still_open == ("duration", "early stopping")
    late = forecast(SERVER, 1000, 10, responses(1000, late=9))  # 540 of 60,000: allowed
    assert late.doubts == ()
    too_late = forecast(SERVER, 1000, 10, responses(1000, late=10))  # 600 of 60,000: 543 are allowed
    assert too_late.doubts == ("latency: 1 % of queries over 15 ms",)
    assert forecast(SERVER, 60_001, 600, responses(60_001, late=540)).still_open == ()
    assert line(SERVER, 60_001, 600, responses(60_001, late=540)).endswith("0:00 left; VALID expected")
    assert "INVALID expected: latency" in line(SERVER, 1000, 10, responses(1000, late=20))


def test_streams_need_queries_and_time() -> None:
    slow = forecast(STREAM, 8 * 60, 120, responses(60, 2.0))  # 662 queries of two seconds
    assert slow.left_s == pytest.approx((662 - 60) * 2)
    assert slow.still_open == ("duration", "count", "early stopping")
    shown = line(STREAM, 8 * 60, 120, responses(60, 2.0))
    assert shown.startswith("480 of at least 5296 samples, 4.0/s, p99 2.01e+03 ms, 120 s, 20:04 left; open: duration")
    fixed = replace(STREAM, exactly=True, samples=800)
    assert forecast(fixed, 400, 10, responses(50)).left_s == pytest.approx(10)


def test_accuracy_runs_have_no_verdict() -> None:
    goal = Goal("Server", "accuracy", 50_000, True, 100, 600, 0.99, 0.015)
    told = forecast(goal, 10_000, 100, responses(10_000, late=9_000))
    assert (told.left_s, told.still_open, told.doubts) == (400, (), ())
    assert line(goal, 10_000, 100, responses(10)) == "10000 of 50000 samples, 100.0/s, 100 s, 6:40 left"


def test_clock() -> None:
    assert [as_clock(seconds) for seconds in (0, 59.6, 600, 3723)] == ["0:00", "1:00", "10:00", "1:02:03"]


def result(scenario: str, **values: object) -> RunResult:
    """An INVALID one."""
    given = {
        "mode": "PerformanceOnly", "valid": False, "invalid_reasons": (), "errors": (), "metric": None,
        "metric_name": "", "metric_unit": "", "query_count": None, "latency_ms": {}, "accuracy_sample_count": 0,
        "performance_sample_count": 1024, **values,
    }  # fmt: skip
    return RunResult(scenario=scenario, **given)  # type: ignore[arg-type]


EFFECTIVE = {
    "server_target_qps": 100.0, "server_target_latency_ns": 15_000_000, "server_target_latency_percentile": 0.99,
    "multi_stream_target_latency_percentile": 0.99, "single_stream_target_latency_percentile": 0.9,
    "min_query_count": 100,
}  # fmt: skip

ADVICE = [
    (result("Offline", metric=110.0), "*.Offline.target_qps = 105 (or --qps 105)"),
    (result("Server", latency_ms={"99.00_percentile": 16.0}), "*.Server.target_qps = 95 (or --qps 95)"),
    (result("Server", latency_ms={"99.00_percentile": 160.0}), "*.Server.target_qps = 80 (or --qps 80)"),
    (result("Server", latency_ms={"99.00_percentile": 14.0}, late_query_count=1, query_count=600),
     "*.Server.min_duration = 6951 (or --time 6.951)"),
    (result("Server", latency_ms={"99.00_percentile": 14.9}, late_query_count=9, query_count=1000),
     "*.Server.target_qps = 95 (or --qps 95)"),
    (result("MultiStream", query_count=500), "*.MultiStream.min_query_count = 662"),
    (result("SingleStream", query_count=50), "*.SingleStream.min_query_count = 100"),
    (result("SingleStream", errors=(f"error: {RAN_OUT} to issue",), latency_ms={"mean": 5.0}),
     "*.SingleStream.target_latency = 4 (or --max-latency 0.004)"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), ADVICE)
def test_every_verdict_names_a_key_and_a_value(given: RunResult, expected: str) -> None:
    (advice,) = advise(given, EFFECTIVE)
    assert str(advice).endswith(f": try {expected}")


def test_no_advice_where_nothing_is_wrong() -> None:
    assert advise(result("Offline", valid=True, metric=1.0), EFFECTIVE) == ()
    assert advise(result("Server", errors=("error: another",)), EFFECTIVE) == ()


def test_advice_that_is_followed_makes_the_run_valid(command: Command, dataset: Path, tmp_path: Path) -> None:
    """Offline at a rate far below what the null backend does ends too early; with the rate advised it does not."""
    (tmp_path / "user.conf").write_text("*.Offline.min_query_count = 100\n")
    flags = ("run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Offline", "--time", 0.3, "--quiet",
             "--user-conf", "user.conf")  # fmt: skip
    first = command(*flags, "--qps", 1000)
    assert run_record(tmp_path / "reports/runs/resnet50/Offline/performance")["result"]["valid"] is False
    (advice,) = [text for text in first.stdout.splitlines() if text.startswith("-> ")]
    rate = float(advice.split(" = ")[1].split()[0])
    assert rate > 10_000
    second = command(*flags, "--qps", 10 * rate)  # the null backend's own speed varies, on a busy machine by multiples
    assert run_record(tmp_path / "reports/runs/resnet50/Offline/performance")["result"]["valid"] is True
    assert not [text for text in second.stdout.splitlines() if text.startswith("-> ")]
