"""Whole networks on Arm, real or emulated, against what x86 computed for the same image (tools/arm64/expected)."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path

import numpy as np
import pytest

from backend import InferenceSession, MachineError, detect

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(platform.machine() != "aarch64", reason="for Arm: tools/arm64/test"),
]
NUMBA = importlib.util.find_spec("numba") is not None
RESNET, MOBILENET_V2 = "resnet50_v1.5", "mobilenet_v2_1.0_224"
NETWORKS = (MOBILENET_V2, RESNET)


def expected_of(network: str, kind: str = "") -> tuple[Path, dict[str, np.ndarray]]:
    """The folder, and what x86 computed. kind: "", ".int8" or ".bf16".

    What is missing in a folder fails, but for a network that the folder was made without.
    """
    folder = os.environ.get("LOADGEN_NUMBA_TEST_EXPECTED")
    if not folder:
        pytest.skip("set LOADGEN_NUMBA_TEST_EXPECTED to the folder that tools/arm64/expected made on x86")
    outputs = Path(folder) / f"{network}{kind}.npz"
    optional = network == MOBILENET_V2 and "LOADGEN_NUMBA_TEST_MODELS" not in os.environ
    if optional and not (Path(folder) / f"{network}.onnx").exists():
        pytest.skip(f"{folder} was made without LOADGEN_NUMBA_TEST_MODELS and has no {network}")
    assert outputs.exists(), f"{outputs} is missing: tools/arm64/expected {folder} makes it"
    return Path(folder), dict(np.load(outputs))


def outputs_of(path: Path, kernels: str, image: np.ndarray, precision: str = "auto") -> list[np.ndarray]:
    """By one thread and, where there are two CPUs, by two: the same bits."""
    if kernels == "numba" and not NUMBA:
        pytest.skip("Numba is not installed")
    bits, outputs = set(), []
    for threads in sorted({1, min(2, len(os.sched_getaffinity(0)))}):
        session = InferenceSession(path, kernels=kernels, threads=threads, precision=precision)
        outputs = session.run(None, {session.get_inputs()[0].name: image})
        bits.add(tuple(output.tobytes() for output in outputs))
    assert len(bits) == 1, "the bits depend on the number of threads"
    return outputs


@pytest.mark.parametrize("kernels", ["neon", "numba"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_x86(name: str, kernels: str) -> None:
    """Within 1e-4 of the largest element, the same class."""
    folder, expected = expected_of(name)
    for index, output in enumerate(outputs_of(folder / f"{name}.onnx", kernels, expected["input"])):
        other = expected[f"output_{index}"]
        assert output.dtype == other.dtype and output.shape == other.shape
        assert np.abs(output - other).max() <= 1e-4 * np.abs(other).max()
        if output.ndim == 2:
            assert output.argmax() == other.argmax()


@pytest.mark.parametrize("kernels", ["neon", "numba"])
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_is_that_of_x86_to_the_bit(name: str, kernels: str) -> None:
    folder, expected = expected_of(name, ".int8")
    outputs = outputs_of(folder / f"{name}.int8.onnx", kernels, expected["input"])
    for index, output in enumerate(outputs):
        np.testing.assert_array_equal(output, expected[f"output_{index}"])


@pytest.mark.parametrize("kernels", ["neon", "numba"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_is_near_that_of_x86(name: str, kernels: str) -> None:
    """Arm's dot products round otherwise; values between layers then fall on other sides of a rounding to eight bits.

    So outputs differ about as much as those of bfloat16 and float32 do, and no more.
    """
    if "bf16" not in detect().isa.extensions:
        pytest.skip("this CPU has no bf16")
    folder, expected = expected_of(name, ".bf16")
    exact = np.load(folder / f"{name}.npz")
    outputs = outputs_of(folder / f"{name}.onnx", kernels, expected["input"], "bf16")
    for index, output in enumerate(outputs):
        other, float32 = expected[f"output_{index}"], exact[f"output_{index}"]
        if output.dtype == np.float32:
            assert np.linalg.norm(output - float32) <= 1.5 * np.linalg.norm(other - float32)


def test_the_engine_is_chosen_by_what_is_installed() -> None:
    """kernels="auto": Numba's where it is installed, else the C library."""
    if NUMBA:
        pytest.skip("compiling for Numba takes minutes under emulation; the test above does it")
    folder, _ = expected_of(RESNET)
    path = folder / f"{RESNET}.onnx"
    assert InferenceSession(path, threads=1).kernels == "neon"
    with pytest.raises(MachineError, match="by Numba, which is not installed"):
        InferenceSession(path, threads=1, kernels="numba")
