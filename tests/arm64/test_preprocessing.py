"""Preprocessing on Arm, real or emulated, against the bytes that x86 made of the same files (tools/arm64/expected)."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from preprocessing import IMAGENET, MOBILENET, RESIZER, preprocess_bytes

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(platform.machine() != "aarch64", reason="for Arm: tools/arm64/test"),
]


@pytest.mark.parametrize("spec", [IMAGENET, MOBILENET], ids=lambda spec: spec.interpolation)
def test_pixels_are_those_of_x86(spec: object) -> None:
    """Decoding, resizing and cropping, to the byte, by Numba or where it is missing by NumPy."""
    folder = os.environ.get("LOADGEN_NUMBA_TEST_EXPECTED")
    if not folder:
        pytest.skip("set LOADGEN_NUMBA_TEST_EXPECTED to the folder that tools/arm64/expected made on x86")
    assert ("numba" if importlib.util.find_spec("numba") else "numpy") == RESIZER
    pictures = np.load(Path(folder) / "pictures.npz")
    files = [name for name in pictures.files if name.startswith("jpeg_")]
    assert files
    for name in files:
        got = preprocess_bytes(pictures[name].tobytes(), name, spec)  # type: ignore[arg-type]
        expected = pictures[name.replace("jpeg", spec.interpolation)]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(got, expected, err_msg=name)
