"""A run's folder -> what a report says of it. Verdict and numbers are LoadGen's, from its logs, the rest run.json's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .. import early_stopping
from ..config import STREAMS, Scenario
from ..errors import BadInputError, RunFailedError
from ..explain import advise
from ..results import DETAIL_LOG, RunResult, check_endings, read_detail, read_result
from ..run import FORMAT
from ..run_folder import RUN_FILE
from ..settings import MS_PER_S, SettingValues, latency_goal
from ..timings_file import Histogram, Timings, read_timings
from . import intervals
from .records import Distribution, Instance, Latency, Provenance, Quantity, Run, Scored, Setting, Status
from .sources import RunSource

NS_PER_MS: Final = 1_000_000
_STATUSES: Final[Mapping[str, Status]] = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "unfinished",
}


def read_run(number: int, source: RunSource) -> Run:
    """Raises: BadInputError if run.json or a log of a finished run is missing, damaged or of another version."""
    record, path = source.record, source.folder / RUN_FILE
    if record.get("format") != FORMAT:
        raise BadInputError(f"{path} has format {record.get('format')!r}, this version knows {FORMAT}: run it again")
    try:
        status = _STATUSES[record["status"]]
        measured = _Measured(source.folder, record) if status == "finished" else None
        return _run(number, source, status, measured)
    except RunFailedError as error:
        raise BadInputError(f"{error}; {path} says that the test finished: run it again") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} is damaged: {type(error).__name__}: {error}") from error


class _Measured:
    """What the files of a finished test hold. Raises: RunFailedError, BadInputError."""

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        try:
            self.result: RunResult = read_result(folder)
            self.values: Mapping[str, Any] = read_detail(folder / DETAIL_LOG).values
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadInputError(f"{folder / DETAIL_LOG} is damaged: {type(error).__name__}: {error}") from error
        check_endings(folder)
        self.effective: SettingValues = record["settings"]["effective"]
        self.timings: Timings | None = read_timings(folder)


def _run(number: int, source: RunSource, status: Status, measured: _Measured | None) -> Run:
    """Raises: BadInputError; ArithmeticError, AttributeError, LookupError, TypeError, ValueError for run.json."""
    record, config = source.record, source.record["config"]
    result = None if measured is None else measured.result
    why = _why(record, status, result)
    latency = times = None
    if measured is not None and measured.result.mode == "PerformanceOnly":
        latency, times = _latency(measured), _distribution(measured)
    deviations = tuple(map(str, record["not_submittable"]))
    accuracy = record.get("accuracy")
    return Run(
        number=number,
        folder=str(source.folder),
        scenario=str(config["scenario"]),
        mode=str(config.get("compliance_test") or config["mode"]),
        backend=str(config["backend"]),
        model=None if config["model"] is None else Path(config["model"]).name,
        precision=_text(record["backend"].get("precision")),
        status="failed" if status == "finished" and why is not None else status,
        why=why,
        started_utc=str(record["started_utc"]),
        ended_utc=_text(record.get("ended_utc")),
        verdict=None if result is None or result.valid is None else result.verdict,
        invalid_reasons=() if result is None else result.invalid_reasons,
        advice=() if result is None or measured is None else tuple(map(str, advise(result, measured.effective))),
        official=status == "finished" and why is None and not deviations,
        deviations=deviations,
        warnings=tuple(map(str, record.get("warnings", ()))),
        result=None if result is None else _result(result),
        compared=None if result is None or why is not None else _compared(result, latency, times),
        query_count=None if result is None else result.query_count,
        peak_qps=None if result is None else result.peak_qps,
        latency=latency,
        distribution=times,
        accuracy=None
        if accuracy is None
        else Scored(100.0 * accuracy["good"] / accuracy["total"], int(accuracy["good"]), int(accuracy["total"])),
        provenance=_provenance(record, measured),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _why(record: Mapping[str, Any], status: Status, result: RunResult | None) -> str | None:
    if status == "unfinished":
        return "run.json says that the test is running: so it is, or it was killed"
    if status != "finished":
        return str(record.get("error", "no reason was recorded"))
    if result is not None and result.errors:
        return f"LoadGen logged an error: {result.errors[0]}"
    return None


def _result(result: RunResult) -> Quantity | None:
    if not result.metric:
        return None  # LoadGen logs an estimate of 0 where queries were too few for one
    better = "lower" if result.scenario in STREAMS else "higher"
    return Quantity(result.metric_name, result.metric, result.metric_unit, better, None)  # type: ignore[arg-type]


def _compared(result: RunResult, latency: Latency | None, times: Distribution | None) -> Quantity | None:
    """Offline: throughput. Else the percentile of latency that counts: Server's throughput is what it was asked."""
    if result.scenario == "Offline":
        if not result.metric:
            return None
        found = intervals.of_throughput(result.metric, times)
        return Quantity(result.metric_name, result.metric, result.metric_unit, "higher", found)
    if latency is None or latency.percentile_ms is None:
        return None
    found = intervals.of_latency(latency, times)
    return Quantity(f"{100 * latency.percentile:g}th percentile latency", latency.percentile_ms, "ms", "lower", found)


def _latency(measured: _Measured) -> Latency | None:
    result = measured.result
    if result.scenario == "Offline":
        return None  # all samples are issued at once: a latency there is a place in the queue
    scenario: Scenario = result.scenario  # type: ignore[assignment]  # LoadGen's own name
    percentile, bound_s = latency_goal(scenario, measured.effective)
    server = result.scenario == "Server"
    allowed = None
    if server and result.query_count is not None:
        allowed = max(0, early_stopping.allowed_late(result.query_count, percentile))
    return Latency(
        percentile=percentile,
        percentile_ms=result.latency_ms.get(f"{100 * percentile:.2f}_percentile"),
        early_stopping_ms=None if server else result.metric or None,
        bound_ms=None if bound_s is None else bound_s * MS_PER_S,
        late_queries=result.late_query_count if server else None,
        allowed_late_queries=allowed,
        loadgen_ms=result.latency_ms,
        early_stopping=" ".join(str(measured.values.get("early_stopping_result", "")).split()),
    )


def _distribution(measured: _Measured) -> Distribution | None:
    if measured.timings is None:
        return None
    offline = measured.result.scenario == "Offline"
    histogram: Histogram | None = measured.timings.service if offline else measured.timings.response
    if histogram is None:
        return None
    edges_ms = tuple(float(edge) for edge in histogram.edges_ns / NS_PER_MS)
    return Distribution("batch" if offline else "query", edges_ms, tuple(map(int, histogram.counts)))


def _provenance(record: Mapping[str, Any], measured: _Measured | None) -> Provenance:
    settings = record["settings"]
    loadgen = None if measured is None else measured.values.get("loadgen_version")
    return Provenance(
        versions={str(name): str(version) for name, version in record["versions"].items()},
        loadgen=_text(loadgen),
        machine=dict(record["machine"]),
        engine=dict(record["backend"]),
        plan_sha256=_text(record["backend"].get("plan_sha256")),
        instances=tuple(
            Instance(tuple(map(int, one["cores"])), int(one["thread_count"]), int(one["stray_thread_count"]))
            for one in record["instances"]
        ),
        max_batch=int(record["max_batch"]),
        images=int(record["dataset"]["images"]),
        settings=tuple(
            Setting(str(name), official, settings["effective"][name], name in settings["estimated"])
            for name, official in settings["official"].items()
        ),
        user_conf=str(record["user_conf"]["text"]),
    )
