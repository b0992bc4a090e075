"""All rules over a tree. The way in is `check_tree`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from ...config import SCENARIOS
from ...errors import BadInputError
from ..rounds import Division, Round, load_round
from . import compliance, hygiene, scenario, system
from .records import Finding, Rule, Subject, Submission, System, read_scenario, read_system

_IGNORED: Final = (".git", ".github", "assets")
_DIVISIONS: Final[tuple[Division, ...]] = get_args(Division)


@dataclass(frozen=True)
class CheckConfig:
    """tree: root with closed/ and open/. submitter: None for all. originals: untruncated logs, compared if given.

    rehearsal: do not mind a tree that is marked as one.
    """

    tree: Path
    round_name: str
    submitter: str | None = None
    originals: Path | None = None
    rehearsal: bool = False


@dataclass(frozen=True)
class CheckReport:
    """What was found, and how much was looked at."""

    findings: tuple[Finding, ...]
    scenarios: int
    rules: int

    @property
    def passed(self) -> bool:
        """Whether no rule is broken."""
        return not self.findings


def rule_names() -> tuple[str, ...]:
    """Every rule there is, in the order in which they are checked."""
    return (
        *_TREE_RULES,
        *(rule.name for rule in hygiene.RULES),
        *(rule.name for rule in system.RULES),
        *(rule.name for rule in scenario.RULES),
        *(rule.name for rule in compliance.RULES),
    )


_TREE_RULES: Final = ("divisions", "results")


def check_tree(config: CheckConfig) -> CheckReport:
    """Apply every rule. Raises: BadInputError if there is no tree, or it holds nothing of the submitter's."""
    rules = load_round(config.round_name)
    if not config.tree.is_dir():
        raise BadInputError(f"{config.tree}: no such folder: name the one that holds closed/ and open/")
    findings = [
        Finding("divisions", path, f"is no division; {' and '.join(_DIVISIONS)} are")
        for path in sorted(config.tree.iterdir())
        if path.is_dir() and path.name not in (*_DIVISIONS, *_IGNORED)
    ]
    submissions = list(_submissions(config, rules))
    if not submissions:
        whose = f"of submitter {config.submitter}" if config.submitter else "of any submitter"
        raise BadInputError(f"{config.tree}: nothing {whose} in {' or '.join(_DIVISIONS)}")
    scenarios = 0
    for submission in submissions:
        findings += _apply(hygiene.RULES, submission)
        names = sorted(path.name for path in submission.results.iterdir()) if submission.results.is_dir() else []
        if not names:
            findings.append(Finding("results", submission.results, "no results: remove the submitter or add some"))
        for name in names:
            described = read_system(submission, name)
            findings += _apply(system.RULES, described)
            for benchmark, found in _scenarios(described):
                folder = read_scenario(described, benchmark, found)  # type: ignore[arg-type]  # one of SCENARIOS
                findings += _apply(scenario.RULES, folder)
                findings += _apply(compliance.RULES, folder)
                scenarios += 1
    shown = (Finding(one.rule, _relative(one.path, config.tree), one.text) for one in findings)
    return CheckReport(tuple(dict.fromkeys(shown)), scenarios, len(rule_names()))


def _submissions(config: CheckConfig, rules: Round) -> Iterator[Submission]:
    for division in _DIVISIONS:
        folder = config.tree / division
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and config.submitter in (None, path.name):
                yield Submission(config.tree, rules, division, path.name, config.originals, config.rehearsal)


def _scenarios(described: System) -> Iterator[tuple[str, str]]:
    """Folders of a benchmark and a scenario; what they are not named after a scenario is a finding of its own."""
    folder = described.submission.results / described.name
    for benchmark in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        for path in sorted(benchmark.iterdir()):
            if path.is_dir() and path.name in SCENARIOS:
                yield benchmark.name, path.name


def _apply(rules: Iterable[Rule[Subject]], subject: Subject) -> Iterator[Finding]:
    for rule in rules:
        for path, text in rule.check(subject):
            yield Finding(rule.name, path, text)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
