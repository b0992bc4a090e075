"""Compliance tests TEST01 and TEST04 of a finished performance run: run with its own settings, then verified.

The test's folder lies beside the performance run's. LoadGen gets the audit settings by an explicit path, so that no
audit.config is ever left behind for another run to obey.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..accuracy import labels_of
from ..config import ComplianceTest, RunConfig
from ..errors import BadInputError
from ..progress import Progress
from ..results import DETAIL_LOG, read_detail
from ..run import RunOutcome, config_from_record, run
from ..run_folder import read_run_file, write_atomically
from . import verify
from .verify import Verification

VERIFY_ACCURACY: Final = "verify_accuracy.txt"
VERIFY_PERFORMANCE: Final = "verify_performance.txt"
BASELINE_ACCURACY: Final = "baseline_accuracy.txt"
COMPLIANCE_ACCURACY: Final = "compliance_accuracy.txt"


@dataclass(frozen=True)
class AuditOutcome:
    """A compliance test that was run and verified.

    accuracy: TEST01 only. excused: its answers differ, but the accuracies agree as the rules allow.
    run: None if an earlier run was verified again.
    """

    test: ComplianceTest
    folder: Path
    performance: Verification
    accuracy: Verification | None
    excused: bool
    run: RunOutcome | None

    @property
    def passed(self) -> bool:
        """Whether the test is passed as a whole."""
        return self.performance.passed and (self.accuracy is None or self.accuracy.passed or self.excused)


def audit(test: ComplianceTest, scenario_folder: Path, progress: Progress) -> AuditOutcome:
    """Run a test with the settings of the performance run in `scenario_folder`, then verify it.

    Raises: BadInputError if that folder holds no finished VALID performance run (TEST01: and accuracy run) or their
    user.conf has changed; else as `run.run`.
    """
    config = _config_of(test, scenario_folder)
    outcome = run(config, progress)
    return _verify(test, scenario_folder, outcome)


def verify_again(test: ComplianceTest, scenario_folder: Path) -> AuditOutcome:
    """Verify the finished run of a test once more, without running anything. Raises: BadInputError."""
    _finished(scenario_folder / test)
    return _verify(test, scenario_folder, None)


def is_current(test: ComplianceTest, scenario_folder: Path) -> bool:
    """Whether a test that was verified was so beside the performance run that there is now.

    Raises: RunFailedError for a log that is torn.
    """
    written = scenario_folder / test / VERIFY_PERFORMANCE
    verified = verify.verify_performance(test, scenario_folder / "performance", scenario_folder / test)
    return written.is_file() and written.read_text(encoding="utf-8") == verified.text


def _config_of(test: ComplianceTest, scenario_folder: Path) -> RunConfig:
    scenario_folder = scenario_folder.absolute()
    performance = scenario_folder / "performance"
    record = _finished(performance)
    if record["result"]["valid"] is not True:
        raise BadInputError(f"{performance}: LoadGen's verdict is not VALID; compliance tests compare valid runs only")
    if test == "TEST01":
        _finished(scenario_folder / "accuracy")
    config = config_from_record(record, performance)
    if config.scenario != scenario_folder.name:
        raise BadInputError(f"{scenario_folder}: the folder of a scenario is named {config.scenario} like its runs")
    user_conf = Path(record["user_conf"]["path"])
    if not user_conf.is_file() or user_conf.read_text(encoding="utf-8") != record["user_conf"]["text"]:
        raise BadInputError(
            f"{user_conf} is not what it was when {performance} was run: restore it, its text is in run.json"
        )
    return replace(
        config,
        output=scenario_folder.parent.parent,
        name=scenario_folder.parent.name,
        compliance_test=test,
        user_conf=user_conf,
    )


def _verify(test: ComplianceTest, scenario_folder: Path, outcome: RunOutcome | None) -> AuditOutcome:
    performance_run, test_run = scenario_folder / "performance", scenario_folder / test
    performance = verify.verify_performance(test, performance_run, test_run)
    write_atomically(test_run / VERIFY_PERFORMANCE, performance.text)
    accuracy, excused = None, False
    if test == "TEST01":
        accuracy = verify.verify_accuracy(scenario_folder / "accuracy", test_run)
        write_atomically(test_run / VERIFY_ACCURACY, accuracy.text)
        for name in (BASELINE_ACCURACY, COMPLIANCE_ACCURACY):
            (test_run / name).unlink(missing_ok=True)
        if not accuracy.passed:
            excused = _compare_accuracies(scenario_folder / "accuracy", test_run)
    return AuditOutcome(test, test_run, performance, accuracy, excused, outcome)


def _compare_accuracies(accuracy_run: Path, test_run: Path) -> bool:
    """Answers differ: write both accuracies over the logged images, and say whether they agree."""
    dataset_path = Path(read_run_file(accuracy_run)["config"]["dataset_path"])
    sample_count = read_detail(accuracy_run / DETAIL_LOG).values["effective_accuracy_sample_count"]
    baseline, compliance = verify.accuracies_over_logged(accuracy_run, test_run, labels_of(dataset_path, sample_count))
    write_atomically(test_run / BASELINE_ACCURACY, baseline.line + "\n")
    write_atomically(test_run / COMPLIANCE_ACCURACY, compliance.line + "\n")
    return verify.accuracies_agree(baseline, compliance)


def _finished(folder: Path) -> dict[str, Any]:
    record = read_run_file(folder)
    if record.get("status") != "finished":
        raise BadInputError(f"{folder}: this run is {record.get('status')!r}, not finished: run it again")
    return record
