"""Whole networks by the C library against onnxruntime: in this process on Arm, else under an emulator.

ResNet50 is the demo's, which the harness makes; tools/arm64/test has it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from plan_runner import KERNELS, MACHINE, run_plan
from qdq_models import quantized_by_onnxruntime
from rounded_twin import rounded_twin
from test_real_models import LOGITS, TOLERANCE, realistic, theirs

from backend import InferenceSession
from backend.graph.onnx_reader import read_model
from backend.graph.passes import run_passes
from backend.graph.prune import prune
from backend.plan.planner import make_plan

QUANTIZED = ("mobilenet_v2_1.0_224", "tiny_resnet8")

pytestmark = pytest.mark.skipif(KERNELS != "neon", reason="needs the C library: tools/arm64/test --kernels")


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_onnxruntimes(name: str, models_dir: Path) -> None:
    """One image by one thread and by two: the same bits, near onnxruntime's."""
    path, images = models_dir / f"{name}.onnx", realistic(name)[:1]
    graph = run_passes(prune(read_model(onnx.load(path)), (LOGITS[name],)))
    plan = make_plan(graph, MACHINE, 1, None)
    (one,), (two,) = (run_plan(plan, {"input": images}, threads) for threads in (1, 2))
    assert one.tobytes() == two.tobytes(), "the bits depend on the number of threads"
    expected = theirs(path, LOGITS[name], images)
    assert np.abs(one - expected).max() <= TOLERANCE.get(name, 1e-4) * np.abs(expected).max()


@pytest.mark.parametrize("name", LOGITS)
def test_logits_in_bf16_are_as_near_as_rounding_lets_them_be(name: str, models_dir: Path) -> None:
    """About as far from the exact ones as NumPy's that rounds the same values; test_precision.py has it for Numba."""
    path, images = models_dir / f"{name}.onnx", realistic(name)[:1]
    plan = make_plan(run_passes(prune(read_model(path), (LOGITS[name],))), MACHINE, 1, None, precision="bf16")
    (one,), (two,) = (run_plan(plan, {"input": images}, threads) for threads in (1, 2))
    assert one.tobytes() == two.tobytes(), "the bits depend on the number of threads"
    exact, twin = rounded_twin(path, LOGITS[name], images)
    ours, theirs = (float(np.linalg.norm(logits - exact)) for logits in (one, twin))
    assert ours <= (3 if name.startswith("tiny") else 1.5) * theirs  # of few logits chance decides


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantised_networks_give_the_bits_of_this_machine(name: str, models_dir: Path) -> None:
    """int8: the C library's outputs are those of Numba's kernels, whatever the CPU of either."""
    images = realistic(name)[:1]
    proto = quantized_by_onnxruntime(models_dir / f"{name}.onnx", [{"input": images}])
    expected = InferenceSession(proto, threads=1).run(None, {"input": images})
    plan = make_plan(run_passes(read_model(proto)), MACHINE, 1, None, precision="int8")
    got = run_plan(plan, {"input": images}, 2)
    assert plan.record.precision == "int8"
    assert [a.tobytes() for a in got] == [b.tobytes() for b in expected]
