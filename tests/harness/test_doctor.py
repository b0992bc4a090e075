"""The doctor: what it says of machines, images and engines that are not ready."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness_support import Command, write_steady_plugin

from harness import doctor
from harness.doctor import check_labels

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


def findings(command: Command, dataset: Path, *more: object) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit status; level and text by name."""
    done = command("doctor", "--dataset-path", dataset, "--quiet", *more)
    lines = [line for line in done.stdout.splitlines() if line[:4].strip() in ("ok", "warn", "fail")]
    return done.status, {line[5:].split(": ")[0]: (line[:4].strip(), line.split(": ", 1)[1]) for line in lines}


def test_a_machine_that_is_ready_for_a_rehearsal(command: Command, dataset: Path, model: Path) -> None:
    status, found = findings(command, dataset, "--model", model, "--rehearsal", "--threads", 1)
    assert (status, {level for level, _ in found.values()} <= {"ok", "warn"}) == (0, True), found
    assert found["LoadGen"][1].endswith("seeds of v6.1")
    assert found["label offset"] == ("ok", "15 of 20 images right")
    assert found["images"] == ("warn", "20 images, a submission answers 50000")
    assert "is none of the published" in found["model"][1]
    status, found = findings(command, dataset, "--model", model, "--threads", 1)
    assert (status, found["images"][0], found["model"][0]) == (1, "fail", "fail")


def test_a_rehearsal_minds_neither_count_nor_labels_but_images_that_are_not_there(
    command: Command, model: Path, tmp_path: Path
) -> None:
    (finding,) = check_labels(NAMES, [0] * 50_000, "warn")
    assert finding.level == "warn"
    (tmp_path / "val_map.txt").write_text("ILSVRC2012_val_00000001.JPEG\n")
    status, found = findings(command, tmp_path, "--model", model, "--rehearsal", "--threads", 1)
    assert (status, found["images"][0]) == (1, "fail"), found


def test_what_is_wrong_is_told(
    command: Command, dataset: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = tmp_path / "shifted"
    shutil.copytree(dataset, shifted)
    pairs = [line.split() for line in (dataset / "val_map.txt").read_text().splitlines()]
    (shifted / "val_map.txt").write_text("".join(f"{name} {(int(label) + 1) % 1000}\n" for name, label in pairs))
    (tmp_path / "audit.config").write_text("*.*.mode = 1\n")
    status, found = findings(command, shifted, "--model", model, "--rehearsal", "--round", "v6.0")
    assert status == 1
    assert found["LoadGen"][0] == "fail" and "seed of v6.0" in found["LoadGen"][1]
    assert found["label offset"][0] == "fail" and "if +1 is added" in found["label offset"][1]
    assert found["audit.config"][0] == "warn"
    write_steady_plugin(tmp_path, "broken", answer="1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    status, found = findings(command, dataset, "--backend", "broken", "--rehearsal")
    assert (status, found["engine"][0], "division by zero" in found["engine"][1]) == (1, "fail", True)
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
    group.mkdir()
    (group / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(doctor, "_CPUS", cpus)
    monkeypatch.setattr(doctor, "_CGROUP", group)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _process: os.SCHED_FIFO)
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
    (group / "cpu.max").write_text("max 100000\n")
    _, found = findings(command, dataset, "--backend", "null", "--rehearsal")
    assert (found["throttling"][1], found["SMT"][1]) == ("none since the system started", "off")
    assert "CPU quota" not in found


def test_the_cache_of_compiled_kernels(dataset: Path, model: Path, tmp_path: Path) -> None:
    """Empty at first; then nothing is compiled. In processes of their own, since a process has but one cache folder."""
    command = [sys.executable, "-m", "harness", "doctor", "--dataset-path", dataset, "--model", model, "--rehearsal",
               "--threads", "1", "--quiet"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CACHE_HOME": str(tmp_path / "xdg")}

    def told() -> str:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first, then = told(), told()
    (count,) = set(re.findall(r"^ok   JIT cache: (\d+) of \1 kernels were compiled just now", first, re.MULTILINE))
    assert f"ok   JIT cache: warm; nothing is left to compile: {count} kernels in {tmp_path}/xdg/" in then
    assert re.search(r"^ok   ISA: \w+ kernels by numba, \d+ float32 in a vector, fp32$", then, re.MULTILINE)
    kernels = list((tmp_path / "xdg/loadgen-numba/kernels").rglob("*.nbc"))
    assert len(kernels) == int(count)
