"""Whole networks on Arm, real or emulated, against what x86 computed for the same image (tools/arm64/expected)."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from backend import InferenceSession, MachineError

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(platform.machine() != "aarch64", reason="for Arm: tools/arm64/test"),
]
NUMBA = importlib.util.find_spec("numba") is not None
NETWORKS = ("mobilenet_v2_1.0_224", "resnet50_v1.5")


@pytest.mark.parametrize("kernels", ["neon", "numba"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_x86(name: str, kernels: str) -> None:
    """Within 1e-4 of the largest element, the same class, by one thread and by two the same bits."""
    folder = os.environ.get("LOADGEN_NUMBA_TEST_EXPECTED")
    if not folder or not (Path(folder) / f"{name}.npz").exists():
        pytest.skip("set LOADGEN_NUMBA_TEST_EXPECTED to the folder that tools/arm64/expected made on x86")
    if kernels == "numba" and not NUMBA:
        pytest.skip("Numba is not installed")
    expected = np.load(Path(folder) / f"{name}.npz")
    bits = set()
    for threads in (1, min(2, len(os.sched_getaffinity(0)))):
        session = InferenceSession(Path(folder) / f"{name}.onnx", kernels=kernels, threads=threads)
        outputs = session.run(None, {session.get_inputs()[0].name: expected["input"]})
        bits.add(tuple(output.tobytes() for output in outputs))
        for index, output in enumerate(outputs):
            other = expected[f"output_{index}"]
            assert output.dtype == other.dtype and output.shape == other.shape
            assert np.abs(output - other).max() <= 1e-4 * np.abs(other).max()
            if output.ndim == 2:
                assert output.argmax() == other.argmax()
    assert len(bits) == 1, "the bits depend on the number of threads"


def test_the_engine_is_chosen_by_what_is_installed() -> None:
    """kernels="auto": Numba's where it is installed, else the C library."""
    folder = os.environ.get("LOADGEN_NUMBA_TEST_EXPECTED")
    path = Path(folder or "") / f"{NETWORKS[0]}.onnx"
    if not folder or not path.exists():
        pytest.skip("needs a model: tools/arm64/test")
    if NUMBA:
        pytest.skip("compiling for Numba takes minutes under emulation; the test above does it")
    assert InferenceSession(path, threads=1).kernels == "neon"
    with pytest.raises(MachineError, match="by Numba, which is not installed"):
        InferenceSession(path, threads=1, kernels="numba")
