"""What is told about a test while it runs: how far it is, how long it will take, and whether it will be VALID.

Pure: made of counters that the parent reads, never of anything that the measured process would have to compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import early_stopping
from .config import STREAMS, Mode, Scenario
from .settings import MS_PER_S
from .timings import Durations


@dataclass(frozen=True)
class Goal:
    """When a test ends and what it needs to be VALID.

    samples: how many it takes, at least or exactly. min_queries, min_duration_s: of LoadGen's rules.
    percentile: of latency, reported by streams and bounded in Server; bound_s: Server's.
    """

    scenario: Scenario
    mode: Mode
    samples: int
    exactly: bool
    min_queries: int
    min_duration_s: float
    percentile: float
    bound_s: float | None


@dataclass(frozen=True)
class Forecast:
    """left_s: until the test ends; None before anything is known. still_open: what it needs and has not got yet.

    doubts: what will keep it from being VALID if it goes on like this.
    """

    left_s: float | None
    still_open: tuple[str, ...]
    doubts: tuple[str, ...]


def forecast(goal: Goal, completed: int, elapsed_s: float, responses: Durations) -> Forecast:
    """From what has happened so far. completed: samples; responses: one duration per query."""
    rate = completed / elapsed_s if elapsed_s > 0 else 0.0
    if rate == 0:
        return Forecast(None, (), ())
    if goal.mode == "accuracy":
        return Forecast(max(0.0, (goal.samples - completed) / rate), (), ())
    if goal.scenario == "Offline":
        return _of_offline(goal, completed, elapsed_s, rate)
    queries = responses.count
    query_rate = queries / elapsed_s
    needed = max(goal.min_queries, _early_stopping_queries(goal, responses))
    left_s = max(goal.min_duration_s - elapsed_s, (needed - queries) / query_rate if query_rate > 0 else 0.0, 0.0)
    if goal.exactly:
        left_s = max(0.0, (goal.samples - completed) / rate)
    still_open = [
        *(["duration"] if elapsed_s < goal.min_duration_s else []),
        *(["count"] if queries < goal.min_queries else []),
        *(["early stopping"] if queries < needed else []),
    ]
    doubts = []
    if goal.bound_s is not None and queries > 0:
        late = responses.above(goal.bound_s)
        at_end = max(queries, round(query_rate * goal.min_duration_s), goal.min_queries)
        if late / queries * at_end > early_stopping.allowed_late(at_end, goal.percentile):
            doubts.append(f"latency: {100 * late / queries:.2g} % of queries over {goal.bound_s * MS_PER_S:g} ms")
    return Forecast(left_s, tuple(still_open), tuple(doubts))


def line(goal: Goal, completed: int, elapsed_s: float, responses: Durations) -> str:
    """E.g. `1200 of at least 24576 samples, 40.1/s, p99 13 ms of 15 ms, 30 s, 9:30 left; open: duration`."""
    told = forecast(goal, completed, elapsed_s, responses)
    parts = [f"{completed} of {'' if goal.exactly else 'at least '}{goal.samples} samples"]
    if elapsed_s > 0:
        parts.append(f"{completed / elapsed_s:.1f}/s")
    if responses.count > 0 and goal.scenario != "Offline" and goal.mode == "performance":
        bound = "" if goal.bound_s is None else f" of {goal.bound_s * MS_PER_S:g} ms"
        quantile_ms = responses.quantile_s(goal.percentile) * MS_PER_S
        parts.append(f"p{100 * goal.percentile:g} {quantile_ms:.3g} ms{bound}")
    parts.append(f"{elapsed_s:.0f} s")
    if told.left_s is not None:
        parts.append(f"{as_clock(told.left_s)} left")
    text = ", ".join(parts)
    if told.doubts:
        return f"{text}; INVALID expected: {'; '.join(told.doubts)}"
    if told.still_open:
        return f"{text}; open: {', '.join(told.still_open)}"
    if goal.mode == "performance" and told.left_s is not None:
        return f"{text}; VALID expected"
    return text


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
    doubts = []
    if total_s < goal.min_duration_s and completed > _SURE_AFTER * goal.samples:
        doubts.append(f"duration: {total_s:.0f} s of at least {goal.min_duration_s:g} s, target_qps is too low")
    still_open = [
        *(["duration"] if elapsed_s < goal.min_duration_s else []),
        *(["count"] if completed < goal.samples else []),
    ]
    return Forecast(left_s, () if doubts else tuple(still_open), tuple(doubts))


def _early_stopping_queries(goal: Goal, responses: Durations) -> int:
    """Queries that early stopping asks for, after what has been late so far."""
    if goal.scenario in STREAMS:
        return early_stopping.stream_queries(goal.percentile)
    if goal.bound_s is None:
        return 0
    late = responses.above(goal.bound_s)
    if late > (1 - goal.percentile) * responses.count:
        return responses.count + 1  # no number of queries like these would do
    return early_stopping.least_queries(late, goal.percentile)
