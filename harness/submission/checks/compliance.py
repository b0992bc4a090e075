"""Rules about the compliance tests of a scenario in the closed division."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ...accuracy import ACCURACY_FILE, Accuracy
from ...config import ComplianceTest
from ...errors import BadInputError
from ...results import ACCURACY_LOG, DETAIL_LOG, SUMMARY_LOG
from .. import verify
from ..audit import BASELINE_ACCURACY, COMPLIANCE_ACCURACY, VERIFY_ACCURACY, VERIFY_PERFORMANCE
from .records import Problems, Rule, ScenarioFolder
from .scenario import file_list

_RUN_FILES: Final = frozenset({SUMMARY_LOG, DETAIL_LOG})
_OPTIONAL_RUN_FILES: Final = frozenset({ACCURACY_LOG, "mlperf_log_trace.json"})
_EXCUSES: Final = frozenset({BASELINE_ACCURACY, COMPLIANCE_ACCURACY})
_SCORE: Final = re.compile(r"accuracy=([0-9.]+)%, good=([0-9]+), total=([0-9]+)")


def _files(folder: ScenarioFolder) -> Problems:
    for test in folder.tests:
        place = folder.compliance / test
        if not place.is_dir():
            yield place, f"{test} is missing: run `loadgen-numba audit {test}`"
            continue
        accuracy = {VERIFY_ACCURACY, "accuracy"} if test == "TEST01" else set()
        yield from file_list(place, frozenset({VERIFY_PERFORMANCE, "performance", *accuracy}), frozenset())
        yield from file_list(place / "performance/run_1", _RUN_FILES, _OPTIONAL_RUN_FILES)
        if test == "TEST01":
            yield from file_list(place / "accuracy", frozenset({ACCURACY_LOG, ACCURACY_FILE}), _EXCUSES)


def _performance_passed(folder: ScenarioFolder) -> Problems:
    for test in folder.tests:
        path = folder.compliance / test / VERIFY_PERFORMANCE
        if path.is_file() and not _says_pass(path):
            yield path, f"does not say {verify.PASS}: run {test} again"


def _accuracy_passed(folder: ScenarioFolder) -> Problems:
    place = folder.compliance / "TEST01"
    path = place / VERIFY_ACCURACY
    if "TEST01" not in folder.tests or not path.is_file() or _says_pass(path):
        return
    scores = [_score(place / "accuracy" / name) for name in (BASELINE_ACCURACY, COMPLIANCE_ACCURACY)]
    if scores[0] is None or scores[1] is None:
        yield path, f"does not say {verify.PASS}, and {BASELINE_ACCURACY} and {COMPLIANCE_ACCURACY} do not excuse it"
    elif not verify.accuracies_agree(scores[0], scores[1]):
        yield path, f"answers differ, and the accuracies too: {scores[0].line} and {scores[1].line}"


def _settings(folder: ScenarioFolder) -> Problems:
    """And that nothing else was run with a test's settings."""
    for test, log in folder.tests.items():
        for key, value in verify.audit_effects(test).items():
            if log.log is not None and log.value(key) != value:
                yield log.path, f"{key} is {log.value(key)}, {test} asks for {value}: not a run of {test}"
            if folder.performance.value(key) == value:
                yield folder.performance.path, f"{key} is {value}: a run of {test}, not a performance run"


def _recomputed(folder: ScenarioFolder) -> Problems:
    """The verdict that the tree's own logs give, against the one that is written down."""
    for test, log in folder.tests.items():
        path = folder.compliance / test / VERIFY_PERFORMANCE
        if log.log is None or folder.performance.log is None or not path.is_file() or not _says_pass(path):
            continue
        problem = _contradiction(test, folder.performance.path.parent, log.path.parent)
        if problem is not None:
            yield path, f"says {verify.PASS}, but its logs say: {problem}"


def _contradiction(test: ComplianceTest, performance_run: Path, test_run: Path) -> str | None:
    try:
        verified = verify.verify_performance(test, performance_run, test_run)
    except (BadInputError, OSError, KeyError) as error:
        return str(error)
    return None if verified.passed else verified.text.splitlines()[-1]


def _same_load(folder: ScenarioFolder) -> Problems:
    """The compliance run has the performance run's target, or it compares two different things."""
    for log in folder.tests.values():
        for key in ("effective_target_latency_ns", "effective_samples_per_query"):
            before, after = folder.performance.value(key), log.value(key)
            if folder.scenario != "Offline" and log.log is not None and before is not None and before != after:
                yield log.path, f"{key} is {after}, in the performance run {before}: use the same user.conf"


RULES: Final[tuple[Rule[ScenarioFolder], ...]] = (
    Rule("compliance-files", _files),
    Rule("compliance-performance", _performance_passed),
    Rule("compliance-accuracy", _accuracy_passed),
    Rule("compliance-settings", _settings),
    Rule("compliance-recomputed", _recomputed),
    Rule("compliance-same-load", _same_load),
)


def _says_pass(path: Path) -> bool:
    return verify.PASS in (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())


def _score(path: Path) -> Accuracy | None:
    if not path.is_file():
        return None
    found = _SCORE.search(path.read_text(encoding="utf-8", errors="replace"))
    return None if found is None else Accuracy(int(found[2]), int(found[3]))
