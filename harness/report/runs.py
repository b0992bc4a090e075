"""A run's folder -> what a report says of it. Verdict and numbers are LoadGen's, from its logs, the rest run.json's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from .. import early_stopping
from ..config import SCENARIOS, STREAMS, TUNING_NAME, Scenario
from ..errors import BadInputError, RunFailedError
from ..explain import advise
from ..history import Standstill
from ..results import DETAIL_LOG, RunResult, check_endings, read_detail, read_result
from ..run import FORMAT
from ..run_folder import RUN_FILE
from ..settings import MS_PER_S, SettingValues, latency_goal
from ..timings_file import Histogram, Timings, read_timings
from . import intervals
from .parsing import mapping, not_negative, parsing, positive, text_or_none
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
    record = _parse_record(source)
    log = _read_log(source.folder, record) if record.status == "finished" else None
    result = None if log is None else log.result
    why = _why(record, result)
    latency = times = None
    if log is not None and log.result.mode == "PerformanceOnly":
        times = _distribution(log)
        latency = _latency(record, log, times)
    return Run(
        number=number,
        folder=str(source.folder),
        scenario=record.scenario,
        mode=record.mode,
        backend=record.backend,
        model=record.model,
        precision=record.precision,
        status="failed" if record.status == "finished" and why is not None else record.status,
        why=why,
        started_utc=record.started_utc,
        ended_utc=record.ended_utc,
        verdict=None if result is None or result.valid is None else result.verdict,
        invalid_reasons=() if result is None else result.invalid_reasons,
        advice=() if result is None else tuple(map(str, advise(result, record.effective, record.standstill))),
        official=record.status == "finished" and why is None and not record.deviations,
        deviations=record.deviations,
        warnings=record.warnings,
        result=None if result is None else _result(result),
        compared=None if result is None or why is not None else _compared(result, latency, times),
        query_count=None if result is None else result.query_count,
        peak_qps=None if result is None else result.peak_qps,
        latency=latency,
        distribution=times,
        accuracy=record.accuracy,
        provenance=record.provenance if log is None else replace(record.provenance, loadgen=log.loadgen),
    )


@dataclass(frozen=True)
class _Record:
    """What a report takes from run.json, checked. error: why it did not finish, if that was recorded."""

    status: Status
    scenario: Scenario
    mode: str
    backend: str
    model: str | None
    precision: str | None
    started_utc: str
    ended_utc: str | None
    error: str | None
    deviations: tuple[str, ...]
    warnings: tuple[str, ...]
    effective: SettingValues
    standstill: Standstill | None
    accuracy: Scored | None
    provenance: Provenance


def _parse_record(source: RunSource) -> _Record:
    """Raises: BadInputError."""
    record, path = source.record, source.folder / RUN_FILE
    if record.get("format") != FORMAT:
        raise BadInputError(f"{path} has format {record.get('format')!r}, this version knows {FORMAT}: run it again")
    with parsing(path):
        config, backend = mapping(record["config"], "config"), mapping(record["backend"], "backend")
        scenario, mode = config["scenario"], config.get("compliance_test") or config["mode"]
        if scenario not in SCENARIOS:
            raise ValueError(f"{scenario!r} is no scenario")
        return _Record(
            status=_STATUSES[record["status"]],
            scenario=scenario,
            mode="tuning" if config["name"] == TUNING_NAME else str(mode),
            backend=str(config["backend"]),
            model=None if config["model"] is None else Path(config["model"]).name,
            precision=text_or_none(backend.get("precision")),
            started_utc=str(record["started_utc"]),
            ended_utc=text_or_none(record.get("ended_utc")),
            error=text_or_none(record.get("error")),
            deviations=tuple(map(str, _deviations(record))),
            warnings=tuple(map(str, record.get("warnings", ()))),
            effective=_parse_settings(record["settings"]["effective"], scenario),
            standstill=_parse_standstill(record.get("standstill")),
            accuracy=_parse_accuracy(record.get("accuracy")),
            provenance=_parse_provenance(record),
        )


def _deviations(record: Mapping[str, Any]) -> Any:
    """A run that ended before its test began has none."""
    return record["not_submittable"] if record["status"] == "finished" else record.get("not_submittable", ())


def _parse_settings(effective: Any, scenario: Scenario) -> SettingValues:
    """With those that a verdict's advice is made of."""
    mapping(effective, "settings.effective")
    not_negative(effective["min_query_count"], "min_query_count")
    if scenario != "Offline":
        percentile, bound_s = latency_goal(scenario, effective)
        if not 0 < percentile < 1:
            raise ValueError(f"the percentile of {scenario} is {percentile}, which is not between 0 and 1")
        if bound_s is not None:
            positive(bound_s, "server_target_latency_ns")
            positive(effective["server_target_qps"], "server_target_qps")
    return effective  # type: ignore[no-any-return]


def _parse_standstill(stood: Any) -> Standstill | None:
    if stood is None:
        return None
    return Standstill(not_negative(stood["begin_s"], "begin_s"), positive(stood["seconds"], "seconds"))


def _parse_accuracy(accuracy: Any) -> Scored | None:
    if accuracy is None:
        return None
    good, total = not_negative(accuracy["good"], "good"), positive(accuracy["total"], "total")
    return Scored(100.0 * good / total, int(good), int(total))


def _parse_provenance(record: Mapping[str, Any]) -> Provenance:
    settings, engine = mapping(record["settings"], "settings"), mapping(record["backend"], "backend")
    return Provenance(
        versions={str(name): str(version) for name, version in mapping(record["versions"], "versions").items()},
        loadgen=None,
        machine=mapping(record["machine"], "machine"),
        engine=engine,
        plan_sha256=text_or_none(engine.get("plan_sha256")),
        instances=tuple(
            Instance(tuple(map(int, one["cores"])), int(one["thread_count"]), int(one["stray_thread_count"]))
            for one in record["instances"]
        ),
        max_batch=int(record["max_batch"]),
        images=int(record["dataset"]["images"]),
        settings=tuple(
            Setting(str(name), official, settings["effective"][name], name in settings["estimated"])
            for name, official in mapping(settings["official"], "settings.official").items()
        ),
        user_conf=str(record["user_conf"]["text"]),
    )


@dataclass(frozen=True)
class _Log:
    """What the other files of a finished test hold. early_stopping: LoadGen's words."""

    result: RunResult
    early_stopping: str
    loadgen: str | None
    timings: Timings | None


def _read_log(folder: Path, record: _Record) -> _Log:
    """Raises: BadInputError."""
    path = folder / DETAIL_LOG
    try:
        with parsing(path):
            result, values = read_result(folder), read_detail(path).values
            if result.scenario != record.scenario:
                raise ValueError(f"it is of {result.scenario}, and {RUN_FILE} of {record.scenario}")
            for name, value in {**result.latency_ms, "metric": result.metric, "peak": result.peak_qps}.items():
                not_negative(value or 0, name)
            if result.query_count is not None:
                positive(result.query_count, "result_query_count")
        check_endings(folder)
    except RunFailedError as error:
        raise BadInputError(f"{error}; {folder / RUN_FILE} says that the test finished: run it again") from error
    early_stopping = " ".join(str(values.get("early_stopping_result", "")).split())
    return _Log(result, early_stopping, text_or_none(values.get("loadgen_version")), read_timings(folder))


def _why(record: _Record, result: RunResult | None) -> str | None:
    if record.status == "unfinished":
        return "run.json says that the test is running: so it is, or it was killed"
    if record.status != "finished":
        return record.error or "no reason was recorded"
    if result is not None and result.errors:
        return f"LoadGen logged an error: {result.errors[0]}"
    return None


def _result(result: RunResult) -> Quantity | None:
    if not result.metric:
        return None  # LoadGen logs an estimate of 0 where queries were too few for one
    better = "lower" if result.scenario in STREAMS else "higher"
    return Quantity(result.metric_name, result.metric, result.metric_unit, better, None)  # type: ignore[arg-type]


def _compared(result: RunResult, latency: Latency | None, times: Distribution | None) -> Quantity | None:
    """Streams: the percentile of latency that counts. Offline, Server: throughput.

    Server's is about the rate that it was asked for, if it is VALID; how sure it is only repeats can tell.
    """
    if result.scenario not in STREAMS:
        if not result.metric:
            return None
        found = intervals.of_throughput(result.metric, times) if result.scenario == "Offline" else None
        return Quantity(result.metric_name, result.metric, result.metric_unit, "higher", found)
    if latency is None or not latency.percentile_ms:
        return None
    name = f"{100 * latency.percentile:g}th percentile latency"
    return Quantity(name, latency.percentile_ms, "ms", "lower", latency.interval)


def _latency(record: _Record, log: _Log, times: Distribution | None) -> Latency | None:
    result = log.result
    if record.scenario == "Offline":
        return None  # all samples are issued at once: a latency there is a place in the queue
    percentile, bound_s = latency_goal(record.scenario, record.effective)
    server = record.scenario == "Server"
    allowed = None
    if server and result.query_count is not None:
        allowed = max(0, early_stopping.allowed_late(result.query_count, percentile))
    percentile_ms = result.latency_ms.get(f"{100 * percentile:.2f}_percentile")
    return Latency(
        percentile=percentile,
        percentile_ms=percentile_ms,
        interval=intervals.of_latency(percentile, percentile_ms, times),
        early_stopping_ms=None if server else result.metric or None,
        bound_ms=None if bound_s is None else bound_s * MS_PER_S,
        late_queries=result.late_query_count if server else None,
        allowed_late_queries=allowed,
        loadgen_ms=result.latency_ms,
        early_stopping=log.early_stopping,
    )


def _distribution(log: _Log) -> Distribution | None:
    if log.timings is None:
        return None
    offline = log.result.scenario == "Offline"
    histogram: Histogram | None = log.timings.service if offline else log.timings.response
    if histogram is None:
        return None
    edges_ms = tuple(float(edge) for edge in histogram.edges_ns / NS_PER_MS)
    return Distribution("batch" if offline else "query", edges_ms, tuple(map(int, histogram.counts)))
