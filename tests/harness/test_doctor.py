"""The doctor: what it says of machines, images and engines that are not ready."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness_support import Command, write_steady_plugin

from harness import doctor
from harness.config import RunConfig
from harness.doctor import check_labels
from harness.submission.rounds import load_round

NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
PUBLISHED = (65, 970, 230, 809, 516)


def imagenet_labels(first: tuple[int, ...]) -> list[int]:
    """50 of each class, beginning with these."""
    left = dict.fromkeys(range(1000), 50)
    for label in first:
        left[label] -= 1
    return [*first, *(label for label, count in left.items() for _ in range(count))]


def test_labels_of_imagenet() -> None:
    (finding,) = check_labels(NAMES, imagenet_labels(PUBLISHED))
    assert finding.level == "ok"
    (finding,) = check_labels(NAMES, imagenet_labels((490, 361, 171, 822, 297)))  # the devkit's own numbers
    assert finding.level == "fail" and "another numbering" in finding.text
    (finding,) = check_labels(NAMES, [label if label else 1 for label in imagenet_labels(PUBLISHED)])
    assert finding.level == "fail" and "class 0 has 0 images" in finding.text


Findings = dict[str, tuple[str, str]]


def by_name(told: str) -> Findings:
    """Level and text of each finding."""
    lines = [line for line in told.splitlines() if line[:4].strip() in ("ok", "warn", "fail")]
    return {line[5:].split(": ")[0]: (line[:4].strip(), line.split(": ", 1)[1]) for line in lines}


def findings(command: Command, dataset: Path, *more: object) -> tuple[int, Findings]:
    """Exit status; level and text by name."""
    done = command("doctor", "--dataset-path", dataset, "--quiet", *more)
    return done.status, by_name(done.stdout)


@dataclass(frozen=True)
class User:
    """Who has a cache of kernels; each call is a process of its own, since a process has but one cache folder."""

    home: Path
    model: Path

    def doctor(self, dataset: Path, *more: object) -> tuple[int, Findings]:
        """As `findings`, of one thread."""
        command = [sys.executable, "-m", "harness", "doctor", "--dataset-path", dataset, "--model", self.model,
                   "--threads", 1, "--quiet", *more]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CACHE_HOME": str(self.home)}
        done = subprocess.run(
            list(map(str, command)), env=environment, cwd=self.home, capture_output=True, text=True, timeout=240
        )
        return done.returncode, by_name(done.stdout)

    def kernels(self) -> dict[str, int]:
        """Path in the cache and time of writing of every compiled kernel."""
        folder = self.home / "loadgen-numba/kernels"
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory, model: Path) -> User:
    """One whose cache is empty before the first call."""
    return User(tmp_path_factory.mktemp("home"), model)


@pytest.fixture(scope="module")
def first_told(user: User, dataset: Path) -> Findings:
    """With an empty cache, for a rehearsal."""
    status, found = user.doctor(dataset, "--rehearsal")
    assert status == 0, found
    return found


def test_a_machine_that_is_ready_for_a_rehearsal(first_told: Findings) -> None:
    assert {level for level, _ in first_told.values()} <= {"ok", "warn"}
    assert first_told["LoadGen"][1].endswith("seeds of v6.1")
    assert first_told["label offset"] == ("ok", "15 of 20 images right")
    assert first_told["images"] == ("warn", "20 images, a submission answers 50000")
    assert "is none of the published" in first_told["model"][1]
    assert re.fullmatch(r"\w+ kernels by numba, \d+ float32 in a vector, fp32", first_told["ISA"][1])


def test_ctrl_c_is_no_finding(dataset: Path, model: Path) -> None:
    """It arrives while the trial is opening, and ends the command as it ends every other."""
    command = [sys.executable, "-m", "harness", "doctor", "--dataset-path", dataset, "--model", model, "--rehearsal"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = ""
    while "warming up" not in told:
        told = process.stderr.readline()
        assert told, "it ended without a trial"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "error: interrupted by SIGINT")
    assert "engine" not in output


def test_what_was_compiled_is_not_compiled_again_and_is_told(first_told: Findings, user: User, dataset: Path) -> None:
    """Counted by what lies in the cache; the second call asks for a submission, for which this is no machine."""
    before = user.kernels()
    count = len(before)
    where = f"{count} kernels in {user.home}/loadgen-numba/kernels"
    assert count > 0
    assert first_told["JIT cache"][1].startswith(f"{count} of {count} kernels were compiled just now, in less than ")
    assert f"; {where}" in first_told["JIT cache"][1]
    status, found = user.doctor(dataset)
    assert user.kernels() == before
    assert found["JIT cache"][1].startswith(f"warm; {where}")
    assert found["JIT cache"][1].endswith(
        ": all that trials of SingleStream and Offline took, another scenario or batch size may need more"
    )
    assert (status, found["images"][0], found["model"][0]) == (1, "fail", "fail")


@pytest.mark.parametrize(("asked", "remedy"), [("lesser", ": leave out --isa lesser"), (None, "")])
def test_kernels_of_a_lesser_isa_are_told(
    asked: str | None, remedy: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by a flag, or by a file that describes another machine."""
    engine = {"isa": "lesser", "kernels": "numba", "precision": "fp32"}
    (tmp_path / "run.json").write_text(json.dumps({"backend": engine}))
    monkeypatch.setattr(doctor, "detect", lambda isa="best": SimpleNamespace(isa=SimpleNamespace(name=isa, lanes=8)))
    shared = RunConfig("r", "resnet50", "SingleStream", "performance", "numba", None, dataset, tmp_path, isa=asked)
    outcome = SimpleNamespace(folder=tmp_path)
    found = doctor._isa(doctor.DoctorConfig(shared, load_round("v6.1")), outcome)  # type: ignore[arg-type]
    assert found.level == "warn"
    assert found.text == f"lesser kernels by numba, 8 float32 in a vector, fp32; this machine has best{remedy}"


def test_a_kernel_that_is_compiled_anew_counts(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one name lie in several folders of the cache, and a stale one is replaced."""
    monkeypatch.setattr(doctor, "kernel_cache", lambda: tmp_path)
    shared = RunConfig("r", "resnet50", "SingleStream", "performance", "numba", None, dataset, tmp_path)
    config = doctor.DoctorConfig(shared, load_round("v6.1"))
    told = []
    for name, written_ns in (("a/k.nbc", 1), ("b/k.nbc", 1), ("b/k.nbc", 2), (None, 0)):
        before = doctor._compiled(config)
        if name is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
            os.utime(tmp_path / name, ns=(written_ns, written_ns))
        text = doctor._cache(before, doctor._compiled(config), 1.0, ["SingleStream"]).text
        told.append(text.split(" kernels")[0].split(";")[0])
    assert told == ["1 of 1", "1 of 2", "1 of 2", "warm"]


def test_a_rehearsal_minds_neither_count_nor_labels_but_images_that_are_not_there(
    command: Command, model: Path, tmp_path: Path
) -> None:
    (finding,) = check_labels(NAMES, [0] * 50_000, "warn")
    assert finding.level == "warn"
    (tmp_path / "val_map.txt").write_text("ILSVRC2012_val_00000001.JPEG\n")
    status, found = findings(command, tmp_path, "--model", model, "--rehearsal", "--threads", 1)
    assert (status, found["images"][0]) == (1, "fail"), found


def test_what_is_wrong_is_told(
    command: Command, dataset: Path, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = tmp_path / "shifted"
    shutil.copytree(dataset, shifted)
    pairs = [line.split() for line in (dataset / "val_map.txt").read_text().splitlines()]
    (shifted / "val_map.txt").write_text("".join(f"{name} {(int(label) + 1) % 1000}\n" for name, label in pairs))
    (user.home / "audit.config").write_text("*.*.mode = 1\n")
    status, found = user.doctor(shifted, "--rehearsal", "--round", "v6.0")
    (user.home / "audit.config").unlink()
    assert status == 1
    assert found["LoadGen"][0] == "fail" and "seed of v6.0" in found["LoadGen"][1]
    assert found["label offset"][0] == "fail" and "if +1 is added" in found["label offset"][1]
    assert found["audit.config"][0] == "warn"
    write_steady_plugin(tmp_path, "broken", answer="1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    status, found = findings(command, dataset, "--backend", "broken", "--rehearsal")
    assert (status, found["engine"][0], "division by zero" in found["engine"][1]) == (1, "fail", True)
    status, found = findings(
        command, dataset, "--backend", "null", "--profile", "mobilenet", "--model", user.model, "--rehearsal"
    )
    assert found["model"] == ("ok", f"{user.model.name}, not compared: profile mobilenet has no published file")
    status, found = findings(command, tmp_path / "absent", "--backend", "null", "--rehearsal")
    assert found["images"][1].startswith(f"{tmp_path}/absent: no such folder")
    assert "disk of the store" not in found and "engine" not in found


def test_what_the_system_says_of_its_cpus(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop in a container, by files as Linux has them."""
    cpus, group = tmp_path / "cpu", tmp_path / "cgroup"
    for name, text in (
        ("cpu0/cpufreq/scaling_governor", "powersave"),
        ("cpu0/thermal_throttle/core_throttle_count", "3"),
        ("cpu1/thermal_throttle/core_throttle_count", "4"),
        ("smt/active", "1"),
    ):
        (cpus / name).parent.mkdir(parents=True, exist_ok=True)
        (cpus / name).write_text(text + "\n")
    (group / "system.slice/tests.scope").mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group / "system.slice/cpu.max").write_text("50000 100000\n")
    (group / "system.slice/tests.scope/cpu.max").write_text("80000 100000\n")
    (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/system.slice/tests.scope\n")
    monkeypatch.setattr(doctor, "_CPUS", cpus)
    monkeypatch.setattr(doctor, "_CGROUP", group)
    monkeypatch.setattr(doctor, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getscheduler", lambda _process: os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)
    status, found = findings(command, dataset, "--backend", "null", "--rehearsal")
    assert status == 0, found
    assert found["scheduling"][0] == "warn" and found["scheduling"][1].startswith("real-time priority")
    assert found["governor"] == ("warn", "powersave: performance gives steadier results")
    assert found["throttling"] == ("warn", "7 times since the system started: see to the cooling")
    assert found["SMT"] == ("ok", "on: instances use one CPU of each core, leave the others idle")
    assert found["CPU quota"][0] == "warn" and found["CPU quota"][1].startswith("0.5 CPUs' time for ")
    (cpus / "cpu0/thermal_throttle/core_throttle_count").write_text("0\n")
    (cpus / "cpu1/thermal_throttle/core_throttle_count").write_text("0\n")
    (cpus / "smt/active").write_text("0\n")
    (group / "system.slice/cpu.max").write_text("max 100000\n")
    (tmp_path / "own").write_text("0::/\n")
    _, found = findings(command, dataset, "--backend", "null", "--rehearsal")
    assert (found["throttling"][1], found["SMT"][1]) == ("none since the system started", "off")
    assert "CPU quota" not in found
