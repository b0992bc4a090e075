"""The runs that a submission is made of: found below one folder, and refused unless all of them can be submitted.

`RUNS/<scenario>/{performance,accuracy,TEST01,TEST04}` is how `run`, `audit` and `campaign` lay them out. Verdicts are
read again from LoadGen's logs: run.json is our word, the logs are LoadGen's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..config import ComplianceTest, Scenario
from ..errors import BadInputError, RunFailedError
from ..results import check_endings, read_result
from ..run_folder import read_run_file
from .audit import COMPLIANCE_ACCURACY, VERIFY_ACCURACY, VERIFY_PERFORMANCE
from .rounds import Division, Round
from .verify import PASS

_SAME: Final = (
    *("backend", "model", "dataset_path", "profile", "precision", "plan", "kernels", "machine", "isa"),
    *("max_batch", "instances", "threads"),
)
"""Settings that performance, accuracy and compliance runs of one scenario share by the rules, or they prove nothing."""


@dataclass(frozen=True)
class SourceRun:
    """A finished run: its folder and its run.json."""

    folder: Path
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ScenarioRuns:
    """What becomes one scenario's folder. measured: the scenario that was run, another one if results are inferred."""

    scenario: Scenario
    measured: Scenario
    performance: SourceRun
    accuracy: SourceRun
    tests: Mapping[ComplianceTest, SourceRun]

    @property
    def all(self) -> tuple[SourceRun, ...]:
        """Performance, accuracy, tests."""
        return (self.performance, self.accuracy, *self.tests.values())


def collect(
    runs: Path, rules: Round, division: Division, scenarios: Sequence[Scenario], *, infer: bool, rehearsal: bool
) -> tuple[ScenarioRuns, ...]:
    """Runs of every scenario. infer: take a scenario that was not run from one that may stand for it.

    rehearsal: accept what keeps runs from submission, but not what failed or is not VALID.
    Raises: BadInputError, naming the first run that is missing or cannot be used, and why.
    """
    collected = []
    for scenario in scenarios:
        measured = scenario
        if infer and not (runs / scenario / "performance").exists():
            sources = [source for source, targets in rules.inferred.items() if scenario in targets]
            measured = next((source for source in sources if (runs / source / "performance").exists()), scenario)
        folder = runs / measured
        tests = rules.compliance_tests if division == "closed" else ()
        found = ScenarioRuns(
            scenario=scenario,
            measured=measured,
            performance=_read(folder / "performance"),
            accuracy=_read(folder / "accuracy"),
            tests={test: _read(folder / test) for test in tests},
        )
        problem = next(_problems(found, division, rehearsal), None)
        if problem is not None:
            raise BadInputError(problem)
        collected.append(found)
    return tuple(collected)


def reasons_against(run: SourceRun, division: Division) -> list[str]:
    """Why a run cannot be submitted in a division, as it was recorded when it was made."""
    excused = run.record.get("not_closed", []) if division == "open" else []
    return [reason for reason in run.record.get("not_submittable", []) if reason not in excused]


def is_passed(test: ComplianceTest, folder: Path) -> bool:
    """Whether the files of a compliance test say that it was passed."""
    performance = folder / VERIFY_PERFORMANCE
    if not performance.is_file() or PASS not in performance.read_text(encoding="utf-8"):
        return False
    accuracy = folder / VERIFY_ACCURACY
    if test != "TEST01":
        return True
    if not accuracy.is_file():
        return False
    return PASS in accuracy.read_text(encoding="utf-8") or (folder / COMPLIANCE_ACCURACY).is_file()


def _read(folder: Path) -> SourceRun:
    if not folder.is_dir():
        kind = "audit" if folder.name.startswith("TEST") else "run"
        raise BadInputError(f"{folder} is missing: make it with `loadgen-numba {kind}`")
    return SourceRun(folder.absolute(), read_run_file(folder))


def _problems(runs: ScenarioRuns, division: Division, rehearsal: bool) -> Iterator[str]:
    """Each a line that names the run."""
    for run in runs.all:
        status = run.record.get("status")
        if status != "finished":
            yield f"{run.folder}: this run is {status!r}, not finished: run it again"
        try:
            result = read_result(run.folder)
            check_endings(run.folder)
        except RunFailedError as error:
            yield f"{error}: run it again"
            continue
        if result.errors:
            yield f"{run.folder}: LoadGen logged an error: {result.errors[0]}"
        if result.scenario != runs.measured:
            yield f"{run.folder}: LoadGen ran {result.scenario}, not {runs.measured}"
        expected = "AccuracyOnly" if run is runs.accuracy else "PerformanceOnly"
        if result.mode != expected:
            yield f"{run.folder}: LoadGen ran in mode {result.mode}, not {expected}"
        if run is not runs.accuracy and result.valid is not True:
            yield f"{run.folder}: LoadGen's verdict is {result.verdict}: {'; '.join(result.invalid_reasons)}"
        reasons = reasons_against(run, division)
        if reasons and not rehearsal:
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            yield f"{run.folder} is not for submission: {reasons[0]}{more}; --rehearsal packages it all the same"
        for key in _SAME:
            ours, other = run.record["config"].get(key), runs.performance.record["config"].get(key)
            if ours != other:
                yield f"{run.folder}: {key} is {ours!r}, in the performance run it was {other!r}: run it again"
        if run is not runs.accuracy and run.record["user_conf"]["text"] != runs.performance.record["user_conf"]["text"]:
            yield f"{run.folder}: its user.conf differs from the performance run's: run it again"
    for test, run in runs.tests.items():
        if not is_passed(test, run.folder):
            yield f"{run.folder}: {test} is not passed, see the verify_*.txt there"
