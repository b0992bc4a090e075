"""Rules about one scenario: its documents, its performance and accuracy runs.

Rules about timed runs hold for the runs of compliance tests too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ...accuracy import ACCURACY_FILE
from ...errors import BadInputError
from ...results import ACCURACY_LOG, DETAIL_LOG, METRICS, SUMMARY_LOG
from ...settings import read_user_conf
from .records import Log, Problems, Rule, ScenarioFolder, read_json

_RUN_FILES: Final = frozenset({SUMMARY_LOG, DETAIL_LOG})
_OPTIONAL_RUN_FILES: Final = frozenset({ACCURACY_LOG, "mlperf_log_trace.json", "results.json"})
_ACCURACY_FILES: Final = frozenset({SUMMARY_LOG, DETAIL_LOG, ACCURACY_LOG, ACCURACY_FILE})
_OPTIONAL_ACCURACY_FILES: Final = frozenset({"mlperf_log_trace.json", "results.json"})
_ACCURACY_LINE: Final = re.compile(r"accuracy=([0-9.]+)%, good=([0-9]+), total=([0-9]+)")
_HASH_LINE: Final = re.compile(r"hash=([0-9a-f]{64})")


def _measurements(folder: ScenarioFolder) -> Problems:
    values, problem = read_json(folder.measurements)
    if problem is not None:
        yield folder.measurements, problem
        return
    assert values is not None
    for name in folder.submission.rules.measurements.filled:
        if not values.get(name):
            yield folder.measurements, f"field {name} is missing or empty"


def _readme(folder: ScenarioFolder) -> Problems:
    yield from _missing_or_empty(folder.measurements.parent / "README.md")


def _user_conf(folder: ScenarioFolder) -> Problems:
    path = folder.measurements.parent / "user.conf"
    yield from (problems := list(_missing_or_empty(path)))
    if not problems:
        try:
            read_user_conf(path, folder.submission.rules.benchmark)
        except BadInputError as error:
            yield path, str(error).removeprefix(f"{path}:")


def _performance_files(folder: ScenarioFolder) -> Problems:
    yield from file_list(folder.results / "performance/run_1", _RUN_FILES, _OPTIONAL_RUN_FILES)
    runs = folder.results / "performance"
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if path.name not in ("run_1", "power", "ranging"):
            yield path, "performance holds run_1 and nothing else"


def _accuracy_files(folder: ScenarioFolder) -> Problems:
    yield from file_list(folder.results / "accuracy", _ACCURACY_FILES, _OPTIONAL_ACCURACY_FILES)


def _logs_are_whole(folder: ScenarioFolder) -> Problems:
    for log in (*folder.timed_logs, folder.accuracy):
        if log.problem is not None:
            yield log.path, log.problem
    for log in folder.timed_logs:
        if log.log is not None and "num_errors" not in log.log.values:
            yield log.path, "ends before LoadGen's last record: the test was cut off"


def _modes(folder: ScenarioFolder) -> Problems:
    for log in folder.timed_logs:
        yield from _expect(log, "effective_test_mode", "PerformanceOnly")
    yield from _expect(folder.accuracy, "effective_test_mode", "AccuracyOnly")


def _scenario_of_logs(folder: ScenarioFolder) -> Problems:
    rules = folder.submission.rules
    for log in (*folder.timed_logs, folder.accuracy):
        measured = log.value("effective_scenario")
        if measured is None or measured == folder.scenario:
            continue
        if folder.scenario not in rules.inferred.get(measured, ()):
            yield log.path, f"is a log of {measured}, which says nothing about {folder.scenario}"
        elif "edge" not in folder.system.system_type:
            yield log.path, f"results of {folder.scenario} may be inferred from {measured} on edge systems only"
        elif measured != folder.performance.value("effective_scenario"):
            yield log.path, "all logs of an inferred scenario must be of the scenario that was measured"


def _errors(folder: ScenarioFolder) -> Problems:
    for log in (*folder.timed_logs, folder.accuracy):
        for error in log.log.errors if log.log is not None else ():
            yield log.path, f"LoadGen logged an error: {error}"


def _validity(folder: ScenarioFolder) -> Problems:
    for log in folder.timed_logs:
        yield from _expect(log, "result_validity", "VALID")


def _constraints(folder: ScenarioFolder) -> Problems:
    for log in folder.timed_logs:
        for key in ("result_min_duration_met", "result_min_queries_met", "result_perf_constraints_met"):
            if log.value(key) is False:
                yield log.path, f"{key} is false"


def _early_stopping(folder: ScenarioFolder) -> Problems:
    for log in folder.timed_logs:
        if log.value("effective_scenario") != "Offline" and log.log is not None and not log.value("early_stopping_met"):
            text = " ".join(str(log.value("early_stopping_result")).split())
            yield log.path, f"early stopping is not met: {text}"


def _metrics(folder: ScenarioFolder) -> Problems:
    for log in folder.timed_logs:
        metric = METRICS.get(log.value("effective_scenario"))
        if metric is not None and not _positive(log.value(metric.key)):
            yield log.path, f"metric {metric.key} is missing or not above zero"
    inferred_stream = (
        folder.scenario == "MultiStream" and folder.performance.value("effective_scenario") != "MultiStream"
    )
    key = METRICS["MultiStream"].key
    if inferred_stream and folder.performance.log is not None and not _positive(folder.performance.value(key)):
        yield folder.performance.path, f"{key} is missing: too few queries to infer MultiStream"


def _seeds(folder: ScenarioFolder) -> Problems:
    rules = folder.submission.rules
    for log in folder.timed_logs:
        for name, expected in rules.seeds.items():
            found = log.value(f"effective_{name}")
            if log.log is not None and found != expected:
                yield (
                    log.path,
                    (f"{name} {found}, but {expected} belongs to {rules.name}: LoadGen of another round, run it again"),
                )


def _sample_counts(folder: ScenarioFolder) -> Problems:
    least = folder.submission.rules.limits.performance_sample_count
    for log in folder.timed_logs:
        yield from _at_least(log, "effective_performance_sample_count", least)


def _durations(folder: ScenarioFolder) -> Problems:
    least = folder.submission.rules.limits.min_duration_ms
    for log in folder.timed_logs:
        yield from _at_least(log, "effective_min_duration_ms", least)


def _offline_samples(folder: ScenarioFolder) -> Problems:
    least = folder.submission.rules.limits.offline_samples_per_query
    for log in folder.timed_logs:
        if log.value("effective_scenario") == "Offline":
            yield from _at_least(log, "effective_samples_per_query", least)


def _server_bound(folder: ScenarioFolder) -> Problems:
    most = folder.submission.rules.limits.server_target_latency_ns
    for log in folder.timed_logs:
        if log.value("effective_scenario") == "Server" and not _positive_up_to(
            log.value("effective_target_latency_ns"), most
        ):
            yield (
                log.path,
                f"latency bound {log.value('effective_target_latency_ns')} ns, at most {most} ns: run it again",
            )


def _accuracy_coverage(folder: ScenarioFolder) -> Problems:
    expected = folder.submission.rules.limits.accuracy_sample_count
    yield from _expect(folder.accuracy, "effective_accuracy_sample_count", expected)
    scored = _accuracy_line(folder)
    if scored is not None and int(scored[3]) != expected:
        yield folder.results / "accuracy" / ACCURACY_FILE, f"total={scored[3]}, but {expected} images must be answered"


def _accuracy_text(folder: ScenarioFolder) -> Problems:
    path = folder.results / "accuracy" / ACCURACY_FILE
    if not path.is_file():
        return
    scored = _accuracy_line(folder)
    if scored is None:
        yield path, "no line accuracy=..., good=..., total=..."
    elif int(scored[3]) == 0 or abs(100 * int(scored[2]) / int(scored[3]) - float(scored[1])) > 0.0006:  # 3 decimals
        yield path, f"accuracy={scored[1]}% is not good={scored[2]} of total={scored[3]}"


def _accuracy_target(folder: ScenarioFolder) -> Problems:
    target, scored = folder.submission.rules.limits.accuracy_percent, _accuracy_line(folder)
    if folder.submission.division == "closed" and scored is not None and float(scored[1]) < target:
        yield folder.results / "accuracy" / ACCURACY_FILE, f"accuracy {scored[1]} % is below the target {target} %"


def _hashes(folder: ScenarioFolder) -> Problems:
    for place in _accuracy_folders(folder):
        path, log = place / ACCURACY_FILE, place / ACCURACY_LOG
        if not path.is_file():
            yield path, "is missing"
            continue
        stated = [found[1] for line in _lines(path) if (found := _HASH_LINE.fullmatch(line))]
        if len(stated) != 1:
            yield path, f"{len(stated)} lines hash=<sha256>, expected one: truncate the log with its hash"
            continue
        for whole in filter(None, (_original(folder, log), log if log.is_file() and not _is_cut(log) else None)):
            if hashlib.sha256(whole.read_bytes()).hexdigest() != stated[0]:
                yield path, f"hash is not that of {whole}"


def _truncation(folder: ScenarioFolder) -> Problems:
    limit = folder.submission.rules.limits.accuracy_log_bytes
    for place in _accuracy_folders(folder):
        log = place / ACCURACY_LOG
        if not log.is_file():
            yield log, "is missing"
        elif log.stat().st_size > limit:
            yield log, f"{log.stat().st_size} bytes, at most {limit}: truncate it"
        elif (original := _original(folder, log)) is not None and _is_cut(log):
            start, end = log.read_bytes().split(_CUT, 1)
            content = original.read_bytes()
            if not (content.startswith(start) and content.endswith(end)):
                yield log, f"is not what {original} begins and ends with"


_CUT: Final = b"\n\n...\n\n"

RULES: Final[tuple[Rule[ScenarioFolder], ...]] = (
    Rule("measurements", _measurements),
    Rule("readme", _readme),
    Rule("user-conf", _user_conf),
    Rule("performance-files", _performance_files),
    Rule("accuracy-files", _accuracy_files),
    Rule("whole-logs", _logs_are_whole),
    Rule("test-mode", _modes),
    Rule("scenario-of-logs", _scenario_of_logs),
    Rule("loadgen-errors", _errors),
    Rule("validity", _validity),
    Rule("constraints", _constraints),
    Rule("early-stopping", _early_stopping),
    Rule("metric", _metrics),
    Rule("seeds", _seeds),
    Rule("performance-sample-count", _sample_counts),
    Rule("min-duration", _durations),
    Rule("offline-samples", _offline_samples),
    Rule("server-latency-bound", _server_bound),
    Rule("accuracy-coverage", _accuracy_coverage),
    Rule("accuracy-line", _accuracy_text),
    Rule("accuracy-target", _accuracy_target),
    Rule("accuracy-hash", _hashes),
    Rule("accuracy-log-size", _truncation),
)


def file_list(folder: Path, required: frozenset[str], optional: frozenset[str]) -> Problems:
    """What is missing in a folder and what should not be there."""
    if not folder.is_dir():
        yield folder, "is missing"
        return
    names = {path.name for path in folder.iterdir()}
    for name in sorted(required - names):
        yield folder / name, "is missing"
    for name in sorted(names - required - optional):
        yield folder / name, "does not belong there"


def _missing_or_empty(path: Path) -> Problems:
    if not path.is_file():
        yield path, "is missing"
    elif not path.read_text(encoding="utf-8", errors="replace").strip():
        yield path, "is empty"


def _expect(log: Log, key: str, expected: Any) -> Problems:
    if log.log is not None and log.value(key) != expected:
        yield log.path, f"{key} is {log.value(key)}, expected {expected}"


def _at_least(log: Log, key: str, least: int) -> Problems:
    found = log.value(key)
    if log.log is not None and not (isinstance(found, int | float) and found >= least):
        yield log.path, f"{key} is {found}, at least {least} are asked"


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _positive_up_to(value: Any, most: float) -> bool:
    return _positive(value) and value <= most


def _accuracy_line(folder: ScenarioFolder) -> re.Match[str] | None:
    path = folder.results / "accuracy" / ACCURACY_FILE
    if not path.is_file():
        return None
    return next((found for line in _lines(path) if (found := _ACCURACY_LINE.fullmatch(line))), None)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


def _accuracy_folders(folder: ScenarioFolder) -> Iterator[Path]:
    """Where a truncated accuracy log and its hash lie."""
    yield folder.results / "accuracy"
    if "TEST01" in folder.tests and (folder.compliance / "TEST01").is_dir():
        yield folder.compliance / "TEST01/accuracy"


def _is_cut(log: Path) -> bool:
    return _CUT in log.read_bytes()


def _original(folder: ScenarioFolder, log: Path) -> Path | None:
    """The untruncated log, if it is at hand."""
    if folder.submission.originals is None:
        return None
    path = folder.submission.originals / log.relative_to(folder.submission.root)
    return path if path.is_file() else None
