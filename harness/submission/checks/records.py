"""What rules look at, and what they answer with. Everything is read once, when the record is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from ...config import ComplianceTest, Scenario
from ...errors import RunFailedError
from ...results import DETAIL_LOG, DetailLog, read_detail
from ..rounds import Division, Round


@dataclass(frozen=True)
class Finding:
    """A rule that is broken: where, how, and what to do."""

    rule: str
    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.path}: {self.text}"


Problems: TypeAlias = Iterator[tuple[Path, str]]
"""Where and what, of one rule."""

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """A named rule. check: yields nothing if all is well."""

    name: str
    check: Callable[[Subject], Problems]


@dataclass(frozen=True)
class Submission:
    """A submitter's part of a tree. originals: where untruncated logs are, if they are there."""

    root: Path
    rules: Round
    division: Division
    submitter: str
    originals: Path | None
    rehearsal: bool

    @property
    def base(self) -> Path:
        """<root>/<division>/<submitter>."""
        return self.root / self.division / self.submitter

    @property
    def results(self) -> Path:
        """Where systems have their folders."""
        return self.base / "results"


@dataclass(frozen=True)
class System:
    """A system with results. description: None if its JSON is missing or damaged; problem then says how."""

    submission: Submission
    name: str
    path: Path
    description: Mapping[str, Any] | None
    problem: str | None

    @property
    def system_type(self) -> str:
        """As the description states it; empty if it does not."""
        return str((self.description or {}).get("system_type", ""))


@dataclass(frozen=True)
class Log:
    """A detail log: parsed, or the problem that kept it from being parsed."""

    path: Path
    log: DetailLog | None
    problem: str | None

    def value(self, key: str) -> Any:
        """First value of a key; None if the log or the key is missing."""
        return None if self.log is None else self.log.values.get(key)


@dataclass(frozen=True)
class ScenarioFolder:
    """One scenario of a system: folders, logs, measurements."""

    system: System
    scenario: Scenario
    results: Path
    measurements: Path
    compliance: Path
    performance: Log
    accuracy: Log
    tests: Mapping[ComplianceTest, Log]

    @property
    def submission(self) -> Submission:
        """Whose it is."""
        return self.system.submission

    @property
    def timed_logs(self) -> tuple[Log, ...]:
        """Of the performance run and the compliance tests."""
        return (self.performance, *self.tests.values())


def read_json(path: Path) -> tuple[Mapping[str, Any] | None, str | None]:
    """An object of a JSON file, or what is wrong with it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, "is missing"
    except (OSError, ValueError) as error:
        return None, f"is damaged: {error}"
    if not isinstance(values, dict):
        return None, "is damaged: expected a JSON object"
    return values, None


def read_log(folder: Path) -> Log:
    """The detail log in a folder."""
    path = folder / DETAIL_LOG
    try:
        return Log(path, read_detail(path), None)
    except RunFailedError as error:
        problem = "is missing" if not path.is_file() else str(error).removeprefix(str(path)).lstrip(": ")
        return Log(path, None, problem)


def read_system(submission: Submission, name: str) -> System:
    """The system of a results folder."""
    path = submission.base / submission.rules.layout.system.format(system=name)
    description, problem = read_json(path)
    return System(submission, name, path, description, problem)


def read_scenario(system: System, benchmark: str, scenario: Scenario) -> ScenarioFolder:
    """A scenario's folder, all logs parsed."""
    submission, layout = system.submission, system.submission.rules.layout

    def place(template: str) -> Path:
        return submission.base / template.format(system=system.name, benchmark=benchmark, scenario=scenario)

    results, compliance = place(layout.results), place(layout.compliance)
    tests = submission.rules.compliance_tests if submission.division == "closed" else ()
    return ScenarioFolder(
        system=system,
        scenario=scenario,
        results=results,
        measurements=place(layout.measurements),
        compliance=compliance,
        performance=read_log(results / "performance/run_1"),
        accuracy=read_log(results / "accuracy"),
        tests={test: read_log(compliance / test / "performance/run_1") for test in tests},
    )
