"""The rules of TEST01 and TEST04, applied to the logs of two runs. Called by `audit.py`; pure but for reading logs.

The texts are those that MLCommons' verification scripts print for the same logs, since submission checkers look for
"TEST PASS" in them. Beyond those scripts: an error that LoadGen logged, or a test run that had not the audit settings,
is a failure. Source of the rules: MLPerf Inference, compliance/TEST01 and compliance/TEST04.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ..accuracy import Accuracy, score_some
from ..config import ComplianceTest, Scenario
from ..errors import BadInputError
from ..responses import decode
from ..results import ACCURACY_LOG, DETAIL_LOG, METRICS, SUMMARY_LOG, DetailLog, read_detail
from ..settings import audit_path, read_audit_conf

PASS: Final = "TEST PASS"
FAIL: Final = "TEST FAIL"

_TOLERANCE: Final = 0.10
_SHORT_TOLERANCE: Final = 0.20
"""Of very short latencies the system's own disturbances are a larger part."""
_SHORT_LATENCY_NS: Final[Mapping[str, float]] = {"SingleStream": 200_000, "MultiStream": 1_600_000}
_SHORT_RATE_PER_S: Final[Mapping[str, float]] = {"SingleStream": 200_000, "MultiStream": 1_600_000}
"""TEST04 compares the same numbers with queries per second, so that nearly every stream gets the wider tolerance."""
_NS_PER_S: Final = 1e9

_SUMMARY_SCORES: Final[Mapping[str, tuple[str, bool]]] = {
    "SingleStream": (r".*Early stopping (?:90th|90\.0th|99\.9th) percentile estimate", True),
    "MultiStream": (r".*Early stopping (?:99th|99\.0th) percentile estimate", True),
    "Server": (r"Completed samples per second", False),
    "Offline": (r"Samples per second", False),
}
"""Scenario -> the line of the summary that holds its metric, and whether that is a latency in ns."""

_LARGEST_ACCURACY_CHANGE: Final = 0.01
"""TEST01, when answers differ: relative difference of the accuracies over the logged samples."""


@dataclass(frozen=True)
class Verification:
    """What one rule says; `text` is the file that goes into the submission."""

    passed: bool
    text: str


def verify_accuracy(accuracy_run: Path, test_run: Path) -> Verification:
    """TEST01: every answer logged in the test run equals the accuracy run's for the same image.

    Raises: BadInputError for a log that cannot be read.
    """
    reference, logged = read_accuracy_log(accuracy_run), read_accuracy_log(test_run)
    answers: dict[int, int | None] = {}
    duplicates = contradictions = matches = mismatches = missing = 0
    first_payload: dict[int, str] = {}
    for entry in reference:
        index = entry["qsl_idx"]
        if index in first_payload:
            duplicates += 1
            contradictions += first_payload[index] != entry["data"]
        else:
            first_payload[index] = entry["data"]
            answers[index] = _answer(entry)
    for entry in logged:
        index, answer = entry["qsl_idx"], _answer(entry)
        if index in answers:
            matches += 1
            mismatches += answers[index] != answer
        else:
            missing += 1
        answers[index] = answer
    passed = mismatches == 0 and matches > 0
    lines = (
        "Verifying accuracy. This might take a while...",
        "Reading accuracy mode results...",
        "Reading performance mode results...",
        f"num_acc_log_entries = {len(reference)}",
        f"num_acc_log_duplicate_keys = {duplicates}",
        f"num_acc_log_data_mismatch = {contradictions}",
        f"num_perf_log_entries = {len(logged)}",
        f"num_perf_log_qsl_idx_match = {matches}",
        f"num_perf_log_data_mismatch = {mismatches}",
        f"num_missing_qsl_idxs = {missing}",
        PASS if passed else FAIL,
        "",
    )
    return Verification(passed, "\n".join(lines) + "\n")


def accuracies_over_logged(accuracy_run: Path, test_run: Path, labels: Sequence[int]) -> tuple[Accuracy, Accuracy]:
    """TEST01, when answers differ: accuracy of both runs over the images that the test run logged.

    Raises: BadInputError for a log that cannot be read or does not fit the labels.
    """
    logged = read_accuracy_log(test_run)
    indices = {entry["qsl_idx"] for entry in logged}
    baseline = [entry for entry in read_accuracy_log(accuracy_run) if entry["qsl_idx"] in indices]
    try:
        return score_some(baseline, labels), score_some(logged, labels)
    except ValueError as error:
        raise BadInputError(f"{test_run / ACCURACY_LOG}: {error}") from error


def accuracies_agree(baseline: Accuracy, compliance: Accuracy) -> bool:
    """The rule for runs whose answers differ, as submission checkers apply it."""
    if baseline.good == 0 or compliance.good == 0:
        return False
    return abs(1 - baseline.percent / compliance.percent) <= _LARGEST_ACCURACY_CHANGE


def verify_performance(test: ComplianceTest, performance_run: Path, test_run: Path) -> Verification:
    """Compare the test run's metric with the performance run's. Raises: RunFailedError for a log that is torn."""
    reference, tested = read_detail(performance_run / DETAIL_LOG), read_detail(test_run / DETAIL_LOG)
    problem = next(_problems(test, reference, tested), None)
    if problem is not None:
        return Verification(False, f"Verifying performance.\n{FAIL}: {problem}\n")
    if test == "TEST01":
        scenario, old, new = reference.values["effective_scenario"], reference.metric, tested.metric
        allowed = tolerance(test, scenario, old)
        passed = old * (1 - allowed) <= new <= old * (1 + allowed)
        scores = (f"Reference score = {old}", f"Test score = {new}")
    else:
        scenario = reference.values["effective_scenario"]
        old_text, new_text = _summary_score(performance_run, scenario), _summary_score(test_run, scenario)
        passed = float(new_text) < float(old_text) * (1 + tolerance(test, scenario, float(old_text)))
        scores = (f"reference score = {old_text}", f"test score = {new_text}")
    verdict = PASS if passed else f"{FAIL}: Test score invalid"
    return Verification(passed, "\n".join(("Verifying performance.", *scores, verdict)) + "\n")


def tolerance(test: ComplianceTest, scenario: str, score: float) -> float:
    """By which share two runs may differ. score: as the test compares it, in ns or per second."""
    short = (_SHORT_LATENCY_NS if test == "TEST01" else _SHORT_RATE_PER_S).get(scenario, 0)
    return _SHORT_TOLERANCE if score <= short else _TOLERANCE


def are_alike(test: ComplianceTest, scenario: Scenario, metrics: Sequence[float]) -> bool:
    """Whether runs of a test differ by no more than it allows between two runs. metrics: in the scenario's own unit."""
    scores = [metric * METRICS[scenario].divisor for metric in metrics]
    _, is_latency = _SUMMARY_SCORES[scenario]
    if test == "TEST04" and is_latency:
        scores = [_NS_PER_S / score for score in scores]
    return max(scores) <= min(scores) * (1 + tolerance(test, scenario, min(scores)))


@lru_cache
def audit_effects(test: ComplianceTest) -> Mapping[str, int]:
    """What a detail log shows of a run that had the test's audit settings, and of no other; a truth counts as 1."""
    settings = read_audit_conf(audit_path(test))
    return {f"effective_{one.key}": int(one.value) for one in settings if one.key != "mode" and one.value != "0"}


def _problems(test: ComplianceTest, reference: DetailLog, tested: DetailLog) -> Iterator[str]:
    """Why two runs cannot be compared."""
    for log in (reference, tested):
        if log.values.get("result_validity") != "VALID":
            yield f"Invalid results in {log.path}"
        if log.errors:
            yield f"LoadGen logged an error in {log.path}: {log.errors[0]}"
    if reference.values["effective_scenario"] != tested.values["effective_scenario"]:
        yield "Test and reference scenarios do not match!"
    bound = "effective_target_latency_ns"
    if reference.values["effective_scenario"] == "Server" and reference.values[bound] != tested.values[bound]:
        yield "Server target latency mismatch"
    for key, value in audit_effects(test).items():
        if tested.values.get(key) != value:
            yield f"{key} is {tested.values.get(key)} in {tested.path}, {test} asks for {value}"
        if reference.values.get(key) == value:
            yield f"{key} is {value} in {reference.path}, which is a run of {test} itself"


def _summary_score(run: Path, scenario: str) -> str:
    """The metric as the summary prints it; a latency as 1e9 / latency. Raises: BadInputError if it is not there."""
    pattern, is_latency = _SUMMARY_SCORES[scenario]
    path = run / SUMMARY_LOG
    found = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(pattern, line):
            found = line.split(": ", 1)[1].strip()
    if found is None:
        raise BadInputError(f"{path} states no metric of {scenario}: the run ended early")
    return str(_NS_PER_S / float(found)) if is_latency else found


def read_accuracy_log(run: Path) -> list[dict[str, Any]]:
    """Entries of mlperf_log_accuracy.json. Raises: BadInputError if it is missing or cut off."""
    path = run / ACCURACY_LOG
    try:
        entries = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} is no complete accuracy log: {error}") from error
    if not isinstance(entries, list):
        raise BadInputError(f"{path} is no complete accuracy log: expected a JSON list")
    return entries


def _answer(entry: Mapping[str, Any]) -> int | None:
    """The class of an entry; None for what is no answer."""
    try:
        return decode(entry["data"])
    except ValueError:
        return None
