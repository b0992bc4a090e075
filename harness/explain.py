"""Why a test is not VALID, and what to change: for every verdict a key of user.conf and a value to try.

LoadGen's own advice names neither. Values follow from what the test measured; pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import early_stopping
from .config import STREAMS, Scenario
from .history import Standstill
from .results import RunResult
from .settings import MS_PER_S, OFFLINE_SLACK, SettingValues, latency_goal

_STREAM_ROOM: Final = 0.8
_OFFLINE_ROOM: Final = 1.05
_LOWER_RATE: Final = 0.95
_MUCH_LOWER_RATE: Final = 0.8
_FAR_OVER: Final = 1.5
"""A percentile of latency so far over the bound is no matter of five per cent."""
_LATE_PER_MISSED: Final = 4.0
"""Queries that come in a standstill are late, and so are those behind them until the queue is empty: at a load of three
quarters three for each."""
RAN_OUT: Final = "Ran out of generated queries"
"""Of the error that LoadGen logs when a stream is more than twice as fast as its hint says."""

_FLAGS: Final = {
    ("SingleStream", "target_latency"): "--max-latency",
    ("MultiStream", "target_latency"): "--max-latency",
    ("Offline", "target_qps"): "--qps",
    ("Server", "target_qps"): "--qps",
    ("*", "min_duration"): "--time",
}
"""Scenario and key -> the flag of `run` that does the same, in seconds where the key is in milliseconds."""


@dataclass(frozen=True)
class Advice:
    """Set `key` of a scenario to `value` in user.conf; why: in words."""

    scenario: Scenario
    key: str
    value: float
    why: str

    def __str__(self) -> str:
        """E.g. `*.Server.target_qps = 95 (or --qps 95)`."""
        flag = _FLAGS.get((self.scenario, self.key)) or _FLAGS.get(("*", self.key))
        shown = self.value / MS_PER_S if self.key in ("target_latency", "min_duration") else self.value
        other = f" (or {flag} {shown:.6g})" if flag else ""
        return f"{self.why}: try *.{self.scenario}.{self.key} = {self.value:.6g}{other}"


def advise(result: RunResult, effective: SettingValues, standstill: Standstill | None = None) -> tuple[Advice, ...]:
    """What to change before the next try; empty if nothing is wrong with the load. standstill: the test's longest."""
    scenario: Scenario = result.scenario  # type: ignore[assignment]  # LoadGen's own name
    if any(RAN_OUT in error for error in result.errors):
        mean_ms = result.latency_ms.get("mean", 0.0)
        why = "queries take less than half of the expected latency, so LoadGen had prepared too few"
        return (Advice(scenario, "target_latency", _STREAM_ROOM * mean_ms, why),) if mean_ms > 0 else ()
    if result.errors or result.valid is not False:
        return ()
    if scenario == "Offline":
        return _for_offline(result)
    if scenario in STREAMS:
        return _for_stream(scenario, result, effective)
    return _for_server(result, effective, standstill)


def _for_offline(result: RunResult) -> tuple[Advice, ...]:
    if not result.metric:
        return ()
    why = f"{result.metric:.4g} samples/s ended the test before its least duration"
    return (Advice("Offline", "target_qps", result.metric * _OFFLINE_ROOM / OFFLINE_SLACK, why),)


def _for_stream(scenario: Scenario, result: RunResult, effective: SettingValues) -> tuple[Advice, ...]:
    percentile, _ = latency_goal(scenario, effective)
    needed = max(early_stopping.stream_queries(percentile), int(effective["min_query_count"]))
    if result.query_count is not None and result.query_count < needed:
        why = f"{result.query_count} queries, and the {100 * percentile:g}th percentile needs {needed}"
        return (Advice(scenario, "min_query_count", needed, why),)
    return ()


def _for_server(result: RunResult, effective: SettingValues, standstill: Standstill | None) -> tuple[Advice, ...]:
    rate = float(effective["server_target_qps"])
    percentile, bound_s = latency_goal("Server", effective)
    assert bound_s is not None
    late, queries = result.late_query_count, result.query_count
    if standstill is not None and late is not None and queries is not None:
        allowed = early_stopping.allowed_late(queries, percentile)
        if 0 <= allowed < late <= allowed + _LATE_PER_MISSED * rate * standstill.seconds:
            return (Advice("Server", "target_qps", rate, f"{standstill}, which made the late queries: the same again"),)
    measured_ms, bound_ms = result.latency_ms.get(f"{100 * percentile:.2f}_percentile"), bound_s * MS_PER_S
    if measured_ms is not None and measured_ms > bound_ms:
        factor = _MUCH_LOWER_RATE if measured_ms > _FAR_OVER * bound_ms else _LOWER_RATE
        why = f"the {100 * percentile:g}th percentile of latency is {measured_ms:.4g} ms of at most {bound_ms:g} ms"
        return (Advice("Server", "target_qps", factor * rate, why),)
    if late is None or queries is None:
        return ()
    needed = early_stopping.least_queries(late, percentile)
    if late > 0 and needed > queries * _FAR_OVER:
        allowed = max(0, early_stopping.allowed_late(queries, percentile))
        why = f"{late} of {queries} queries are late, and early stopping allows {allowed}"
        return (Advice("Server", "target_qps", _LOWER_RATE * rate, why),)
    if needed > queries:
        why = f"with {late} late queries early stopping needs {needed} queries, there were {queries}"
        return (Advice("Server", "min_duration", MS_PER_S * _OFFLINE_ROOM * needed / rate, why),)
    return ()
