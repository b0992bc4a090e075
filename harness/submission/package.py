"""A packaged submission: finished runs -> the tree that MLCommons' checkers read, and the untruncated originals.

    OUTPUT/submission/<division>/<submitter>/...    to be handed in
    OUTPUT/originals/<division>/<submitter>/...     whole accuracy logs, which MLCommons may ask for

Both are built under another name and put in place when they are complete: a kill leaves no half of a tree. The same
runs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..accuracy import ACCURACY_FILE
from ..errors import BadInputError
from ..quantize.models import is_quantized
from ..quantize.record import read_record
from ..results import ACCURACY_LOG, DETAIL_LOG, SUMMARY_LOG
from . import documents, system
from .audit import BASELINE_ACCURACY, COMPLIANCE_ACCURACY, VERIFY_ACCURACY, VERIFY_PERFORMANCE
from .collect import ScenarioRuns, collect
from .rounds import Division, Round, load_round

TREE: Final = "submission"
ORIGINALS: Final = "originals"
_PACKAGES: Final = ("harness", "backend", "preprocessing")
_ROOT: Final = Path(__file__).parents[2]
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_VIEWABLE_BYTES: Final = 4096
"""What stays of an accuracy log at each end."""
_CUT: Final = b"\n\n...\n\n"
_NO_RECORD: Final = (
    "no record that `quantize` wrote of this very file lies beside it: describe in a file how its ranges were found, "
    "and pass it with --calibration"
)


@dataclass(frozen=True)
class PackageConfig:
    """What to package.

    runs: folder with a folder per scenario. output: gets `submission` and `originals`. round_name: e.g. v6.1.
    system_toml: fields that cannot be detected. calibration: a text in place of the generated one.
    infer: scenarios that were not run are taken from others, as the rules allow edge systems.
    rehearsal: runs that cannot be submitted are packaged too, and every README says so.
    """

    runs: Path
    output: Path
    round_name: str
    division: Division
    system_type: str
    system_name: str
    submitter: str
    system_toml: Path | None = None
    calibration: Path | None = None
    infer: bool = False
    rehearsal: bool = False

    def __post_init__(self) -> None:
        """Refuse names that no checker takes. Raises: BadInputError."""
        for flag, name in (("--system-name", self.system_name), ("--submitter", self.submitter)):
            if not _NAME.fullmatch(name):
                raise BadInputError(f"{flag} {name!r}: it names a folder; letters, digits and . _ + - only, no blanks")
        if self.infer and "edge" not in self.system_type:
            raise BadInputError(f"--infer is for edge systems, not for {self.system_type!r}")


def package(config: PackageConfig, ask: Callable[[str, str], str] | None = None) -> Path:
    """Build tree and originals in place of earlier ones; returns the tree's root.

    ask: as in `system.describe`. Raises: BadInputError if a run, a field or a document is missing; nothing is changed.
    """
    rules = load_round(config.round_name)
    runs = collect_runs(config, rules)
    description = system.describe(
        rules,
        config.division,
        config.submitter,
        config.system_type,
        config.system_name,
        config.system_toml,
        storage=config.runs,
        rehearsal=config.rehearsal,
        ask=ask,
    )
    calibration = _calibration(config, runs)
    building = config.output / ".building"
    shutil.rmtree(building, ignore_errors=True)
    try:
        writer = _Writer(config, rules, building)
        writer.write_json(rules.layout.system, description)
        writer.write(rules.layout.calibration, calibration)
        writer.write_source()
        for found in runs:
            writer.write_scenario(found)
        for name in (TREE, ORIGINALS):
            shutil.rmtree(config.output / name, ignore_errors=True)
            (building / name).rename(config.output / name)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return config.output / TREE


def collect_runs(config: PackageConfig, rules: Round) -> tuple[ScenarioRuns, ...]:
    """The runs to package. Raises: BadInputError."""
    scenarios = rules.scenarios_of(config.system_type)
    if config.division == "open":
        scenarios = tuple(name for name in scenarios if (config.runs / name / "performance").exists())
        if not scenarios:
            raise BadInputError(f"{config.runs} holds no performance run of {', '.join(rules.scenarios['edge'])}")
    return collect(config.runs, rules, config.division, scenarios, infer=config.infer, rehearsal=config.rehearsal)


def check_calibration(config: PackageConfig, model: Path | None) -> None:
    """Before the runs: whether `package` will find how the ranges of a quantised model were found.

    Raises: BadInputError.
    """
    if config.calibration is not None:
        _stated_calibration(config.calibration)
    elif model is not None and read_record(model) is None and is_quantized(model):
        raise BadInputError(f"--model {model}: is quantised, and {_NO_RECORD}")


def _calibration(config: PackageConfig, runs: tuple[ScenarioRuns, ...]) -> str:
    if config.calibration is not None:
        text = _stated_calibration(config.calibration)
    else:
        text = documents.calibration(runs) or ""
        if not text:
            raise BadInputError(f"the runs may be of a quantised model, and {_NO_RECORD}")
    return f"{documents.REHEARSAL_MARK}\n\n{text}" if config.rehearsal else text


def _stated_calibration(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--calibration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"--calibration {path}: is no text in UTF-8") from error
    if not text.strip():
        raise BadInputError(f"--calibration {path}: is empty; it describes how ranges were found")
    return text


class _Writer:
    """Writes files below <division>/<submitter> of a tree that is being built, and of its originals."""

    def __init__(self, config: PackageConfig, rules: Round, building: Path) -> None:
        self._config = config
        self._rules = rules
        self._tree = building / TREE / config.division / config.submitter
        self._originals = building / ORIGINALS / config.division / config.submitter

    def write(self, place: str, text: str, scenario: str = "") -> None:
        """place: a path of the round's layout, possibly with {system} and the like."""
        path = self._tree / self._filled(place, scenario)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def write_json(self, place: str, values: object) -> None:
        """As `write`."""
        self.write(place, json.dumps(values, indent=2) + "\n")

    def write_source(self) -> None:
        """This program as it is running, without what it can make again."""
        folder = self._tree / self._rules.layout.source / self._rules.benchmark
        for name in _PACKAGES:
            shutil.copytree(_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for name in ("pyproject.toml", "LICENSE", "user.conf", "mlperf.conf"):
            if (_ROOT / name).is_file():
                shutil.copyfile(_ROOT / name, folder / name)
        text = documents.source_readme(self._rules, self._config.rehearsal)
        (folder / "README.md").write_text(text, encoding="utf-8")

    def write_scenario(self, runs: ScenarioRuns) -> None:
        """Everything of one scenario."""
        layout = self._rules.layout
        measurements = self._filled(layout.measurements, runs.scenario)
        self.write(layout.measurements, documents.measurements_json(runs), runs.scenario)
        self.write(f"{measurements.parent}/user.conf", documents.user_conf(runs))
        text = documents.readme(runs, self._rules, self._config.division, self._config.rehearsal)
        self.write(f"{measurements.parent}/README.md", text)
        results = self._filled(layout.results, runs.scenario)
        self._copy(runs.performance.folder, results / "performance/run_1", (SUMMARY_LOG, DETAIL_LOG))
        self._copy(runs.accuracy.folder, results / "accuracy", (SUMMARY_LOG, DETAIL_LOG))
        self._write_accuracy(
            runs.accuracy.folder, results / "accuracy", runs.accuracy.record["accuracy"]["line"] + "\n"
        )
        for test, run in runs.tests.items():
            folder = self._filled(layout.compliance, runs.scenario) / test
            self._copy(run.folder, folder / "performance/run_1", (SUMMARY_LOG, DETAIL_LOG))
            self._copy(run.folder, folder, (VERIFY_PERFORMANCE,))
            if test == "TEST01":
                self._copy(run.folder, folder, (VERIFY_ACCURACY,))
                self._write_accuracy(run.folder, folder / "accuracy", "")
                excuses = [name for name in (BASELINE_ACCURACY, COMPLIANCE_ACCURACY) if (run.folder / name).is_file()]
                self._copy(run.folder, folder / "accuracy", excuses)

    def _write_accuracy(self, source: Path, place: Path, line: str) -> None:
        """The accuracy log, whole among the originals and truncated in the tree, and accuracy.txt with its hash."""
        original = self._originals / place
        original.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / ACCURACY_LOG, original / ACCURACY_LOG)
        content = (source / ACCURACY_LOG).read_bytes()
        folder = self._tree / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ACCURACY_LOG).write_bytes(truncated(content))
        text = f"{line}\nhash={hashlib.sha256(content).hexdigest()}\n"
        (folder / ACCURACY_FILE).write_text(text, encoding="ascii")

    def _copy(self, source: Path, place: Path, names: tuple[str, ...] | list[str]) -> None:
        (self._tree / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, self._tree / place / name)

    def _filled(self, place: str, scenario: str) -> Path:
        return Path(place.format(system=self._config.system_name, benchmark=self._rules.benchmark, scenario=scenario))


def truncated(log: bytes) -> bytes:
    """Both ends of an accuracy log, as MLCommons' truncate_accuracy_log.py leaves them."""
    if len(log) < _VIEWABLE_BYTES:
        return log
    return log[:_VIEWABLE_BYTES] + _CUT + log[-_VIEWABLE_BYTES:]
