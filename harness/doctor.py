"""Whether this machine is ready for official runs: everything that is cheap to find out before hours are spent.

Each examination answers with findings: `ok`, `warn` (results may suffer) or `fail` (runs or submission will).
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import psutil

from backend import BackendError, detect, kernel_cache
from preprocessing import PreprocessingError, read_val_map

from . import loadgen, placement
from .config import IMAGENET_CLASS_COUNT, RunConfig, Scenario
from .dataset import cache_folder, default_store_path
from .errors import HarnessError, RunInterruptedError
from .profiles import IMAGENET_VALIDATION_COUNT, PROFILES, not_the_official_model
from .progress import Progress
from .provenance import versions
from .responses import decode
from .results import ACCURACY_LOG
from .run import RunOutcome, run
from .run_folder import read_run_file
from .submission.rounds import Round

Level: TypeAlias = Literal["ok", "warn", "fail"]

_CPUS: Final = Path("/sys/devices/system/cpu")
_CGROUP: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_GB: Final = 1e9
_IMAGE_BYTES: Final = 224 * 224 * 3
_FLOAT_BYTES: Final = 4
_RUN_BYTES: Final = 800e6
"""Of a process with LoadGen and an engine, besides the samples: weights, compiled code, the list of queries."""
_LOGS_BYTES: Final = 200e6
_CACHE_BYTES: Final = 50e6
"""Of compiled kernels."""
_BUSY: Final = 0.25
"""Load average per CPU from which other programs disturb."""
_TRIED_IMAGES: Final = 64
_FIRST_LABELS: Final = (65, 970, 230, 809, 516)
"""Of ILSVRC2012_val_00000001.JPEG and the next four, as published in caffe_ilsvrc12's val.txt."""
_FIRST_NAME: Final = "ILSVRC2012_val_00000001.JPEG"
_IMAGES_PER_CLASS: Final = 50
_OFFSETS: Final = range(-2, 3)


@dataclass(frozen=True)
class Finding:
    """What one examination found; text says what to do unless all is well."""

    level: Level
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:4} {self.name}: {self.text}"


@dataclass(frozen=True)
class DoctorConfig:
    """run: what runs would share, with its dataset and output; rules: of the round to be ready for.

    rehearsal: do not mind what only keeps runs from submission.
    """

    run: RunConfig
    rules: Round
    rehearsal: bool = False

    @property
    def unofficial(self) -> Level:
        """Of what only keeps runs from submission."""
        return "warn" if self.rehearsal else "fail"


def examine(config: DoctorConfig, progress: Progress) -> tuple[Finding, ...]:
    """Every examination, in order. Raises: RunInterruptedError."""
    examinations: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("LoadGen", lambda: _loadgen(config)),
        ("CPU", _cpu),
        ("memory", lambda: _memory(config)),
        ("disk", lambda: _disk(config)),
        ("images", lambda: _images(config)),
        ("model", lambda: _model(config)),
        ("audit.config", _audit_config),
        ("engine", lambda: _engine(config, progress)),
    )
    findings: list[Finding] = []
    for name, examination in examinations:
        progress.phase(f"examining {name}")
        findings += examination()
    return tuple(findings)


def _loadgen(config: DoctorConfig) -> Iterator[Finding]:
    official = loadgen.official_settings("resnet50", config.run.scenario)
    version = versions().get("mlcommons-loadgen", "?")
    wrong = [name for name, seed in config.rules.seeds.items() if official[name] != seed]
    if wrong:
        yield Finding(
            "fail", "LoadGen", f"{version} has not the {wrong[0]} of {config.rules.name}: install that round's"
        )
    else:
        yield Finding("ok", "LoadGen", f"{version}, seeds of {config.rules.name}")


def _cpu() -> Iterator[Finding]:
    try:
        machine = detect()
    except BackendError as error:
        yield Finding("fail", "CPU", str(error))
        return
    yield Finding("ok", "CPU", f"{machine.cpu}, up to {machine.isa.name}")
    cpus = placement.available_cores(machine)
    logical, small = len(cpus.order), cpus.cores - cpus.fast
    note = f", {small} of them small ones, used by default in Offline alone" if small else ""
    yield Finding("ok", "cores", f"{cpus.cores} physical cores{note}, {logical} logical CPUs usable")
    load = psutil.getloadavg()[0] / logical
    text = f"load average {psutil.getloadavg()[0]:.1f} on {logical} CPUs"
    yield Finding("warn", "load", f"{text}: stop other programs") if load > _BUSY else Finding("ok", "load", text)
    governors = {path.read_text().strip() for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if governors - {"performance"}:
        yield Finding("warn", "governor", f"{', '.join(sorted(governors))}: performance gives steadier results")
    elif governors:
        yield Finding("ok", "governor", "performance")
    else:
        yield Finding("ok", "governor", "not visible here")
    yield _scheduling()
    yield _throttling()
    yield _smt()
    yield from _limits(len(cpus.order))


def _scheduling() -> Finding:
    """At real-time priority a process that is long in the kernel keeps others from its CPU, those it waits for too."""
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK in (os.SCHED_FIFO, os.SCHED_RR):
        return Finding("warn", "scheduling", "real-time priority: a run may stand still for a minute; leave out chrt")
    return Finding("ok", "scheduling", "ordinary")


def _throttling() -> Finding:
    counts = [int(path.read_text()) for path in _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    if not counts:
        return Finding("ok", "throttling", "not visible here")
    if sum(counts) > 0:
        return Finding("warn", "throttling", f"{sum(counts)} times since the system started: see to the cooling")
    return Finding("ok", "throttling", "none since the system started")


def _smt() -> Finding:
    """Two threads of one core share its vector units: instances use one of them, other programs may use the other."""
    path = _CPUS / "smt/active"
    if not path.is_file():
        return Finding("ok", "SMT", "not visible here")
    if path.read_text().strip() == "1":
        return Finding("ok", "SMT", "on: instances use one CPU of each core, leave the others idle")
    return Finding("ok", "SMT", "off")


def _limits(cpus: int) -> Iterator[Finding]:
    """Of the container that this may be: a share of CPU time stops all threads in the middle of a query."""
    least = min(_quotas(), default=cpus)
    if least < cpus:
        text = f"{least:g} CPUs' time for {cpus} CPUs: threads will be stopped; bind CPUs instead"
        yield Finding("warn", "CPU quota", text)


def _quotas() -> Iterator[float]:
    """CPUs' time that this process's control group (version 2), and each group above it, may take."""
    own = _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.is_file() else []
    inside = next((line.removeprefix("0::/") for line in own if line.startswith("0::/")), "")
    group = Path(inside)
    for folder in (group, *group.parents):
        path = _CGROUP / folder / "cpu.max"
        quota, _, period = path.read_text().partition(" ") if path.is_file() else ("max", "", "")
        if quota != "max":
            yield int(quota) / int(period)


def _memory(config: DoctorConfig) -> Iterator[Finding]:
    needed, available = _samples_bytes(config) + _RUN_BYTES, psutil.virtual_memory().available
    text = f"{available / _GB:.1f} GB available, a run takes about {needed / _GB:.1f} GB"
    yield Finding("ok" if available > needed else "fail", "memory", text)


def _samples_bytes(config: DoctorConfig) -> int:
    """Of the performance set, in RAM."""
    bytes_per_value = 1 if config.run.backend in ("numba", "null") else _FLOAT_BYTES
    return config.rules.limits.performance_sample_count * _IMAGE_BYTES * bytes_per_value


def _disk(config: DoctorConfig) -> Iterator[Finding]:
    spec = PROFILES[config.run.profile].spec
    store = config.run.store_path or default_store_path(config.run.dataset_path, spec)
    try:
        images = len(read_val_map(config.run.dataset_path))
    except PreprocessingError:
        return  # told by the examination of the images
    missing = max(0, images * _IMAGE_BYTES - _bytes_in(store))
    for name, path, needed in (
        ("disk of the store", store, missing),
        ("disk of the runs", config.run.output, _LOGS_BYTES),
        ("disk of the cache", cache_folder(), _CACHE_BYTES),
    ):
        free = psutil.disk_usage(str(_existing(path))).free
        text = f"{free / _GB:.1f} GB free at {_existing(path)}, {needed / _GB:.1f} GB to be written"
        yield Finding("ok" if free > needed else "fail", name, text)


def _images(config: DoctorConfig) -> Iterator[Finding]:
    try:
        val_map = read_val_map(config.run.dataset_path, class_count=IMAGENET_CLASS_COUNT)
    except PreprocessingError as error:
        yield Finding("fail", "images", str(error))
        return
    if len(val_map) != IMAGENET_VALIDATION_COUNT:
        text = f"{len(val_map)} images, a submission answers {IMAGENET_VALIDATION_COUNT}"
        yield Finding(config.unofficial, "images", text)
        return
    yield Finding("ok", "images", f"all {len(val_map)} are there")
    yield from check_labels(val_map.files, val_map.labels, config.unofficial)


def check_labels(names: Sequence[str], labels: Sequence[int], wrong: Level = "fail") -> Iterator[Finding]:
    """Of the whole validation set: as many images of each class, and the published first labels; else it is `wrong`."""
    counts = Counter(labels)
    uneven = [label for label in range(IMAGENET_CLASS_COUNT) if counts[label] != _IMAGES_PER_CLASS]
    if uneven:
        yield Finding(
            wrong,
            "labels",
            f"class {uneven[0]} has {counts[uneven[0]]} images, not {_IMAGES_PER_CLASS}: not ImageNet's map",
        )
    elif Path(names[0]).name == _FIRST_NAME and tuple(labels[: len(_FIRST_LABELS)]) != _FIRST_LABELS:
        found = ", ".join(map(str, labels[: len(_FIRST_LABELS)]))
        yield Finding(
            wrong,
            "labels",
            f"the first are {found}, not {', '.join(map(str, _FIRST_LABELS))}: another numbering of classes",
        )
    else:
        yield Finding("ok", "labels", f"{_IMAGES_PER_CLASS} images of each class")


def _model(config: DoctorConfig) -> Iterator[Finding]:
    model = config.run.model
    if model is None:
        return
    if not model.is_file():
        yield Finding("fail", "model", f"{model}: no such file")
        return
    profile = PROFILES[config.run.profile]
    reason = not_the_official_model(profile, model)
    if reason is not None:
        yield Finding(config.unofficial, "model", reason)
    elif profile.official is None:
        yield Finding("ok", "model", f"{model.name}, not compared: profile {profile.name} has no published file")
    else:
        yield Finding("ok", "model", f"{model.name} is one of the published files to the byte, or quantised from one")


def _audit_config() -> Iterator[Finding]:
    if Path("audit.config").exists():
        yield Finding("warn", "audit.config", "lies in this folder; LoadGen of other programs would obey it: remove it")


def _engine(config: DoctorConfig, progress: Progress) -> Iterator[Finding]:
    """Short accuracy runs: the engine opens, its threads are where they should be, its labels are not shifted.

    Of our own engine one more as Offline, with larger batches: its kernels too are then in the cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            available = len(read_val_map(config.run.dataset_path))
            short = replace(
                config.run, mode="accuracy", output=Path(folder), sample_count=min(available, _TRIED_IMAGES)
            )
            begin_s, kept = time.monotonic(), _compiled(config)
            outcome = last = run(short, progress)
            if config.run.backend == "numba":
                last = run(replace(short, scenario="Offline", sample_count=1), progress)
        except PreprocessingError:
            return  # told by the examination of the images
        except RunInterruptedError:
            raise
        except HarnessError as error:
            yield Finding("fail", "engine", str(error))
            return
        seconds = time.monotonic() - begin_s
        yield Finding("ok", "engine", f"{config.run.backend} answered {short.sample_count} images in {seconds:.0f} s")
        if config.run.backend == "numba":
            yield _isa(config, outcome)
            yield _cache(kept, _compiled(config), seconds, (short.scenario, "Offline"))
        yield _measured_memory(config, last)
        yield from _threads(outcome)
        yield from _label_offset(config, outcome)


def _isa(config: DoctorConfig, outcome: RunOutcome) -> Finding:
    """What the engine says that it ran."""
    engine = read_run_file(outcome.folder)["backend"]
    used, best = detect(engine["isa"]).isa, detect().isa
    text = f"{used.name} kernels by {engine['kernels']}, {used.lanes} float32 in a vector, {engine['precision']}"
    if used.name != best.name:
        remedy = f": leave out --isa {config.run.isa}" if config.run.isa is not None else ""
        return Finding("warn", "ISA", f"{text}; this machine has {best.name}{remedy}")
    return Finding("ok", "ISA", text)


_Kernels: TypeAlias = frozenset[tuple[str, int]]
"""Files of the cache: path in it, and when it was written, in ns."""


def _compiled(config: DoctorConfig) -> _Kernels:
    """What is in the cache."""
    if config.run.backend != "numba" or config.run.kernels == "neon":
        return frozenset()
    try:
        folder = kernel_cache()
    except BackendError:
        return frozenset()  # told by the engine that cannot be opened
    return frozenset((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*.nbc"))


def _cache(before: _Kernels, after: _Kernels, seconds: float, tried: Iterable[Scenario]) -> Finding:
    """Whether a run will have to compile: after the trials one like them will not."""
    if not after:
        return Finding("ok", "JIT cache", "none is used")
    new = len(after - before)
    what = f"{new} of {len(after)} kernels were compiled just now, in less than {seconds:.0f} s" if new else "warm"
    scenarios = " and ".join(dict.fromkeys(tried))
    return Finding(
        "ok",
        "JIT cache",
        f"{what}; {len(after)} kernels in {kernel_cache()}: all that trials of {scenarios} took, another scenario or "
        "batch size may need more",
    )


def _measured_memory(config: DoctorConfig, trial: RunOutcome) -> Finding:
    """What the trial took, with the samples of a real run beside it."""
    peak, samples = int(read_run_file(trial.folder)["peak_memory_bytes"]), _samples_bytes(config)
    available = psutil.virtual_memory().available
    text = f"{(peak + samples) / _GB:.1f} GB by a trial and the samples, {available / _GB:.1f} GB available"
    return Finding("ok" if available > peak + samples else "fail", "memory, measured", text)


def _threads(outcome: RunOutcome) -> Iterator[Finding]:
    instances = read_run_file(outcome.folder)["instances"]
    stray = sum(instance["stray_thread_count"] for instance in instances)
    cores = "; ".join(",".join(map(str, instance["cores"])) for instance in instances)
    count = sum(instance["thread_count"] for instance in instances)
    if stray:
        yield Finding("fail", "threads", f"{stray} of {count} threads are not on the CPUs they were given ({cores})")
    else:
        yield Finding("ok", "threads", f"{count}, all on CPUs {cores}")


def _label_offset(config: DoctorConfig, outcome: RunOutcome) -> Iterator[Finding]:
    labels = read_val_map(config.run.dataset_path, outcome.result.accuracy_sample_count).labels
    entries = json.loads((outcome.folder / ACCURACY_LOG).read_text(encoding="ascii"))
    answers = {entry["qsl_idx"]: decode(entry["data"]) for entry in entries}
    good = {offset: sum(labels[index] == answer + offset for index, answer in answers.items()) for offset in _OFFSETS}
    best = max(good, key=lambda offset: (good[offset], offset == 0))
    text = f"{good[0]} of {len(answers)} images right"
    if best != 0 and good[best] > 2 * good[0] + 3:
        yield Finding("fail", "label offset", f"{text}, but {good[best]} if {best:+} is added to every answer")
    else:
        yield Finding("ok", "label offset", text)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
