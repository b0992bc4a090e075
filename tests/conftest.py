"""Fixtures that every package's tests share: where real models and images are, if they are here at all."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

_ARM64 = {
    "tests/backend": (
        "kernels",
        "row_kernels",
        "io_kernels",
        "strided_kernels",
        "winograd",
        "chains",
        "quantized_kernels",
        "bfloat16",
    ),
}
"""Folder -> test files that also run on an aarch64 machine, which may be emulated (tools/arm64/test)."""

_ARM64_RUNS = ("_of_every_scenario[SingleStream-numba]",)
"""How the names of the runs by LoadGen end that do so."""

_MEASURED_RUNS = "tests/harness"
"""What runs LoadGen, whose verdicts depend on time: only one of these tests at a time."""

_UNMEASURED = ("tests/harness/test_demo_assets.py", "tests/harness/test_demo_model.py")
"""What does not, of the same folder, and takes so long that the other worker had better do it."""

_APART = "tests/backend/neon/test_networks.py"
"""Tests of up to a minute, of which most compile nothing: one by one to who is nearly done."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""Children are to be interrupted by the tests, also where a shell has started pytest as a job that ignores SIGINT."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files = {config.rootpath / folder / f"test_{name}.py" for folder, names in _ARM64.items() for name in names}
    for item in items:
        if item.path in files or item.nodeid.endswith(_ARM64_RUNS):
            item.add_marker("arm64")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of `pytest -n 2`: a file's tests mostly share compiled kernels and go to one worker; so does what is timed."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            if file == _APART:
                return nodeid
            return _MEASURED_RUNS if file.startswith(f"{_MEASURED_RUNS}/") and file not in _UNMEASURED else file

    return ByFile(config, log)


def _folder_from_environment(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{what} not available: set {variable} to their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of mobilenet_v2_1.0_224.onnx and the four tiny_*.onnx."""
    return _folder_from_environment("LOADGEN_NUMBA_TEST_MODELS", "real ONNX models")


@pytest.fixture(scope="session")
def imagenet_dir() -> Path:
    """Folder in the ImageNet validation layout: JPEGs and val_map.txt."""
    return _folder_from_environment("LOADGEN_NUMBA_TEST_IMAGENET", "real ImageNet images")
