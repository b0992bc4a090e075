"""Tuning of loads against queues whose best load is known in closed form, and with LoadGen."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from harness_support import Command, run_record, write_steady_plugin

from harness import early_stopping
from harness.config import RunConfig
from harness.errors import BadInputError
from harness.progress import Quiet
from harness.settings import read_user_conf
from harness.timings import HISTOGRAMS, RESPONSE, SERVICE, SLOTS_PER_INSTANCE, Durations, Recorder
from harness.tuning.queueing import Queue
from harness.tuning.server import Probe, ServerGoal, tune_server
from harness.tuning.tune import TuneConfig, tune, user_conf

BOUND_S = 0.015
DURATION_S = 600.0
GOAL = ServerGoal(BOUND_S, 0.99, DURATION_S, 3333.0)


def durations(seconds: npt.NDArray[np.float64]) -> Durations:
    """A histogram as an instance would have written it."""
    cells = [0] * SLOTS_PER_INSTANCE
    recorder = Recorder(cells, 0)
    for value in seconds:
        recorder.record(SERVICE, round(value * 1e9))
    return Durations.of(cells, SERVICE)


class TestEarlyStopping:
    """Numbers that MLCommons publishes: least queries for so many late ones."""

    @pytest.mark.parametrize(
        ("percentile", "late", "queries"),
        [(0.9, 1, 64), (0.9, 2, 81), (0.9, 5, 127), (0.9, 10, 197), (0.9, 100, 1246), (0.99, 0, 459), (0.99, 1, 662),
         (0.99, 2, 838), (0.99, 10, 2010), (0.99, 50, 6898), (0.99, 1000, 107569)],
    )  # fmt: skip
    def test_table(self, percentile: float, late: int, queries: int) -> None:
        assert early_stopping.least_queries(late, percentile) == queries
        assert early_stopping.allowed_late(queries, percentile) == late
        assert early_stopping.allowed_late(queries - 1, percentile) == late - 1

    def test_streams(self) -> None:
        assert (early_stopping.stream_queries(0.9), early_stopping.stream_queries(0.99)) == (64, 662)


class TestDurations:
    def test_quantiles_are_right_to_a_hundredth(self) -> None:
        values = np.random.default_rng(5).lognormal(-6, 1.5, 5000)
        found = durations(values)
        assert found.count == 5000
        for share in (0.1, 0.5, 0.9, 0.99):
            assert found.quantile_s(share) == pytest.approx(np.quantile(values, share), rel=0.02)
        assert found.mean_s() == pytest.approx(values.mean(), rel=0.01)
        assert found.above(0.01) == pytest.approx((values > 0.01).sum(), rel=0.03)

    def test_instances_and_kinds_are_apart(self) -> None:
        cells = [0] * (2 * SLOTS_PER_INSTANCE)
        Recorder(cells, 0).record(RESPONSE, 10**6, 3)
        Recorder(cells, 1).record(RESPONSE, 0)
        Recorder(cells, 1).record(SERVICE, 10**20)
        assert Durations.of(cells, RESPONSE).count == 4
        assert Durations.of(cells, SERVICE).count == 1
        assert sum(cells) == 5 and HISTOGRAMS == 2

    def test_nothing(self) -> None:
        empty = durations(np.array([]))
        assert (empty.count, empty.quantile_s(0.9), empty.mean_s(), empty.above(0)) == (0, 0.0, 0.0, 0)
        with pytest.raises(ValueError, match="no durations"):
            empty.draw(np.random.default_rng(1), (2,))


def tail_fixed(rate: float, service_s: float, bound_s: float) -> float:
    """M/D/1, P(response > bound): Erlang's series for the waiting time."""
    load, waiting = rate * service_s, bound_s - service_s
    terms = (
        math.exp(rate * (waiting - k * service_s)) * (rate * (k * service_s - waiting)) ** k / math.factorial(k)
        for k in range(int(waiting / service_s) + 1)
    )
    return 1 - (1 - load) * sum(terms)


def tail_exponential(rate: float, service_s: float, instances: int, bound_s: float) -> float:
    """M/M/c, P(response > bound): Erlang's C and a sum of two exponentials."""
    mu, offered = 1 / service_s, rate * service_s
    below = sum(offered**k / math.factorial(k) for k in range(instances))
    last = offered**instances / math.factorial(instances) * instances / (instances - offered)
    queued = last / (below + last)
    drain = instances * mu - rate
    wait_and_service = (drain * math.exp(-mu * bound_s) - mu * math.exp(-drain * bound_s)) / (drain - mu)
    return (1 - queued) * math.exp(-mu * bound_s) + queued * wait_and_service


def tail_two_kinds(rate: float, share: float, short_s: float, long_s: float, bound_s: float) -> float:
    """M/H2/1, P(response > bound): Pollaczek and Khinchine's transform, inverted at its three poles."""
    a, b = 1 / short_s, 1 / long_s
    load = rate * ((1 - share) * short_s + share * long_s)
    # response(s) = service(s) * (1 - load) * s / (s - rate + rate * service(s)), over the common denominator (s+a)(s+b)
    service = np.polyadd((1 - share) * a * np.array([1, b]), share * b * np.array([1, a]))
    both = np.polymul([1, a], [1, b])
    below = np.polyadd(np.polymul([1, -rate], both), rate * service)  # has a root at zero
    poles = np.roots(np.polydiv(below, [1, 0])[0])
    tail = 0.0
    for pole in poles:
        slope = np.polyval(np.polyder(np.polydiv(below, [1, 0])[0]), pole)
        residue = (1 - load) * np.polyval(service, pole) / slope
        tail += (residue / -pole * np.exp(pole * bound_s)).real
    return float(tail)


def best_rate(tail: Callable[[float], float], capacity: float) -> float:
    """The rate at which early stopping just allows the late queries of a run, with 95 % probability (Poisson)."""
    low, high = 0.0, capacity * 0.9999
    for _ in range(50):
        middle = (low + high) / 2
        queries = max(1, round(middle * DURATION_S))
        late = tail(middle) * queries
        if late + 1.645 * math.sqrt(max(late, 0.0)) <= early_stopping.allowed_late(queries, GOAL.percentile) + 0.5:
            low = middle
        else:
            high = middle
    return low


Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def two_kinds(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """3 % of the inferences take, on average, twelve times as long."""
    return np.where(random.random(count) < 0.03, random.exponential(0.003, count), random.exponential(0.00025, count))


QUEUES: dict[str, tuple[int, Draw, Callable[[float], float], float]] = {
    "fixed 4 ms": (1, lambda _, n: np.full(n, 0.004), lambda rate: tail_fixed(rate, 0.004, BOUND_S), 250),
    "fixed 6 ms": (1, lambda _, n: np.full(n, 0.006), lambda rate: tail_fixed(rate, 0.006, BOUND_S), 1000 / 6),
    "exponential, 4 instances": (
        4, lambda r, n: r.exponential(0.002, n), lambda rate: tail_exponential(rate, 0.002, 4, BOUND_S), 2000),
    "heavy tail": (
        1, two_kinds, lambda rate: tail_two_kinds(rate, 0.03, 0.00025, 0.003, BOUND_S), 3007),
}  # fmt: skip


def simulated_probe(draw: Draw, instances: int, seconds: float, overhead_s: float) -> Callable[[float], Probe]:
    """LoadGen, a queue and instances, one event after the other."""
    random = np.random.default_rng(11)

    def run_probe(rate: float) -> Probe:
        count = max(50, round(rate * seconds))
        service = draw(random, count)
        arrivals = np.cumsum(random.exponential(1 / rate, count))
        free = [0.0] * instances
        responses = np.empty(count)
        for number in range(count):
            end = max(arrivals[number], heapq.heappop(free)) + service[number]
            heapq.heappush(free, end)
            responses[number] = end - arrivals[number] + overhead_s
        return Probe(rate, durations(responses), durations(service), float((responses > BOUND_S).mean()))

    return run_probe


@pytest.mark.parametrize("name", QUEUES)
def test_the_rate_of_a_known_queue(name: str) -> None:
    instances, draw, tail, capacity = QUEUES[name]
    analytic = best_rate(tail, capacity)
    found = tune_server(simulated_probe(draw, instances, 60, 0.0), instances, 0.9 * capacity, GOAL)
    assert found.rate_qps == pytest.approx(analytic, rel=0.05)


def test_what_a_query_waits_for_besides_is_taken_off_the_bound() -> None:
    instances, draw, _, capacity = QUEUES["fixed 4 ms"]
    analytic = best_rate(lambda rate: tail_fixed(rate, 0.004, BOUND_S - 0.002), capacity)
    found = tune_server(simulated_probe(draw, instances, 20, 0.002), instances, capacity, GOAL)
    assert 0.95 * analytic <= found.rate_qps <= 1.02 * analytic


@pytest.mark.parametrize("service_s", [0.009, 0.037])
def test_a_bound_that_cannot_be_met(service_s: float) -> None:
    """At 9 ms nobody may wait longer than 6 ms: rates that low have too few queries to allow a late one."""
    with pytest.raises(BadInputError, match=f"one inference alone takes {1000 * service_s:.2g}"):
        tune_server(simulated_probe(lambda _, n: np.full(n, service_s), 1, 10, 0), 1, 0.8 / service_s, GOAL)


def test_many_instances_and_a_ceiling() -> None:
    goal = ServerGoal(BOUND_S, 0.99, DURATION_S, 500.0)
    found = tune_server(simulated_probe(lambda _, n: np.full(n, 0.002), 16, 5, 0), 16, 8000, goal)
    assert found.rate_qps == 500


def test_probability_of_a_valid_run() -> None:
    """Certain below, excluded above the best rate, and between 0 and 1 near it."""
    queue = Queue(durations(np.full(100, 0.004)), 1)
    analytic = best_rate(lambda rate: tail_fixed(rate, 0.004, BOUND_S), 250)
    low, near, high = (
        queue.load(share * analytic, BOUND_S, 0.99, DURATION_S).valid_probability for share in (0.9, 1.0, 1.1)
    )
    assert low > 0.999 and high < 0.001 and 0.001 < near < 0.999


def test_tuned_runs_are_valid_with_loadgen(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short runs tune for a run of two seconds, which is VALID without anything being estimated again."""
    write_steady_plugin(tmp_path, "steady", "0.02")
    monkeypatch.syspath_prepend(tmp_path)
    config = RunConfig("tuning", "resnet50", "Offline", "performance", "steady", None, dataset, tmp_path / "tuning")
    found = tune(TuneConfig(config, ("MultiStream", "SingleStream"), 0.6, duration_s=2.0), Quiet())
    assert [one.scenario for one in found] == ["MultiStream", "SingleStream"]
    text = user_conf(found)
    (tmp_path / "user.conf").write_text(text)
    settings = {(one.scenario, one.key): float(one.value) for one in read_user_conf(tmp_path / "user.conf", "resnet50")}
    assert set(settings) == {("SingleStream", "target_latency"), ("MultiStream", "target_latency")}
    assert all(line.startswith("#") or " = " in line for line in text.splitlines() if line)
    assert settings[("SingleStream", "target_latency")] > 0.79 * 20
    done = command(
        "run", "--backend", "steady", "--dataset-path", dataset, "--scenario", "SingleStream", "--time", 2,
        "--user-conf", "user.conf", "--quiet",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    record = run_record(tmp_path / "reports/runs/resnet50/SingleStream/performance")
    assert record["result"]["valid"] is True
    assert record["settings"]["estimated"] == []


def test_server_is_probed_with_loadgen(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine even a short sleep may end beyond the bound; then that is what has to be said."""
    write_steady_plugin(tmp_path, "steady", "0.002")
    monkeypatch.syspath_prepend(tmp_path)
    config = RunConfig("tuning", "resnet50", "Offline", "performance", "steady", None, dataset, tmp_path / "tuning")
    try:
        (found,) = tune(TuneConfig(config, ("Server",), 0.6), Quiet())
    except BadInputError as error:
        assert "no rate keeps 99 % of queries within 15 ms" in str(error)
    else:
        assert (found.key, found.duration_s) == ("target_qps", 600)
        assert 1 <= found.value <= 2 * 500
    assert len(list((tmp_path / "tuning/tuning/Server").iterdir())) >= 1


def test_tune_load_writes_a_user_conf(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_steady_plugin(tmp_path, "steady", "0.02")
    monkeypatch.syspath_prepend(tmp_path)
    done = command(
        "tune-load", "--backend", "steady", "--dataset-path", dataset, "--scenarios", "edge", "--seconds", 0.3,
        "--output", "mine/user.conf", "--runs", "tuning", "--quiet",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    settings = read_user_conf(tmp_path / "mine/user.conf", "resnet50")
    assert [(one.scenario, one.key) for one in settings] == [
        ("SingleStream", "target_latency"), ("MultiStream", "target_latency"), ("Offline", "target_qps"),
    ]  # fmt: skip
    assert "mine/user.conf" in done.stdout
