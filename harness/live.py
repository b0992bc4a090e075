"""What is told about a test while it runs: how far it is, how long it will take, and whether it will be VALID.

Pure: made of counters that the parent reads, never of anything that the measured process would have to compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from . import early_stopping
from .config import Mode, Scenario
from .figures import figures
from .settings import MS_PER_S
from .timings import Durations

Verdict: TypeAlias = Literal["VALID", "INVALID"]

_CHANCE: Final = 3.0
"""A number of queries that differs from the expected one by so many standard deviations is no chance any more."""
_CLUSTER: Final = 10.0
"""Late queries come in clusters, so that their number varies as if it were so many times smaller: 3 to 11, as simulated
(`tuning/queueing.py`) at rates that the bound only just allows."""


@dataclass(frozen=True)
class Goal:
    """When a test ends and what it needs to be VALID.

    samples: how many it takes, at least (Server: about) or exactly. min_queries, min_duration_s: of LoadGen's rules.
    percentile: of latency, reported by streams and bounded in Server; bound_s: Server's.
    rate_qps: at which Server issues queries. prepared: queries that LoadGen makes for a stream; it ends with the last.
    """

    scenario: Scenario
    mode: Mode
    samples: int
    exactly: bool
    min_queries: int
    min_duration_s: float
    percentile: float
    bound_s: float | None = None
    rate_qps: float | None = None
    prepared: float = math.inf
    samples_per_query: int = 1
    instances: int = 1


@dataclass(frozen=True)
class Seen:
    """What has happened so far. completed: samples; responses: one duration per query; service: one per inference."""

    elapsed_s: float
    completed: int
    responses: Durations
    service: Durations


@dataclass(frozen=True)
class Forecast:
    """left_s: until the test ends; None before anything is known. still_open: what it needs and has not got yet.

    doubts: what will keep it from being VALID if it goes on like this. expected: None before that is clear, and of
    accuracy runs. late: Server's queries that are or will be over the bound.
    """

    left_s: float | None
    still_open: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    expected: Verdict | None = None
    late: int = 0


def forecast(goal: Goal, seen: Seen, late_before: tuple[int, int] = (0, 0)) -> Forecast:
    """From what has happened so far. late_before: completed samples and late ones when half of that had passed."""
    rate = seen.completed / seen.elapsed_s if seen.elapsed_s > 0 else 0.0
    if rate == 0:
        return Forecast(None)
    if goal.mode == "accuracy":
        return Forecast(max(0.0, (goal.samples - seen.completed) / rate))
    if goal.scenario == "Offline":
        return _of_offline(goal, seen.completed, seen.elapsed_s, rate)
    if goal.scenario == "Server":
        return _of_server(goal, seen, late_before)
    return _of_stream(goal, seen.completed / goal.samples_per_query, seen.elapsed_s)


def line(goal: Goal, seen: Seen, told: Forecast) -> str:
    """E.g. `1200 of at least 24576 samples, 40.1/s, p99 13 ms of 15 ms, 30 s, 9:30 left; VALID expected`."""
    how = "" if goal.exactly else "about " if goal.scenario == "Server" else "at least "
    parts = [f"{seen.completed} of {how}{goal.samples} samples"]
    if seen.elapsed_s > 0:
        parts.append(f"{seen.completed / seen.elapsed_s:.1f}/s")
    if seen.responses.count > 0 and goal.scenario != "Offline" and goal.mode == "performance":
        bound = "" if goal.bound_s is None else f" of {figures(goal.bound_s * MS_PER_S)} ms"
        quantile_ms = seen.responses.quantile_s(goal.percentile) * MS_PER_S
        parts.append(f"p{100 * goal.percentile:g} {figures(quantile_ms)} ms{bound}")
    parts.append(f"{seen.elapsed_s:.0f} s")
    if told.left_s is not None:
        parts.append(f"{as_clock(told.left_s)} left")
    clauses = [", ".join(parts)]
    if told.expected is not None:
        clauses.append(f"{told.expected} expected" + (f": {'; '.join(told.doubts)}" if told.doubts else ""))
    if told.still_open:
        clauses.append(f"open: {', '.join(told.still_open)}")
    return "; ".join(clauses)


def as_clock(seconds: float) -> str:
    """E.g. 9:30, or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_SURE_AFTER: Final = 0.02
"""Share of the samples after which Offline's rate is taken for the whole test's."""


def _of_offline(goal: Goal, completed: int, elapsed_s: float, rate: float) -> Forecast:
    """One query: it ends when all samples are done, and is VALID if that took long enough."""
    left_s = max(0.0, (goal.samples - completed) / rate)
    total_s = elapsed_s + left_s
    still_open = (
        *(["duration"] if elapsed_s < goal.min_duration_s else []),
        *(["count"] if completed < goal.samples else []),
    )
    if completed <= _SURE_AFTER * goal.samples:
        return Forecast(left_s, still_open)
    if total_s < goal.min_duration_s:
        doubt = f"duration: {total_s:.0f} s of at least {goal.min_duration_s:g} s, target_qps is too low"
        return Forecast(left_s, (), (doubt,), "INVALID")
    return Forecast(left_s, still_open, (), "VALID")


def _of_stream(goal: Goal, queries: float, elapsed_s: float) -> Forecast:
    """One query after the other until duration and count are met, or until no prepared query is left."""
    rate = queries / elapsed_s
    at_end = goal.samples / goal.samples_per_query
    if not goal.exactly:
        at_end = max(goal.min_queries, rate * goal.min_duration_s, queries)
    doubts = []
    if at_end > goal.prepared and queries < goal.prepared:
        at_end = goal.prepared
        doubts.append(f"target_latency: {at_end:.0f} queries were prepared, and take only {at_end / rate:.0f} s")
    elif goal.exactly and at_end / rate < goal.min_duration_s:
        doubts.append(f"duration: {at_end / rate:.0f} s of at least {goal.min_duration_s:g} s")
    needed = early_stopping.stream_queries(goal.percentile)
    if at_end < needed:
        doubts.append(f"early stopping: {at_end:.0f} queries of at least {needed}")
    still_open = (
        *(["duration"] if elapsed_s < goal.min_duration_s else []),
        *(["count"] if queries < goal.min_queries else []),
        *(["early stopping"] if queries < needed else []),
    )
    left_s = max(0.0, (at_end - queries) / rate)
    return Forecast(left_s, () if doubts else still_open, tuple(doubts), "INVALID" if doubts else "VALID")


def _of_server(goal: Goal, seen: Seen, late_before: tuple[int, int]) -> Forecast:
    """Queries come at their rate, whatever happens; of those that wait now most will be late.

    How many were issued is known but for the chance in the schedule, a Poisson process. Whether the late ones of the
    rest will be few enough is said where the two halves of what has happened agree on it.
    """
    assert goal.bound_s is not None and goal.rate_qps is not None
    issue_s = goal.samples / goal.rate_qps
    if not goal.exactly:
        issue_s = max(goal.min_duration_s, goal.min_queries / goal.rate_qps)
    at_end = max(round(goal.rate_qps * issue_s), seen.completed)
    issued = goal.rate_qps * min(seen.elapsed_s, issue_s)
    waiting = max(0.0, issued - seen.completed - _CHANCE * math.sqrt(issued))
    drain_qps = max(seen.completed / seen.elapsed_s, goal.instances / (seen.service.mean_s() or math.inf))
    left_s = max(0.0, issue_s - seen.elapsed_s, (at_end - seen.completed) / drain_qps if waiting else 0.0)

    late = seen.responses.above(goal.bound_s) + round(max(0.0, waiting - goal.bound_s * drain_qps))
    known = max(1, round(seen.completed + waiting))
    rest = max(0, at_end - known)
    halves = [late / known]
    if 0 < late_before[0] < known:
        halves = [late_before[1] / late_before[0], max(0, late - late_before[1]) / (known - late_before[0])]
    chance = math.sqrt(_CLUSTER * (late + 1) * rest * (rest + known)) / known
    allowed = early_stopping.allowed_late(at_end, goal.percentile)
    told = f"latency: {100 * late / known:.2g} % of queries over {goal.bound_s * MS_PER_S:g} ms"
    doubts, near = [], False
    if issue_s < goal.min_duration_s:
        doubts.append(f"duration: {issue_s:.0f} s of at least {goal.min_duration_s:g} s")
    if allowed < 0:
        needed = early_stopping.least_queries(0, goal.percentile)
        doubts.append(f"early stopping: {at_end} queries of at least {needed}")
    elif late + rest * min(halves) - chance > allowed:
        doubts.append(told)
    else:
        near = late + rest * max(halves) + chance > allowed
    if doubts:
        return Forecast(left_s, (), tuple(doubts), "INVALID", late)
    still_open = (
        *(["duration"] if seen.elapsed_s < goal.min_duration_s else []),
        *(["count"] if seen.completed < goal.min_queries else []),
        *([f"{told}, {100 * allowed / at_end:.2g} % allowed"] if near else []),
    )
    return Forecast(left_s, still_open, (), None if near else "VALID", late)
