"""Runs that do not end well: a failing engine, signals, killed processes. No hang, marked, never scored."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness_support import Command, run_record, write_plugin, write_steady_plugin

from harness.config import RunConfig
from harness.errors import RunInterruptedError
from harness.progress import Quiet
from harness.run import run

HANG_GUARD_S = 60
INTERRUPT_LIMIT_S = 2.0
"""How long a run may take to end after Ctrl-C."""

BROKEN_PLUGIN = """
import numpy as np

class Runner:
    calls = 0

    def prepare(self, images):
        return images

    def predict(self, samples):
        Runner.calls += 1
        if Runner.calls > {calls_that_work}:
            raise RuntimeError("the third\\nscrew is loose")
        return np.zeros(len(samples) {wrong}, np.int64)

    def describe(self):
        return {{"engine": "broken"}}

def open_runner(request):
    return Runner()
"""
WARM_UP_CALLS = 5
"""The harness times so many inferences of one image before LoadGen starts."""


def write_broken_plugin(folder: Path, calls_that_work: int, wrong: str = "") -> None:
    """A backend `broken`."""
    write_plugin(folder, "broken", BROKEN_PLUGIN.format(calls_that_work=calls_that_work, wrong=wrong))


def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path: Path) -> None:
    """A library that takes for ever to import stands in for all of them."""
    (tmp_path / "click.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "--help"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=HANG_GUARD_S)
    assert (process.returncode, errors) == (130, "error: interrupted by SIGINT\n")


@pytest.mark.parametrize("scenario", ["SingleStream", "Offline"])
@pytest.mark.parametrize("mode", [("--accuracy",), ("--time", "30")])
def test_a_failing_engine_ends_the_run_at_once(
    scenario: str,
    mode: tuple[str, ...],
    command: Command,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_broken_plugin(tmp_path, WARM_UP_CALLS + 3)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ("run", "--backend", "broken", "--dataset-path", dataset, "--scenario", scenario, *mode)
    done = command(*flags, "--instances", 1, "--max-batchsize", 1)
    assert done.status == 1
    assert done.stderr.splitlines()[-1].startswith("error: RuntimeError: the third screw is loose; marked failed in ")
    assert "Traceback" not in done.stderr
    folder = tmp_path / "reports/runs/resnet50" / scenario / ("accuracy" if mode == ("--accuracy",) else "performance")
    assert run_record(folder)["status"] == "failed"
    assert "screw" in run_record(folder)["error"]
    scored = command("accuracy", folder)
    assert (scored.status, scored.stdout) == (2, "")
    assert "'failed'" in scored.stderr


@pytest.mark.parametrize("mode", [("--accuracy",), ("--time", "0.2")])
def test_an_error_that_loadgen_logs_fails_the_run(
    mode: tuple[str, ...], command: Command, dataset: Path, tmp_path: Path
) -> None:
    """A real one: two compliance tests at once, which LoadGen logs as an error and then runs all the same."""
    audit = tmp_path / "audit"
    audit.write_text("*.*.performance_issue_unique = 1\n*.*.performance_issue_same = 1\n")
    done = command(
        "run", "--backend", "null", "--dataset-path", dataset, "--scenario", "SingleStream", *mode,
        "--audit-conf", audit,
    )  # fmt: skip
    (folder,) = (tmp_path / "reports/runs/resnet50/SingleStream").iterdir()
    assert '"is_error": true' in (folder / "mlperf_log_detail.txt").read_text()
    assert (done.status, done.stdout) == (1, "")
    assert "error: LoadGen logged an error: error_invalid_test_settings" in done.stderr.splitlines()[-1]
    assert run_record(folder)["status"] == "failed"
    assert not (folder / "accuracy.txt").exists()


@pytest.mark.parametrize("fails", [False, True], ids=["VALID", "an error of LoadGen's"])
def test_a_file_beside_the_logs_that_cannot_be_written_changes_no_verdict(
    fails: bool, command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine makes folders where the files would be, as soon as there is a log."""
    folder = tmp_path / "out/resnet50/SingleStream/performance"
    blocked = [str(folder / name) for name in ("forecasts.csv", "timings.json")]
    begun = f"os.path.exists({str(folder / 'mlperf_log_detail.txt')!r})"
    block = f"{begun} and [os.makedirs(path, exist_ok=True) for path in {blocked}]"
    write_steady_plugin(tmp_path, "blocking", f"(os := __import__('os'), {block}, 0.001)[-1]")
    monkeypatch.syspath_prepend(tmp_path)
    audit = tmp_path / "audit"
    audit.write_text("*.*.performance_issue_unique = 1\n*.*.performance_issue_same = 1\n")
    done = command(
        "run", "--backend", "blocking", "--dataset-path", dataset, "--time", 0.5, "--output", tmp_path / "out",
        *(("--audit-conf", audit) if fails else ()),
    )  # fmt: skip
    warned = [line for line in done.stderr.splitlines() if "Is a directory; the result is complete without it" in line]
    record = run_record(folder)
    assert [line.split("/")[-1].split(":")[0] for line in warned] == ["forecasts.csv", "timings.json"], done.stderr
    assert (done.status, record["status"]) == ((1, "failed") if fails else (0, "finished"))
    assert ("LoadGen logged an error: error_invalid_test_settings" in done.stderr.splitlines()[-1]) == fails
    assert fails or record["result"]["valid"] is True


def test_an_answer_of_the_wrong_shape_is_a_failure_and_debug_shows_where(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_broken_plugin(tmp_path, 10**9, wrong="+ 1")
    monkeypatch.syspath_prepend(tmp_path)
    flags = ("run", "--backend", "broken", "--dataset-path", dataset, "--scenario", "Offline", "--accuracy", "--debug")
    done = command(*flags)
    assert done.status == 1
    assert "answered" in done.stderr.splitlines()[-1]
    assert "sut.py" in done.stderr


@contextlib.contextmanager
def long_run(cache: Path, dataset: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process, Path]]:
    """A run in the middle of its test: (process, the child that runs LoadGen, folder of the run)."""
    flags = ("run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Server", "--qps", 50, "--time", 100)
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *map(str, flags)],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run_folder = folder / "reports/runs/resnet50/Server/performance"
    try:
        deadline = time.monotonic() + HANG_GUARD_S
        while not (run_folder / "mlperf_log_detail.txt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the test did not start"
            time.sleep(0.05)
        (child,) = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        yield process, child, run_folder
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_ctrl_c_ends_the_run_within_two_seconds(cache: Path, dataset: Path, tmp_path: Path, command: Command) -> None:
    with long_run(cache, dataset, tmp_path) as (process, child, folder):
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole group gets it
        _, errors = process.communicate(timeout=INTERRUPT_LIMIT_S)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "error: interrupted by SIGINT"
        assert "Traceback" not in errors
        assert not child.is_running()
    assert run_record(folder)["status"] == "interrupted"
    assert (folder / "mlperf_log_detail.txt").exists()
    scored = command("accuracy", folder)
    assert scored.status == 2
    assert "'interrupted'" in scored.stderr


def test_ctrl_c_before_the_child_is_started(dataset: Path, tmp_path: Path) -> None:
    """There is no process to end then."""

    class InterruptAtOnce(Quiet):
        def phase(self, text: str) -> None:
            if "opening null" in text:
                signal.raise_signal(signal.SIGINT)

    config = RunConfig(
        name="resnet50",
        profile="resnet50",
        scenario="Offline",
        mode="performance",
        backend="null",
        model=None,
        dataset_path=dataset,
        output=tmp_path,
    )
    with pytest.raises(RunInterruptedError, match=r"^interrupted by SIGINT$"):
        run(config, InterruptAtOnce())
    assert not list(tmp_path.rglob("mlperf_log_detail.txt"))


def test_a_killed_parent_leaves_no_child_behind(cache: Path, dataset: Path, tmp_path: Path, command: Command) -> None:
    with long_run(cache, dataset, tmp_path) as (process, child, folder):
        process.kill()
        child.wait(timeout=HANG_GUARD_S)
    assert run_record(folder)["status"] == "running"
    assert command("accuracy", folder).status == 2
    flags = ("run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Server", "--qps", 500, "--time", 0.5)
    again = command(*flags)
    assert again.status == 0, again.stderr
    assert run_record(folder)["status"] == "finished"


def test_a_killed_child_is_a_failed_run(cache: Path, dataset: Path, tmp_path: Path) -> None:
    with long_run(cache, dataset, tmp_path) as (process, child, folder):
        child.kill()
        _, errors = process.communicate(timeout=HANG_GUARD_S)
    assert process.returncode == 1
    assert "ended by SIGKILL" in errors.splitlines()[-1]
    assert run_record(folder)["status"] == "failed"


def test_a_folder_in_use_is_refused_and_left_alone(
    cache: Path, dataset: Path, tmp_path: Path, command: Command
) -> None:
    with long_run(cache, dataset, tmp_path) as (_, _, folder):
        before = sorted(folder.iterdir())
        second = command(
            "run", "--backend", "null", "--dataset-path", dataset, "--scenario", "Server", "--qps", 1, "--time", 1
        )
        assert second.status == 2
        assert "a run is going on" in second.stderr
        assert sorted(folder.iterdir()) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A real file system of its own, filled up to so many free bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")

    def fill(free_bytes: int) -> Path:
        system = os.statvfs(folder)
        (folder / "ballast").write_bytes(bytes(system.f_bavail * system.f_frsize - free_bytes))
        return folder

    yield fill
    subprocess.run(["umount", str(folder)], check=True)


FLAGS_OF_FULL_DISKS = ("run", "--backend", "null", "--scenario", "Offline", "--accuracy", "--output", "disk")


@pytest.mark.parametrize("free_kib", [0, 4, 60], ids="{} KiB".format)
def test_a_full_disk_is_refused_before_anything_is_written(
    free_kib: int, small_disk: Callable[[int], Path], command: Command, dataset: Path
) -> None:
    disk = small_disk(free_kib << 10)
    done = command(*FLAGS_OF_FULL_DISKS, "--dataset-path", dataset)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        f"error: cannot write to output folder {disk}/resnet50/Offline/accuracy: No space left on device; "
        "choose another with --output"
    )
    assert [path.name for path in disk.iterdir()] == ["ballast"]


@pytest.mark.parametrize("free_kib", [68, 72, 76, 88, 96], ids="{} KiB".format)
def test_a_disk_that_fills_up_fails_the_run(
    free_kib: int, small_disk: Callable[[int], Path], command: Command, dataset: Path
) -> None:
    """In the first run.json, in the detail log at its beginning and later, in the summary: LoadGen notices none."""
    disk = small_disk(free_kib << 10)
    folder = disk / "resnet50/Offline/accuracy"
    done = command(*FLAGS_OF_FULL_DISKS, "--dataset-path", dataset)
    assert (done.status, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ") and line.endswith(f"; marked failed in {folder}")
    assert "No space left on device" in line or "the disk is full, choose another with --output" in line
    assert run_record(folder)["status"] == "failed"
    assert not any(path.name.startswith(".") for path in folder.iterdir()), "what was held back is given back"
    (disk / "ballast").unlink()
    scored = command("accuracy", folder)
    assert (scored.status, scored.stdout) == (2, "")
    assert "'failed'" in scored.stderr
    assert not (folder / "accuracy.txt").exists()
