"""What LoadGen says about a finished test, read from its detail log and from nothing else.

Only `mlperf_log_detail.txt` is parsed: each line is `:::MLLOG ` and a JSON object; the first of repeated keys counts,
as in the official checker. Of the other logs only the end is looked at: LoadGen does not notice when it cannot write.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .config import Scenario
from .errors import RunFailedError

DETAIL_LOG: Final = "mlperf_log_detail.txt"
SUMMARY_LOG: Final = "mlperf_log_summary.txt"
ACCURACY_LOG: Final = "mlperf_log_accuracy.json"
_MARKER: Final = ":::MLLOG "
_LAST_KEYS: Final[Mapping[str, str]] = {"AccuracyOnly": "power_end"}
_LAST_KEY: Final = "num_errors"
"""What LoadGen writes last, by mode, and in all other modes; a log without it was cut off."""
_ENDINGS: Final[Mapping[str, bytes]] = {
    SUMMARY_LOG: rb"(No errors encountered during test\.|(1 ERROR|\d+ ERRORS) encountered\. See detailed log\.)\s*$",
    ACCURACY_LOG: rb"\]\s*$",
}
_ENDING_BYTES: Final = 100
"""More than any ending is long."""
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True)
class MetricKey:
    """Where LoadGen logs a scenario's metric; `divisor` turns the logged number into `unit`."""

    key: str
    name: str
    unit: str
    divisor: int = 1


METRICS: Final[Mapping[Scenario, MetricKey]] = {
    "SingleStream": MetricKey("early_stopping_latency_ss", "{percentile:g}th percentile latency", "ms", _NS_PER_MS),
    "MultiStream": MetricKey("early_stopping_latency_ms", "{percentile:g}th percentile latency", "ms", _NS_PER_MS),
    "Offline": MetricKey("result_samples_per_second", "throughput", "samples/s"),
    "Server": MetricKey("result_completed_samples_per_sec", "throughput", "queries/s"),
}
_PEAK: Final = "FindPeakPerformance: Found peak performance field: "


@dataclass(frozen=True)
class RunResult:
    """A test as LoadGen reports it.

    mode: LoadGen's own word, which an audit file may have changed. metric: None in accuracy mode.
    valid: None in accuracy mode, where LoadGen gives no verdict. errors: what LoadGen logged as errors; a run with any
    has failed. peak_qps: the greatest rate whose trial met the latency bound, if LoadGen searched and found one.
    """

    scenario: str
    mode: str
    valid: bool | None
    invalid_reasons: tuple[str, ...]
    errors: tuple[str, ...]
    metric: float | None
    metric_name: str
    metric_unit: str
    query_count: int | None
    latency_ms: Mapping[str, float]
    """Median and tail latencies by LoadGen's name of the percentile."""
    accuracy_sample_count: int
    performance_sample_count: int
    peak_qps: float | None = None
    late_query_count: int | None = None
    """Server: queries over the latency bound."""

    @property
    def verdict(self) -> str:
        """VALID, INVALID, or a dash in accuracy mode."""
        return "-" if self.valid is None else "VALID" if self.valid else "INVALID"


@dataclass(frozen=True)
class DetailLog:
    """A detail log: the first value of each key, what was logged as an error, and all records as (key, value)."""

    path: Path
    values: Mapping[str, Any]
    errors: tuple[str, ...]
    records: tuple[tuple[str, Any], ...]

    @property
    def metric(self) -> float:
        """The scenario's metric as logged, in nanoseconds or per second. Raises: KeyError if there is none."""
        return float(self.values[METRICS[self.values["effective_scenario"]].key])


def read_detail(path: Path) -> DetailLog:
    """Parse a detail log. Raises: RunFailedError if it is missing or torn."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    records: list[tuple[str, Any]] = []
    for entry in _entries(path):
        key, value = entry["key"], entry["value"]
        records.append((key, value))
        values.setdefault(key, value)
        if entry["metadata"].get("is_error"):
            errors.append(f"{key}: {value}")
    return DetailLog(path, values, tuple(errors), tuple(records))


def read_result(folder: Path) -> RunResult:
    """Parse the detail log of a test. Raises: RunFailedError if it is missing, torn or cut off."""
    path = folder / DETAIL_LOG
    log = read_detail(path)
    values = log.values
    reasons: list[str] = []
    peak_qps: float | None = None
    for key, value in log.records:
        if key == "generic_message" and str(value).startswith(_PEAK):
            peak_qps = float(value.removeprefix(_PEAK))
        if key == "result_invalid_reason":
            reasons.append(" ".join(str(value).split()))
    last_key = _LAST_KEYS.get(values.get("effective_test_mode", ""), _LAST_KEY)
    if last_key not in values:
        raise RunFailedError(
            f"{path} ends before LoadGen's last record ({last_key}): the test was cut off or the disk is full"
        )
    if values.get("early_stopping_met") is False:
        reasons.append(" ".join(str(values.get("early_stopping_result", "early stopping is not met")).split()))
    scenario: Scenario = values["effective_scenario"]
    metric = METRICS[scenario]
    validity = values.get("result_validity")
    measured = values.get(metric.key) if validity is not None else None
    return RunResult(
        scenario=scenario,
        mode=values["effective_test_mode"],
        valid=None if validity is None else validity == "VALID",
        invalid_reasons=tuple(filter(None, reasons)) if validity == "INVALID" else (),
        errors=log.errors,
        metric=None if measured is None else measured / metric.divisor,
        metric_name=metric.name.format(percentile=100 * values["effective_target_latency_percentile"]),
        metric_unit=metric.unit,
        query_count=values.get("result_query_count"),
        latency_ms=_latencies(values),
        accuracy_sample_count=values["effective_accuracy_sample_count"],
        performance_sample_count=values["effective_performance_sample_count"],
        peak_qps=peak_qps,
        late_query_count=values.get("result_overlatency_query_count"),
    )


def check_endings(folder: Path) -> None:
    """Raises: RunFailedError if a log that `read_result` does not read is missing or cut off."""
    for name, ending in _ENDINGS.items():
        path = folder / name
        if not path.is_file():
            raise RunFailedError(f"{path} is missing: LoadGen wrote no log")
        with path.open("rb") as file:
            file.seek(-min(_ENDING_BYTES, path.stat().st_size), os.SEEK_END)
            if not re.search(ending, file.read()):
                raise RunFailedError(f"{path} was cut off: the test ended early or the disk is full")


def _latencies(values: Mapping[str, Any]) -> dict[str, float]:
    suffix = "_latency_ns"
    return {
        key.removeprefix("result_").removesuffix(suffix): value / _NS_PER_MS
        for key, value in values.items()
        if key.startswith("result_") and key.endswith(suffix)
    }


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise RunFailedError(f"{path} is missing: LoadGen wrote no log")
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.startswith(_MARKER):
            raise RunFailedError(f"{path}:{number}: not a LoadGen record: {line[:60]!r}")
        try:
            entry = json.loads(line.removeprefix(_MARKER))
        except json.JSONDecodeError as error:
            raise RunFailedError(f"{path}:{number}: torn record ({error.msg})") from error
        if not (
            isinstance(entry, dict) and {"key", "value"} <= entry.keys() and isinstance(entry.get("metadata"), dict)
        ):
            raise RunFailedError(f"{path}:{number}: not a LoadGen record: {line[:60]!r}")
        yield entry
