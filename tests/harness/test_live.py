"""The line that is shown while a test runs, and the explanation of verdicts: both judged by LoadGen's rules."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from harness_support import Command, run_record, write_steady_plugin

from harness.explain import RAN_OUT, advise
from harness.history import History, Look, Standstill, longest_standstill, read_forecasts
from harness.live import Forecast, Goal, Seen, as_clock, forecast, line
from harness.results import RunResult
from harness.timings import RESPONSE, SERVICE, SLOTS_PER_INSTANCE, Durations, Recorder

HANG_GUARD_S = 240
TOOL = str(Path(__file__).parents[2] / "tools/forecasts")
OFFLINE = Goal("Offline", "performance", 24_576, True, 24_576, 600, 0.9)
SERVER = Goal("Server", "performance", 60_000, False, 100, 600, 0.99, bound_s=0.015, rate_qps=100)
STREAM = Goal("MultiStream", "performance", 5296, False, 662, 600, 0.99, samples_per_query=8)


def seen(completed: int, elapsed_s: float, late: int = 0, service_s: float = 0.004) -> Seen:
    """So many samples, each a query of its own; late ones took 40 ms."""
    cells = [0] * SLOTS_PER_INSTANCE
    recorder = Recorder(cells, 0)
    recorder.record(RESPONSE, round(service_s * 1e9), completed - late)
    recorder.record(RESPONSE, 40_000_000, late)
    recorder.record(SERVICE, round(service_s * 1e9), completed)
    return Seen(elapsed_s, completed, Durations.of(cells, RESPONSE), Durations.of(cells, SERVICE))


def told_of(goal: Goal, completed: int, elapsed_s: float, late: int = 0, service_s: float = 0.004) -> Forecast:
    """A forecast without a history."""
    return forecast(goal, seen(completed, elapsed_s, late, service_s))


def test_offline_tells_early_whether_it_will_be_long_enough() -> None:
    slow = told_of(OFFLINE, 4000, 100)
    assert slow.left_s == pytest.approx((24_576 - 4000) / 40)
    assert (slow.still_open, slow.doubts, slow.expected) == (("duration", "count"), (), "VALID")
    fast = told_of(OFFLINE, 8192, 100)
    assert fast.left_s == pytest.approx(200)
    assert fast.doubts == ("duration: 300 s of at least 600 s, target_qps is too low",)
    assert fast.expected == "INVALID"
    assert told_of(OFFLINE, 0, 5).left_s is None
    assert told_of(OFFLINE, 400, 1).expected is None


def test_server_tells_whether_latency_and_early_stopping_will_hold() -> None:
    good = told_of(SERVER, 1000, 10)
    assert (good.left_s, good.still_open, good.doubts, good.expected) == (590, ("duration",), (), "VALID")
    # 543 of 60,000 may be late.
    assert told_of(SERVER, 30_000, 300, late=100).expected == "VALID"
    near = told_of(SERVER, 30_000, 300, late=270)  # 540 if it goes on like this: nobody knows
    assert (near.expected, near.still_open[-1]) == (None, "latency: 0.9 % of queries over 15 ms, 0.91 % allowed")
    far = told_of(SERVER, 30_000, 300, late=500)
    assert (far.expected, far.doubts) == ("INVALID", ("latency: 1.7 % of queries over 15 ms",))
    for late, expected in ((543, "VALID"), (544, "INVALID")):
        assert told_of(SERVER, 60_000, 600, late=late).expected == expected
    assert line(SERVER, seen(60_000, 600), told_of(SERVER, 60_000, 600)).endswith("0:00 left; VALID expected")
    few = replace(SERVER, rate_qps=0.5, samples=300, min_queries=100)
    assert told_of(few, 100, 200).doubts == ("early stopping: 300 queries of at least 459",)
    short = told_of(replace(SERVER, exactly=True, samples=6000), 3000, 30)
    assert (short.left_s, short.doubts) == (30, ("duration: 60 s of at least 600 s",))


def test_server_counts_those_who_wait() -> None:
    """At 300 queries/s an instance of 4 ms a query has answered 250 of them a second; the others are in the queue."""
    goal = replace(SERVER, rate_qps=300, samples=180_000)
    told = told_of(goal, 25_000, 100)
    assert told.expected == "INVALID"
    assert told.left_s == pytest.approx((180_000 - 25_000) / 250, rel=0.01)
    assert told.late == pytest.approx(5000, rel=0.12)  # but for those that the schedule may not have sent yet


def test_one_standstill_is_not_taken_for_the_rule() -> None:
    """300 queries are late because of one pause; the half before it had none."""
    history = History(SERVER)
    for second in range(1, 61):
        told = history.add(seen(100 * second, second))
    assert told.expected == "VALID"
    history.add(seen(6000, 64))
    for second in range(65, 71):
        told = history.add(seen(6000 + 160 * (second - 64), second, late=300))
    assert (told.expected, told.still_open[-1].split(":")[0]) == (None, "latency")
    for second in range(71, 601):
        told = history.add(seen(100 * second, second, late=300))
    assert told.expected == "VALID"
    assert history.standstill() == Standstill(60, 4)
    assert told_of(SERVER, 7000, 70, late=300).expected == "INVALID"  # what a share of the whole would say


def test_streams_need_queries_and_time() -> None:
    slow = told_of(STREAM, 8 * 60, 120)  # 662 queries of two seconds
    assert slow.left_s == pytest.approx((662 - 60) * 2)
    assert (slow.still_open, slow.expected) == (("duration", "count", "early stopping"), "VALID")
    shown = line(STREAM, seen(8 * 60, 120, service_s=2.0), slow)
    assert shown.startswith(
        "480 of at least 5296 samples, 4.0/s, p99 2,008 ms, 120 s, 20:04 left; VALID expected; open"
    )
    fixed = told_of(replace(STREAM, exactly=True, samples=800), 400, 10)
    assert fixed.left_s == pytest.approx(10)
    assert [doubt.split(":")[0] for doubt in fixed.doubts] == ["duration", "early stopping"]
    few = told_of(replace(STREAM, min_queries=100), 8 * 60, 120)  # LoadGen ends it after 600 s and 300 queries
    assert (few.left_s, few.doubts) == (480, ("early stopping: 300 queries of at least 662",))


def test_a_stream_that_is_twice_as_fast_as_its_hint_ends_early() -> None:
    hinted = replace(STREAM, prepared=1000)
    told = told_of(hinted, 8 * 100, 10)
    assert told.left_s == pytest.approx(90)
    assert told.doubts == ("target_latency: 1000 queries were prepared, and take only 100 s",)
    assert told_of(hinted, 8 * 10, 10).expected == "VALID"


def test_accuracy_runs_have_no_verdict() -> None:
    goal = replace(SERVER, mode="accuracy", samples=50_000, exactly=True)
    told = told_of(goal, 10_000, 100, late=9_000)
    assert (told.left_s, told.still_open, told.doubts, told.expected) == (400, (), (), None)
    assert line(goal, seen(10_000, 100), told) == "10000 of 50000 samples, 100.0/s, 100 s, 6:40 left"


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


def test_a_standstill_is_no_reason_for_another_rate() -> None:
    """What a run of ten minutes at 90.5 queries/s of 4 ms each logged after other programs had had the CPU for 68 s."""
    given = result("Server", latency_ms={"99.00_percentile": 65214.8}, late_query_count=12_026, query_count=54_591)
    effective = {**EFFECTIVE, "server_target_qps": 90.5}
    (advice,) = advise(given, effective, Standstill(101, 68.3))
    assert str(advice).startswith("nothing was answered for 68.3 s, 101 s into the test, which made the late queries")
    assert (advice.key, advice.value) == ("target_qps", 90.5)
    (advice,) = advise(given, effective, Standstill(101, 20))  # explains at most 7240
    assert advice.value == pytest.approx(0.8 * 90.5)


@pytest.mark.parametrize(
    ("late", "queries", "key", "value"),
    [
        (0, 400, "min_duration", 4820),
        (5, 400, "target_qps", 95),
        (1, 600, "target_qps", 100),
        (9, 1000, "target_qps", 100),
    ],
)
def test_a_standstill_excuses_late_queries_and_nothing_else(late: int, queries: int, key: str, value: float) -> None:
    """Early stopping asks for 459 queries if none is late: with 400 the same load would end as INVALID again."""
    given = result("Server", latency_ms={"99.00_percentile": 14.0}, late_query_count=late, query_count=queries)
    (advice,) = advise(given, EFFECTIVE, Standstill(1, 2.0))
    assert (advice.key, advice.value) == (key, pytest.approx(value, abs=1))


LOOKS = {
    "even": ([(0.5 * n, 45 * n) for n in range(100)], None),
    "large batches": ([(0.5 * n, 32 * (n // 8)) for n in range(100)], None),
    "slow queries": ([(0.5 * n, n // 5) for n in range(100)], None),
    "a stop": ([(0.5 * n, 45 * (n if n < 40 else max(40, n - 10))) for n in range(100)], Standstill(20, 5)),
    "logs are written": ([(0.5 * n, 45 * min(n, 50)) for n in range(100)], None),
    "the parent stopped too": ([(0.5 * n + 8 * (n > 40), 45 * n) for n in range(100)], Standstill(20, 8.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_standstills(name: str) -> None:
    looks, expected = LOOKS[name]
    assert longest_standstill([Look(elapsed_s, count, 0, None, "") for elapsed_s, count in looks]) == expected


def test_no_advice_where_nothing_is_wrong() -> None:
    assert advise(result("Offline", valid=True, metric=1.0), EFFECTIVE) == ()
    assert advise(result("Server", errors=("error: another",)), EFFECTIVE) == ()


def test_forecasts_are_kept_beside_the_logs(command: Command, dataset: Path, tmp_path: Path) -> None:
    """And a table of them is made by a tool."""
    done = command("run", "--backend", "null", "--dataset-path", dataset, "--time", 1.6, "--quiet")
    assert done.status == 0, done.stderr
    folder = tmp_path / "reports/runs/resnet50/SingleStream/performance"
    looks = read_forecasts(folder / "forecasts.csv")
    assert looks[-1].completed == run_record(folder)["result"]["query_count"]
    assert looks[-1].expected == "VALID"
    assert [look.elapsed_s for look in looks] == sorted(look.elapsed_s for look in looks)
    table = subprocess.run([sys.executable, TOOL, folder], capture_output=True, text=True, check=True).stdout
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:5]] == ["25 %", "50 %", "75 %"]


def wait_for(test: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """While the test runs."""
    while not happened():
        assert test.poll() is None
        time.sleep(0.02)


def test_a_process_that_was_stopped_is_told(dataset: Path, tmp_path: Path) -> None:
    """As if other programs had had the CPUs for three seconds; the plugin leaves a byte for each inference.

    What they kept waiting is answered within a look or two (a millisecond each, looks every half second), and as much
    time is left behind them: so most steps between looks are usual ones, which a standstill is told by.
    """
    inferences = tmp_path / "inferences"
    write_steady_plugin(tmp_path, "steady", f"0.001 * open({str(inferences)!r}, 'ab').write(b'.')")
    environment = {**os.environ, "PYTHONPATH": f"{Path(TOOL).parents[1]}:{tmp_path}", "XDG_CACHE_HOME": str(tmp_path)}
    flags = ("run", "--backend", "steady", "--dataset-path", dataset, "--scenario", "Server", "--qps", 40, "--time", 6,
             "--max-latency", 0.5, "--instances", 1, "--output", tmp_path / "out", "--quiet")  # fmt: skip
    folder = tmp_path / "out/resnet50/Server/performance"
    test = subprocess.Popen([sys.executable, "-m", "harness", *map(str, flags)], env=environment,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip
    wait_for(test, (folder / "mlperf_log_detail.txt").exists)  # LoadGen is running
    before = inferences.stat().st_size
    wait_for(test, lambda: inferences.stat().st_size > before + 1)  # and has its first answer
    (child,) = [one for one in psutil.Process(test.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    child.suspend()
    time.sleep(3)
    child.resume()
    said, _ = test.communicate(timeout=HANG_GUARD_S)
    assert "warning: nothing was answered for " in said


def test_advice_that_is_followed_makes_the_run_valid(command: Command, dataset: Path, tmp_path: Path) -> None:
    """Offline at a rate far below what the null backend does ends too early; with the rate advised it does not.

    A run of a few milliseconds says little on a busy machine: then the next one is advised, from more samples.
    """
    (tmp_path / "user.conf").write_text("*.Offline.min_query_count = 100\n")
    flags = ("run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Offline", "--time", 0.3, "--quiet",
             "--user-conf", "user.conf")  # fmt: skip
    valid, rate = [], 1000.0
    while not valid or not (valid[-1] or len(valid) == 4):
        done = command(*flags, "--qps", rate)
        valid.append(run_record(tmp_path / "reports/runs/resnet50/Offline/performance")["result"]["valid"])
        advice = [text for text in done.stdout.splitlines() if text.startswith("-> ")]
        assert len(advice) == (0 if valid[-1] else 1)
        if advice:
            rate = 1.5 * float(advice[0].split(" = ")[1].split()[0])  # the null backend's speed varies from run to run
            assert rate > 10_000
    assert len(valid) > 1 and valid[-1]
