"""One LoadGen test from a RunConfig to a verdict. Called by `cli` and `demo_campaign.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from backend import BackendError, Machine, detect, read_options

from . import accuracy, placement, provenance, settings
from .accuracy import Accuracy
from .backends import check_backend
from .config import Precision, RunConfig, Scenario, check_model_file
from .dataset import Dataset, open_dataset
from .errors import BadInputError, DiskFullError, RunFailedError, RunInterruptedError
from .explain import advise
from .history import FORECASTS, Standstill
from .live import Goal
from .messages import Opened, Task
from .profiles import IMAGENET_VALIDATION_COUNT, PROFILES, Profile, doubt_about_input, not_the_official_model
from .progress import Progress
from .results import RunResult, check_endings, read_result
from .run_folder import RunFolder, utc_now, write_atomically
from .supervisor import Supervised, Watch, supervise
from .timings import Durations
from .timings_file import TIMINGS_FILE, timings_text

FORMAT: Final = 2
"""Of run.json; raised when a field changes its meaning."""

_NOTHING_AGAINST: Final = "settings and data as the rules ask"

_SEARCH_FAILED: Final = "Initial lower bound does not satisfy performance constraints"
"""LoadGen's words when the rate that a search starts from is too high already."""

DEFAULT_MAX_BATCH: Final[dict[Scenario, int]] = {"SingleStream": 1, "MultiStream": 8, "Offline": 8, "Server": 1}
"""A query's own size for the streams. Server: on a CPU a batch saves little and makes its first sample wait."""


@dataclass(frozen=True)
class RunOutcome:
    """A test that LoadGen has finished.

    not_submittable: why its results cannot be submitted; empty if they can.
    warnings: what the user may have overlooked.
    """

    folder: Path
    result: RunResult
    accuracy: Accuracy | None
    not_submittable: tuple[str, ...]
    warnings: tuple[str, ...]
    instances: int
    official_settings: settings.SettingValues
    effective_settings: settings.SettingValues
    moved_aside: Path | None
    """Where an earlier run of the same folder went."""
    responses: Durations
    service: Durations
    """Of its queries and of its inferences, by the harness's own clock."""
    standstill: Standstill | None


def run(config: RunConfig, progress: Progress) -> RunOutcome:
    """Run one test in a process of its own and read LoadGen's verdict.

    Raises: BadInputError (nothing was written), RunFailedError, DiskFullError, RunInterruptedError (run.json says so).
    """
    profile = PROFILES[config.profile]
    user_conf = _check_files(config, profile)
    machine = engine_machine(
        config.backend,
        precision=config.precision,
        kernels=config.kernels,
        isa=config.isa,
        machine=config.machine,
        plan=config.plan,
    )
    cpus = placement.available_cores(machine)
    planned = placement.plan(config.scenario, config.instances, config.threads, cpus)
    with _claimed(config.folder) as folder:
        dataset = open_dataset(
            config.dataset_path,
            profile.spec,
            config.sample_count,
            progress,
            store_path=config.store_path,
            verify=config.mode == "accuracy",
        )
        task = Task(
            config=config,
            dataset=dataset,
            placement=planned,
            max_batch=config.max_batch or DEFAULT_MAX_BATCH[config.scenario],
            user_conf=user_conf,
            log_folder=folder.path,
        )
        return _Run(task, profile, folder, progress).to_the_end()


def engine_machine(
    backend: str,
    *,
    precision: Precision | None,
    kernels: str,
    isa: str | None,
    machine: Path | None = None,
    plan: Path | None = None,
) -> Machine:
    """Whose cores a run has, its engine's options checked before anything slow begins.

    Raises: BadInputError for an unknown backend, and for options of ours that no model can be run with.
    """
    check_backend(backend)
    if backend != "numba":
        return detect()
    try:
        asked = read_options(precision=precision or "auto", kernels=kernels, isa=isa, machine=machine, plan=plan)
    except BackendError as error:
        raise BadInputError(str(error)) from error
    return asked.machine


def config_from_record(record: Mapping[str, Any], folder: Path) -> RunConfig:
    """The RunConfig that a run's run.json holds. Raises: BadInputError if another version wrote it."""
    if record.get("format") != FORMAT:
        raise BadInputError(
            f"{folder}: run.json has format {record.get('format')}, this version knows {FORMAT}: run it again"
        )
    values = {name: value for name, value in record["config"].items() if value is not None}
    unknown = values.keys() - {field.name for field in fields(RunConfig)}
    if unknown:
        raise BadInputError(
            f"{folder}: run.json holds {min(unknown)!r}, which this version does not know: run it again"
        )
    values |= {name: Path(values[name]) for name in _PATH_FIELDS if name in values}
    return RunConfig(**{"model": None, **values, "not_submittable": tuple(values.get("not_submittable", ()))})


_PATH_FIELDS: Final = tuple(field.name for field in fields(RunConfig) if "Path" in str(field.type))


def _check_files(config: RunConfig, profile: Profile) -> Path:
    """Refuse what can be seen to be wrong before anything slow begins; returns the user.conf to use."""
    user_conf = (config.user_conf or settings.DEFAULT_USER_CONF).absolute()
    user_settings = settings.read_user_conf(user_conf, profile.loadgen_model)
    settings.check_rate(config, user_settings, user_conf)
    audit_conf = settings.audit_file(config)
    if audit_conf is not None:
        settings.read_audit_conf(audit_conf)
    if config.plan is not None and not config.plan.is_file():
        raise BadInputError(f"--plan {config.plan}: no such file")
    if config.model is not None:
        check_model_file(config.model)
    return user_conf


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[RunFolder]:
    folder = RunFolder.claim(path)
    try:
        yield folder
    finally:
        folder.release()


class _Run:
    """A test between its claim of a folder and its verdict; keeps run.json up to date."""

    def __init__(self, task: Task, profile: Profile, folder: RunFolder, progress: Progress) -> None:
        self._task = task
        self._profile = profile
        self._folder = folder
        self._progress = progress
        self._record: dict[str, Any] = {}
        self._not_submittable: tuple[str, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._moved_aside: Path | None = None
        self._standstill: Standstill | None = None

    def to_the_end(self) -> RunOutcome:
        """Supervise the child; whatever ends the test is written to run.json."""
        try:
            supervised = supervise(self._task, self._begin, self._progress)
            result = self._read_result()
            self._note_standstill(supervised.history.standstill())
            if result.errors:
                self._mark("failed", result=asdict(result))
                self._write_beside(supervised)
                raise RunFailedError(self._logged_errors(result))
            if result.valid is False:
                self._add_reasons("LoadGen's verdict is INVALID")
            self._mark("finished", result=asdict(result), peak_memory_bytes=supervised.ended.peak_memory_bytes)
            scored = self._score()
            self._write_beside(supervised)
        except RunInterruptedError as error:
            self._mark("interrupted", error=str(error))
            raise
        except (RunFailedError, DiskFullError) as error:
            self._mark("failed", error=str(error))
            where = f"marked failed in {self._folder.path}" if self._record else "the test had not begun"
            raise type(error)(f"{error}; {where}") from error.__cause__
        return RunOutcome(
            folder=self._folder.path,
            result=result,
            accuracy=scored,
            not_submittable=self._not_submittable,
            warnings=self._warnings,
            instances=self._task.placement.instances,
            official_settings=self._record["settings"]["official"],
            effective_settings=self._record["settings"]["effective"],
            moved_aside=self._moved_aside,
            responses=supervised.responses,
            service=supervised.service,
            standstill=self._standstill,
        )

    def _read_result(self) -> RunResult:
        """What LoadGen says.

        Raises: RunFailedError; DiskFullError if its logs end early and there is no room for more.
        """
        try:
            result = read_result(self._folder.path)
            check_endings(self._folder.path)
        except RunFailedError as error:
            if self._folder.is_full():
                raise DiskFullError(f"the disk is full, choose another with --output: {error}") from error
            raise
        return result

    def _logged_errors(self, result: RunResult) -> str:
        """What LoadGen logged as errors, and what to do."""
        more = f" and {len(result.errors) - 1} more" if len(result.errors) > 1 else ""
        advice = advise(result, self._record["settings"]["effective"], self._standstill)
        remedy = "; start from a lower --qps" if _SEARCH_FAILED in result.errors[0] else ""
        remedy += "".join(f"; {one}" for one in advice)
        return f"LoadGen logged an error: {result.errors[0]}{more}{remedy}"

    def _write_beside(self, supervised: Supervised) -> None:
        """Files to look at, when the verdict is in run.json: one that cannot be written takes no result away.

        A warning tells; run.json is not replaced again for its sake, for which there may be no room either.
        """
        texts = {FORECASTS: supervised.history.as_csv()}
        if self._task.config.mode == "performance":
            texts[TIMINGS_FILE] = timings_text(supervised.responses, supervised.service)
        for name, text in texts.items():
            try:
                write_atomically(self._folder.path / name, text)
            except (DiskFullError, RunFailedError) as error:
                self._warn([f"{error}; the result is complete without it"])

    def _note_standstill(self, stood: Standstill | None) -> None:
        """Nothing of ours waits so long: other programs had the CPUs, or the machine was suspended.

        Of performance runs; in an accuracy run there is nothing to answer between two sets of images.
        """
        if stood is None or self._task.config.mode != "performance":
            return
        self._standstill = stood
        self._record["standstill"] = asdict(stood)
        self._warn([f"{stood}: other programs had the CPUs, or the machine was suspended"])

    def _add_reasons(self, *reasons: str, closed_only: bool = False) -> None:
        """Why this run cannot be submitted, at all or in the closed division, in run.json with the next mark."""
        self._not_submittable += reasons
        if closed_only:
            self._record["not_closed"] = [*self._record["not_closed"], *reasons]
        self._record["not_submittable"] = self._not_submittable
        self._record["submission"] = "not for submission" if self._not_submittable else _NOTHING_AGAINST

    def _warn(self, warnings: Iterable[str]) -> None:
        """What the user may have overlooked: at once, and in run.json with the next mark."""
        new = tuple(warnings)
        self._warnings += new
        self._record["warnings"] = self._warnings
        for warning in new:
            self._progress.note(f"warning: {warning}")

    def _score(self) -> Accuracy | None:
        if self._task.config.mode != "accuracy":
            return None
        try:
            scored = accuracy.score_run(self._folder.path)
        except BadInputError as error:
            raise RunFailedError(str(error)) from error
        official = self._profile.official
        if official is not None and scored.percent < official.least_accuracy_percent:
            self._add_reasons(
                f"accuracy {scored.percent:.3f} % is below the benchmark's target "
                f"{official.least_accuracy_percent:.4f} % "
                f"({100 * official.accuracy_share:g} % of {official.accuracy_percent:g} %)",
                closed_only=True,
            )
        self._mark("finished", accuracy={"line": scored.line, **asdict(scored)})
        return scored

    def _begin(self, opened: Opened) -> Watch:
        """The child is ready: empty the folder, write down everything that is known, say what to expect."""
        config, task = self._task.config, self._task
        self._moved_aside = self._folder.begin()
        self._record = {
            "format": FORMAT,
            "started_utc": utc_now(),
            "config": {name: _as_json(value) for name, value in asdict(config).items()},
            "max_batch": task.max_batch,
            "dataset": {"images": task.dataset.sample_count, "store": str(task.dataset.store_path)},
            "not_closed": [],
            "user_conf": {"path": str(task.user_conf), "text": task.user_conf.read_text(encoding="utf-8")},
            "settings": {
                "official": opened.official_settings,
                "effective": opened.effective_settings,
                "estimated": opened.estimated_settings,
            },
            "backend": opened.backend,
            "instances": [asdict(instance) for instance in opened.instances],
            "versions": provenance.versions(),
            "machine": provenance.machine(),
        }
        self._warn([*task.dataset.warnings, *_of_the_input(self._profile, opened)])
        stray = sum(instance.stray_thread_count for instance in opened.instances)
        self._add_reasons(*self._profile.not_submittable, *_of_the_model(config, self._profile), closed_only=True)
        self._add_reasons(
            *config.not_submittable,
            *_of_the_data(task.dataset, config, opened),
            *([f"{_counted(stray, 'thread')} outside the cores of their instance"] if stray else []),
            *settings.deviations(opened.official_settings, opened.effective_settings, config.scenario),
        )
        self._mark("running")
        title = f"{config.scenario} {config.compliance_test or config.mode}" + (
            ", trials at many rates" if config.mode == "find_peak" else ""
        )
        note = f", {stray} threads NOT on their cores" if stray else ", pinned"
        self._progress.phase(
            f"{title}: {_counted(task.placement.instances, 'instance')} x "
            f"{_counted(task.placement.threads, 'thread')} on CPUs "
            f"{'; '.join(','.join(map(str, cores)) for cores in task.placement.cores)}{note}, "
            f"batches of up to {task.max_batch}"
        )
        return Watch(title, _goal(task, opened))

    def _mark(self, status: str, **more: Any) -> None:
        if not self._record:
            return  # the test never began, nothing was written, and nothing is to be marked
        self._record |= {"status": status, **more}
        if status == "running":
            self._folder.write(self._record)
        else:
            self._record["ended_utc"] = utc_now()
            self._folder.conclude(self._record)


def _as_json(value: Any) -> Any:
    """Paths are written so that they hold in any folder."""
    return str(value.absolute()) if isinstance(value, Path) else value


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _goal(task: Task, opened: Opened) -> Goal | None:
    """What the test has to reach. What an audit file of the user's changes LoadGen reads when the test begins."""
    config, effective = task.config, opened.effective_settings
    if config.mode == "find_peak" or config.audit_conf is not None:
        return None
    if config.mode == "accuracy":
        samples, exactly = task.dataset.sample_count, True
    else:
        samples, exactly = settings.sample_count(config.scenario, effective)
    percentile, bound_s = settings.latency_goal(config.scenario, effective)
    return Goal(
        scenario=config.scenario,
        mode=config.mode,
        samples=samples,
        exactly=exactly,
        min_queries=int(effective["min_query_count"]),
        min_duration_s=float(effective["min_duration_ms"]) / settings.MS_PER_S,
        percentile=percentile,
        bound_s=bound_s,
        rate_qps=float(effective["server_target_qps"]) if config.scenario == "Server" else None,
        prepared=settings.prepared_queries(config.scenario, effective),
        samples_per_query=settings.samples_per_query(config.scenario, effective),
        instances=task.placement.instances,
    )


def _of_the_model(config: RunConfig, profile: Profile) -> Iterator[str]:
    reason = None if config.model is None else not_the_official_model(profile, config.model)
    if reason is not None:
        yield reason


def _of_the_input(profile: Profile, opened: Opened) -> Iterator[str]:
    name = opened.backend.get("input")
    doubt = doubt_about_input(profile, name) if isinstance(name, str) else None
    if doubt is not None:
        yield doubt


def _of_the_data(dataset: Dataset, config: RunConfig, opened: Opened) -> Iterator[str]:
    """Reasons that lie in the number of images and in the backend rather than in LoadGen's settings."""
    if config.audit_conf is not None:
        yield f"audit settings of {config.audit_conf}: a compliance test, not a result"
    if config.backend == "null":
        yield "backend null computes nothing"
    asked = int(opened.official_settings["performance_sample_count_override"])
    if config.mode == "accuracy" and dataset.sample_count != IMAGENET_VALIDATION_COUNT:
        yield f"accuracy over {dataset.sample_count} images, official {IMAGENET_VALIDATION_COUNT}"
    elif config.mode != "accuracy" and dataset.sample_count < asked:
        yield f"performance set of {dataset.sample_count} images, official at least {asked}"
    if config.mode == "find_peak":
        yield "FindPeakPerformance is no submission mode"
