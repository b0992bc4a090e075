"""Fixtures that every package's tests share: where real models and images are, if they are here at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
