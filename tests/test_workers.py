"""How `pytest -n 2` shares out the tests, by conftest.py: what is timed is never beside other timed tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TEST = """
import os
import pathlib
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    worker = pathlib.Path(__file__).with_suffix("." + os.environ["PYTEST_XDIST_WORKER"])
    worker.touch()
"""


def test_the_files_that_are_named_are_there(pytestconfig: pytest.Config) -> None:
    conftest = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    assert all((pytestconfig.rootpath / name).is_file() for name in (*conftest._UNMEASURED, conftest._APART))


def test_all_that_is_timed_goes_to_one_worker_and_files_stay_whole(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    folder = tmp_path / "tests"
    names = ("harness/test_a.py", "harness/test_b.py", "harness/test_c.py", "backend/test_d.py", "test_e.py")
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEST)
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\nmarkers = arm64\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    workers = {file.stem: [found.suffix for found in file.parent.glob(f"{file.stem}.gw*")] for file in files}
    assert all(len(found) == 1 for found in workers.values()), workers
    assert workers["test_a"] == workers["test_b"] == workers["test_c"]
    assert len({found[0] for found in workers.values()}) == 2, "one of the two workers had nothing to do"
