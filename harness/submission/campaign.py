"""From a model and images to a checked tree: tuned loads, all runs and tests of each scenario, the package.

    OUTPUT/campaign.json           what was asked for; a later call has to ask for the same
    OUTPUT/load/<scenario>.conf    user.conf of each scenario, as tuned, and what is expected of it (.json)
    OUTPUT/runs/<profile>/...      the runs, as `run` and `audit` leave them; tuning's own in OUTPUT/tuning
    OUTPUT/submission, originals   as `package` makes them

There is no other state. A run that is there, finished, VALID (a test: passed) and made with the present settings is
kept; everything else is made. So a campaign that was killed goes on where it was, and one that is complete only
packages again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from ..backends import check_backend
from ..config import ComplianceTest, RunConfig, Scenario, check_model_file
from ..dataset import count_images
from ..errors import BadInputError, RunFailedError
from ..explain import Advice, advise
from ..live import as_clock
from ..profiles import IMAGENET_VALIDATION_COUNT, PROFILES, not_the_official_model
from ..progress import Numbered, Progress
from ..results import RunResult
from ..run import RunOutcome, run
from ..run_folder import read_run_file, write_atomically
from ..settings import SettingValues
from ..tuning.tune import TuneConfig, Tuned, tune, user_conf
from . import audit as compliance
from . import package as packaging
from . import system, verify
from .audit import AuditOutcome
from .checks import CheckConfig, CheckReport, check_tree
from .collect import is_passed
from .package import PackageConfig
from .rounds import Round, load_round

Kind: TypeAlias = Literal["performance", "accuracy", "TEST01", "TEST04"]

_STATE: Final = "campaign.json"
_FORMAT: Final = 1
_TRIES: Final = 2
_PASSES: Final = 3
"""Over all steps: a performance run that a test had made again makes the other tests of its scenario due again."""
_INFERRED_FROM: Final[Scenario] = "SingleStream"
"""The scenario to run if others are inferred: the one that may stand for most."""
_START_S: Final = 10.0
"""Of one run: opening the engine, loading samples."""


@dataclass(frozen=True)
class CampaignConfig:
    """What a campaign is to do.

    run: what every run shares; its output is OUTPUT/runs. package: the tree; its runs are run.output/<profile>.
    tune_s: length of a short run. duration_s: of performance runs, of a rehearsal only, and Offline then takes no more
    samples than it needs; None for the official one.
    """

    run: RunConfig
    package: PackageConfig
    tune_s: float
    duration_s: float | None = None

    def __post_init__(self) -> None:
        """Raises: BadInputError."""
        if self.duration_s is not None and not self.package.rehearsal:
            raise BadInputError("--time makes runs that cannot be submitted: add --rehearsal, or leave --time out")


@dataclass(frozen=True)
class Step:
    """One run of a campaign. expected_s: with opening the engine; None before loads are tuned. done: can be kept."""

    scenario: Scenario
    kind: Kind
    expected_s: float | None
    done: bool

    def __str__(self) -> str:
        return f"{self.scenario} {self.kind}"


@dataclass(frozen=True)
class CampaignResult:
    """Where the tree is, and what its check found."""

    tree: Path
    report: CheckReport


class Campaign:
    """A campaign whose settings have been checked. In order: `tune_loads`, `run_all`, `finish`; `steps` at any time."""

    def __init__(self, config: CampaignConfig, ask: Callable[[str, str], str] | None = None) -> None:
        """Refuse now what would be refused at the end. ask: as in `system.describe`.

        Raises: BadInputError if model, images, names or description cannot become a submission, or if the folder holds
        a campaign with other settings.
        """
        self._config = config
        self._output = config.package.output
        self._rules = load_round(config.package.round_name)
        self._scenarios = _measured(config, self._rules)
        self._ask = ask
        _check_submittable(config)
        self._describe()
        self._claim()

    def _describe(self) -> None:
        package = self._config.package
        self._output.mkdir(parents=True, exist_ok=True)
        described = system.describe(
            self._rules,
            package.division,
            package.submitter,
            package.system_type,
            package.system_name,
            package.system_toml,
            storage=self._output,
            rehearsal=package.rehearsal,
            ask=self._ask,
        )
        self._answers = {name: value for name, value in described.items() if self._ask is not None}

    def _claim(self) -> None:
        path = self._output / _STATE
        asked = _asked(self._config)
        if not path.exists():
            write_atomically(path, json.dumps({"format": _FORMAT, "asked": asked}, indent=2) + "\n")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["asked"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"{path} is damaged: remove it to begin anew in this folder") from error
        different = [name for name in asked if before.get(name) != asked[name]]
        if different:
            name = different[0]
            raise BadInputError(
                f"{self._output} holds a campaign with {name} {before.get(name)!r}, now {asked[name]!r}: ask for the "
                "same to go on, or choose another --output"
            )

    def tune_loads(self, progress: Progress) -> None:
        """Tune the scenarios that have no load yet, one after the other. Raises: as `tune`."""
        for scenario in self._scenarios:
            if self._tuned(scenario) is None:
                shared = replace(self._config.run, output=self._output / "tuning")
                config = TuneConfig(shared, (scenario,), self._config.tune_s, self._config.duration_s)
                (found,) = tune(config, progress)
                self._write_load(found)

    def steps(self) -> tuple[Step, ...]:
        """Every run, in order, and which of them are done."""
        steps = []
        for scenario in self._scenarios:
            tuned = self._tuned(scenario)
            for kind in self._kinds():
                expected = None
                if tuned is not None and kind == "accuracy":
                    expected = _START_S + _accuracy_images(self._config) / tuned.accuracy_per_s
                elif tuned is not None:
                    expected = _START_S + tuned.duration_s
                steps.append(Step(scenario, kind, expected, self._is_done(scenario, kind)))
        return tuple(steps)

    def run_all(self, progress: Progress, say: Callable[[str], None]) -> None:
        """Make every run that is not done. say: told one line for each run that has ended.

        Raises: as `run.run`; RunFailedError if a run is not VALID, or a test not passed, after a second try; of a test
        whose runs agree with each other the performance run is made again before that. RunFailedError too if such runs
        made again leave a test due to the end.
        """
        steps = self.steps()
        for number, step in (*enumerate(steps, start=1),) * _PASSES:
            if self._is_done(step.scenario, step.kind):  # asked again: a new load makes later runs of its scenario due
                continue
            numbered = Numbered(progress, f"[{number}/{len(steps)}] ")
            if step.kind == "performance":
                self._performance(step.scenario, numbered, say)
            elif step.kind == "accuracy":
                outcome = run(self._run_config(step.scenario, "accuracy"), numbered)
                assert outcome.accuracy is not None
                say(f"{step}: {outcome.accuracy.line}")
            else:
                self._test(step.kind, step.scenario, numbered, say)
        due = [str(step) for step in self.steps() if not step.done]
        if due:
            raise RunFailedError(
                f"performance runs were measured again and again, and still to be done: {', '.join(due)}; stop what "
                "else is running, and go on with the same command: what is finished is kept"
            )

    def finish(self) -> CampaignResult:
        """Package and check. Raises: BadInputError."""
        answers = self._answers
        tree = packaging.package(self._config.package, (lambda name, _hint: answers[name]) if answers else None)
        report = check_tree(
            CheckConfig(
                tree.absolute(),
                self._rules.name,
                self._config.package.submitter,
                (self._output / packaging.ORIGINALS).absolute(),
                self._config.package.rehearsal,
            )
        )
        return CampaignResult(tree, report)

    def _kinds(self) -> tuple[Kind, ...]:
        tests = self._rules.compliance_tests if self._config.package.division == "closed" else ()
        return ("performance", "accuracy", *tests)

    def _folder(self, scenario: Scenario, kind: Kind) -> Path:
        return self._config.package.runs / scenario / kind

    def _run_config(self, scenario: Scenario, kind: Literal["performance", "accuracy"]) -> RunConfig:
        reasons = ("a rehearsal",) if self._config.package.rehearsal else ()
        return replace(
            self._config.run,
            scenario=scenario,
            mode=kind,
            user_conf=self._load_path(scenario),
            min_duration_s=self._config.duration_s if kind == "performance" else None,
            min_query_count=1 if scenario == "Offline" and self._config.duration_s is not None else None,
            not_submittable=reasons,
        )

    def _is_done(self, scenario: Scenario, kind: Kind) -> bool:
        """Finished, VALID or scored or passed, and with the load that the scenario has now."""
        if not self._is_finished(scenario, kind):
            return False
        folder = self._folder(scenario, kind)
        record = read_run_file(folder)
        if kind == "accuracy":
            return "accuracy" in record
        if record["result"]["valid"] is not True:
            return False
        if kind == "performance":
            return True
        return (  # only beside a performance run that has ended is there anything to compare with
            self._is_done(scenario, "performance")
            and is_passed(kind, folder)
            and compliance.is_current(kind, folder.parent)
        )

    def _performance(self, scenario: Scenario, progress: Progress, say: Callable[[str], None]) -> None:
        for last in (*[False] * (_TRIES - 1), True):
            failure, advice = self._try_performance(scenario, progress, say)
            if failure is None:
                return
            if last or advice is None:
                more = f": {advice}" if advice is not None else ""
                raise RunFailedError(
                    f"{scenario} performance: {failure}{more}; see {self._folder(scenario, 'performance')}"
                )
            say(f"{scenario} performance: {failure}; once more: {advice}")
            self._back_off(scenario, advice)

    def _try_performance(
        self, scenario: Scenario, progress: Progress, say: Callable[[str], None]
    ) -> tuple[str | None, Advice | None]:
        """Why a run is no use, None if it is, and what to change."""
        try:
            outcome = run(self._run_config(scenario, "performance"), progress)
        except RunFailedError as error:
            advice = self._advice_of_failed(scenario)
            if advice is None:
                raise
            return str(error), advice
        if outcome.result.valid:
            say(_told(outcome))
            return None, None
        advice = next(iter(advise(outcome.result, outcome.effective_settings, outcome.standstill)), None)
        return f"INVALID: {'; '.join(outcome.result.invalid_reasons)}", advice

    def _advice_of_failed(self, scenario: Scenario) -> Advice | None:
        """Of a run that LoadGen itself ended with an error."""
        record = read_run_file(self._folder(scenario, "performance"))
        if "result" not in record:
            return None
        result = RunResult(**record["result"])
        effective: SettingValues = record["settings"]["effective"]
        return next(iter(advise(result, effective)), None)

    def _test(self, test: ComplianceTest, scenario: Scenario, progress: Progress, say: Callable[[str], None]) -> None:
        """Run a test, a second time if it fails, and the performance run again if that is the odd one out."""
        runs = self._config.package.runs / scenario
        if self._is_finished(scenario, test) and compliance.verify_again(test, runs).passed:
            say(f"{scenario} {test}: passed, beside the performance run that there is now")
            return
        metrics = []
        for last in (*[False] * (_TRIES - 1), True):
            outcome = compliance.audit(test, runs, progress)
            if outcome.passed:
                say(f"{scenario} {test}: passed")
                return
            said = _failure(outcome)
            if outcome.run is not None and outcome.run.result.valid and outcome.run.result.metric is not None:
                metrics.append(outcome.run.result.metric)
            if not last:
                say(f"{scenario} {test}: {said}; once more")
        if outcome.performance.passed or len(metrics) < _TRIES or not verify.are_alike(test, scenario, metrics):
            apart = f" (its runs: {' and '.join(f'{one:.4g}' for one in metrics)})" if metrics else ""
            raise RunFailedError(
                f"{scenario} {test} failed twice: {said}{apart}; stop what else is running, and go on with the same "
                "command: what is finished is kept"
            )
        say(f"{scenario} {test}: its runs agree with each other, the performance run does not: measuring that again")
        self._performance(scenario, progress, say)
        again = compliance.verify_again(test, runs)
        if not again.passed:
            raise RunFailedError(
                f"{scenario} {test} failed twice, and beside a second performance run: {_failure(again)}; stop what "
                "else is running, and go on with the same command: what is finished is kept"
            )
        say(f"{scenario} {test}: passed")

    def _is_finished(self, scenario: Scenario, kind: Kind) -> bool:
        """Run to its end with the load that the scenario has now."""
        folder, load = self._folder(scenario, kind), self._load_path(scenario)
        if not (folder / "run.json").is_file() or not load.is_file():
            return False
        record = read_run_file(folder)
        return record.get("status") == "finished" and record["user_conf"]["text"] == load.read_text(encoding="utf-8")

    def _load_path(self, scenario: Scenario) -> Path:
        return self._output / "load" / f"{scenario}.conf"

    def _tuned(self, scenario: Scenario) -> Tuned | None:
        path = self._load_path(scenario).with_suffix(".json")
        if not path.is_file() or not self._load_path(scenario).is_file():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        return Tuned(**{**values, "metric": tuple(values["metric"])})

    def _write_load(self, found: Tuned) -> None:
        path = self._load_path(found.scenario)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, user_conf([found]))
        write_atomically(path.with_suffix(".json"), json.dumps(asdict(found), indent=2) + "\n")

    def _back_off(self, scenario: Scenario, advice: Advice) -> None:
        """Write the load that is advised, if it is another one; another key than the tuned one is added to it.

        Any other text in the file would make finished runs of the scenario due.
        """
        tuned = self._tuned(scenario)
        assert tuned is not None
        if advice.key == tuned.key:
            value = float(f"{advice.value:.6g}")
            if value != float(f"{tuned.value:.6g}"):
                self._write_load(replace(tuned, value=value, why=f"{tuned.why} Changed: {advice.why}."))
            return
        path = self._load_path(scenario)
        line = f"*.{scenario}.{advice.key} = {advice.value:.0f}"
        lines = path.read_text(encoding="utf-8").splitlines()
        if line in lines:
            return
        for number, before in enumerate(lines):
            if before.startswith(f"*.{scenario}.{advice.key} = "):  # which LoadGen's file may set but once
                del lines[number - 2 : number + 1]
                break
        write_atomically(path, "\n".join((*lines, "", f"# {advice.why}.", line)) + "\n")


def describe_steps(steps: Sequence[Step]) -> Iterator[str]:
    """A line for each run, then the sum of what is to do."""
    for number, step in enumerate(steps, start=1):
        length = "done" if step.done else "?" if step.expected_s is None else as_clock(step.expected_s)
        yield f"{number:2} {step.scenario:12} {step.kind:11} {length:>8}"
    left = [step.expected_s for step in steps if not step.done]
    known = [seconds for seconds in left if seconds is not None]
    unknown = f", and {len(left) - len(known)} runs of unknown length" if len(known) < len(left) else ""
    yield f"to do: {len(left)} of {len(steps)} runs, {as_clock(sum(known))}{unknown}"


def _measured(config: CampaignConfig, rules: Round) -> tuple[Scenario, ...]:
    """Scenarios that have to be run: all, or only those from which the others may be inferred."""
    scenarios = rules.scenarios_of(config.package.system_type)
    if not config.package.infer:
        return scenarios
    inferred = rules.inferred.get(_INFERRED_FROM, ())
    return tuple(scenario for scenario in scenarios if scenario not in inferred)


def _check_submittable(config: CampaignConfig) -> None:
    """Hours before the end: what would keep every run from submission. Raises: BadInputError."""
    check_backend(config.run.backend)
    if config.run.model is not None:
        check_model_file(config.run.model)
    packaging.check_calibration(config.package, config.run.model)
    if config.package.rehearsal:
        return
    profile, model = PROFILES[config.run.profile], config.run.model
    closed = config.package.division == "closed"
    if closed and model is not None:
        reason = next(iter([*profile.not_submittable, *filter(None, [not_the_official_model(profile, model)])]), None)
        if reason is not None:
            raise BadInputError(f"{reason}: no closed submission; --division open or --rehearsal take it")
    images = _accuracy_images(config)
    if images != IMAGENET_VALIDATION_COUNT:
        raise BadInputError(
            f"{config.run.dataset_path} holds {images} images, a submission answers {IMAGENET_VALIDATION_COUNT}: "
            "--rehearsal takes it"
        )


def _accuracy_images(config: CampaignConfig) -> int:
    return config.run.sample_count or count_images(config.run.dataset_path)


def _asked(config: CampaignConfig) -> dict[str, Any]:
    """What makes two campaigns different, in words that flags have."""
    shared = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config.run).items()
        if name not in ("output", "scenario", "mode", "user_conf", "name", "not_submittable") and value is not None
    }
    package = config.package
    return {
        **shared,
        "round": package.round_name,
        "division": package.division,
        "scenarios": package.system_type,
        "system_name": package.system_name,
        "submitter": package.submitter,
        "infer": package.infer,
        "rehearsal": package.rehearsal,
        "time": config.duration_s,
    }


def _failure(outcome: AuditOutcome) -> str:
    """Of a test, in a line."""
    if outcome.accuracy is not None and not outcome.accuracy.passed and not outcome.excused:
        return "answers differ from the accuracy run's"
    return "; ".join(outcome.performance.text.splitlines()[1:])


def _told(outcome: RunOutcome) -> str:
    result = outcome.result
    return f"{result.scenario} performance: {result.metric:.3f} {result.metric_unit}, {result.verdict}"
