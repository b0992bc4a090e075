"""Whole campaigns with LoadGen: killed and resumed, backed off, refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from harness_support import Command, run_record, write_steady_plugin
from submission_support import quantised_model, snapshot
from test_package import SCENARIO_FILES

HANG_GUARD_S = 240
ROOT = Path(__file__).parents[2]


def campaign_flags(dataset: Path, output: Path, backend: str = "steady") -> list[str]:
    """A short rehearsal of one scenario, from which the others are inferred."""
    flags = (
        "campaign", "--backend", backend, "--dataset-path", dataset, "--system-name", "box1", "--submitter", "Acme",
        "--output", output, "--rehearsal", "--infer", "--time", 0.6, "--seconds", 0.2, "--quiet",
    )  # fmt: skip
    return list(map(str, flags))


def status_of(folder: Path) -> str:
    """What run.json says, if it is there."""
    try:
        return str(run_record(folder)["status"])
    except (OSError, ValueError):
        return "absent"


def has_begun(folder: Path) -> bool:
    """Whether a run has, or is over already."""
    return status_of(folder) != "absent"


TOO_BUSY = " failed twice"
MEASURED_AGAIN = "measuring that again"
"""What a campaign says if other programs make tests of milliseconds differ by 10 %: it may go on after the first."""


DEATHS = {signal.SIGKILL: (-9,), signal.SIGINT: (130,), signal.SIGTERM: (143, -15)}
"""Exit statuses. A SIGTERM between two runs, when there is nothing to tidy up, ends the process at once."""


class Interrupted:
    """The same campaign, called again and again. Methods return what was said meanwhile."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._command, self._environment, self._log = command, environment, log
        log.touch()

    def _said_since(self, length: int) -> str:
        return self._log.read_bytes()[length:].decode()

    def _start(self) -> tuple[subprocess.Popen[str], int]:
        """The process, and how long the log was before."""
        length = self._log.stat().st_size
        with self._log.open("a") as log:
            return subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log, text=True), length

    def _too_busy(self, process: subprocess.Popen[str], length: int) -> bool:
        """Whether a call that has ended failed because of other programs; for nothing else may it fail."""
        said = self._said_since(length)
        return process.returncode == 1 and TOO_BUSY in said.splitlines()[-1]

    def kill_when(self, reached: Callable[[], bool], deadly: signal.Signals) -> str:
        """As soon as it has come so far."""
        deadline, first_length = time.monotonic() + HANG_GUARD_S, self._log.stat().st_size
        while True:
            process, length = self._start()
            while process.poll() is None:
                if reached():
                    process.send_signal(deadly)
                    assert process.wait(HANG_GUARD_S) in DEATHS[deadly], self._said_since(length)
                    return self._said_since(first_length)
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert self._too_busy(process, length), self._said_since(length)

    def to_the_end(self) -> str:
        """The check of a rehearsal of short runs finds some, which is a failure; that of durations comes last."""
        first_length = self._log.stat().st_size
        for _ in range(3):
            process, length = self._start()
            process.wait(HANG_GUARD_S)
            if "min-duration: " in self._said_since(length):
                assert process.returncode == 1
                return self._said_since(first_length)
            assert self._too_busy(process, length), self._said_since(length)
        pytest.fail(f"the machine is too busy: {self._said_since(first_length)}")


NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")


def without_measurements(tree: Path) -> dict[str, str]:
    """Relative path -> what two campaigns have in common.

    That is every byte, but for numbers in what LoadGen logs of a performance run and in texts that quote it; and TEST01
    logs answers to samples that it draws, as many as there is time for.
    """
    found = {}
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        name = path.relative_to(tree).as_posix()
        measured = path.name in ("user.conf", "README.md") or path.name.startswith(("mlperf_log_", "verify_"))
        if "TEST01/accuracy" in name:
            found[name] = ""
        elif measured and "/src/" not in name and path.name != "mlperf_log_accuracy.json":
            found[name] = NUMBER.sub("#", path.read_text())
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_a_campaign_killed_at_five_moments_ends_with_the_same_tree(dataset: Path, cache: Path, tmp_path: Path) -> None:
    """As an undisturbed one; and what was finished before a kill is not run again."""
    write_steady_plugin(tmp_path, "steady", "0.03")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "XDG_CACHE_HOME": str(cache)}

    def campaign(output: Path) -> Interrupted:
        command = [sys.executable, "-m", "harness", *campaign_flags(dataset, output)]
        return Interrupted(command, environment, tmp_path / f"{output.name}.log")

    output = tmp_path / "killed"
    runs, killed = output / "runs/resnet50/SingleStream", campaign(output)
    moments: list[tuple[Callable[[], bool], signal.Signals]] = [
        (lambda: has_begun(output / "tuning/tuning/SingleStream/performance"), signal.SIGKILL),
        (lambda: has_begun(runs / "performance"), signal.SIGINT),
        (lambda: has_begun(runs / "accuracy"), signal.SIGTERM),
        (lambda: has_begun(runs / "TEST01"), signal.SIGKILL),
        (lambda: (runs / "TEST04/verify_performance.txt").exists(), signal.SIGKILL),
    ]
    kept: dict[str, dict[str, str]] = {}

    def none_was_run_again(said: str) -> None:
        again = {kind for kind, before in kept.items() if snapshot(runs / kind) != before}
        assert again <= ({"performance"} if MEASURED_AGAIN in said else set()), said

    for reached, deadly in moments:
        said = killed.kill_when(reached, deadly)
        none_was_run_again(said)
        assert not (output / "submission").exists()
        finished = [kind for kind in ("performance", "accuracy") if status_of(runs / kind) == "finished"]
        kept = {kind: snapshot(runs / kind) for kind in finished}
    assert set(kept) == {"performance", "accuracy"} or (set(kept) == {"accuracy"} and MEASURED_AGAIN in said)
    none_was_run_again(killed.to_the_end())
    results = output / "submission/closed/Acme/results/box1/resnet50"
    assert {path.name for path in results.iterdir()} == {"SingleStream", "MultiStream", "Offline"}
    assert all(set(snapshot(folder)) == SCENARIO_FILES for folder in results.iterdir())
    assert not list(output.rglob(".*")) and not list(tmp_path.rglob("audit.config"))
    tree = snapshot(output / "submission")
    killed.to_the_end()
    assert snapshot(output / "submission") == tree

    undisturbed = campaign(tmp_path / "undisturbed")
    undisturbed.to_the_end()
    assert without_measurements(tmp_path / "undisturbed/submission") == without_measurements(output / "submission")


def test_a_load_that_turns_out_wrong_is_changed_once(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoadGen ends a stream that is more than twice as fast as its hint with an error."""
    write_steady_plugin(tmp_path, "steady", "0.002")
    monkeypatch.syspath_prepend(tmp_path)
    planned = command(*campaign_flags(dataset, tmp_path / "out"), "--plan-only")
    assert planned.status == 0, planned.stderr
    assert planned.stdout.startswith("ok   LoadGen: ")
    assert [line.split()[1:3] for line in planned.stdout.splitlines()[-5:-1]] == [
        ["SingleStream", kind] for kind in ("performance", "accuracy", "TEST01", "TEST04")
    ]
    assert planned.stdout.splitlines()[-1].startswith("to do: 4 of 4 runs, ")
    assert not (tmp_path / "out/runs").exists()
    load = tmp_path / "out/load/SingleStream.conf"
    tuned = float(load.read_text().split(" = ")[-1])
    assert tuned > 1.6
    load.write_text(f"*.SingleStream.target_latency = {5 * tuned}\n")
    done = command(*campaign_flags(dataset, tmp_path / "out"))
    assert "once more: queries take less than half of the expected latency" in done.stdout
    assert 1.6 < float(load.read_text().split(" = ")[-1]) < 5 * tuned
    assert "SingleStream performance: " in done.stdout


REFUSED = {
    "other settings": (("--instances", "1"), "holds a campaign with instances None, now 1"),
    "no rehearsal, wrong images": (("-rehearsal",), "holds 20 images, a submission answers 50000"),
    "no rehearsal, short runs": (("-rehearsal", "--time", "5"), "add --rehearsal"),
    "datacenter": (("--scenarios", "datacenter", "-infer"), "has none in the closed division"),
    "no such model": (("--model", "absent.onnx"), "absent.onnx: no such file"),
    "no such description": (("--calibration", "absent.md"), "--calibration absent.md: No such file or directory"),
    "an empty description": (("--calibration", "/dev/null"), "--calibration /dev/null: is empty"),
    "ranges from nowhere": (("--model", "ranges.onnx"), "/ranges.onnx: is quantised, and no record"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_anything_runs(name: str, command: Command, dataset: Path, tmp_path: Path) -> None:
    more, reason = REFUSED[name]
    output = tmp_path / "out"
    output.mkdir()
    flags = [flag for flag in campaign_flags(dataset, output, "null") if f"-{flag.lstrip('-')}" not in more]
    if "-rehearsal" in more and "--time" not in more:
        position = flags.index("--time")
        del flags[position : position + 2]
    if name == "other settings":
        first = command(*campaign_flags(dataset, output, "null"), "--plan-only")
        assert first.status == 0, first.stderr
    if name == "ranges from nowhere":
        onnx.save(quantised_model(), tmp_path / "ranges.onnx")
    before = snapshot(output)
    done = command(*flags, *(flag for flag in more if not flag.startswith("-") or flag.startswith("--")))
    assert (done.status, reason in done.stderr) == (2, True), done.stderr
    assert snapshot(output) == before


def test_the_official_campaign_is_planned_before_it_begins(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --time: ten minutes a performance run, from tuning runs of a second."""
    write_steady_plugin(tmp_path, "steady", "0.01")
    monkeypatch.syspath_prepend(tmp_path)
    flags = campaign_flags(dataset, tmp_path / "out")
    position = flags.index("--time")
    del flags[position : position + 2]
    done = command(*flags, "--plan-only")
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[-5].split() == ["1", "SingleStream", "performance", "10:10"]
    load = json.loads((tmp_path / "out/load/SingleStream.json").read_text())
    assert load["duration_s"] == pytest.approx(600, rel=0.1)
