"""Whole real networks against onnxruntime: the tensor before Softmax, made an output of both engines.

ResNet50 is the demo's, which only the harness can make: tests/harness/test_demo_model.py does the same for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from plan_runner import MACHINE

from backend import InferenceSession

LOGITS = {
    "mobilenet_v2_1.0_224": "flatten_0_out",
    "tiny_resnet8": "fc_0_out",
    "tiny_dscnn": "fc_0_out",
    "tiny_vww96": "fc_0_out",
    "tiny_ad": "output",
}
TOLERANCE = {"tiny_ad": 2e-4}
"""Of the largest logit, where it is not 1e-4: the autoencoder's output is a difference of large sums."""

_IMAGES = 3


def realistic(name: str) -> np.ndarray:
    """Noise in the range of the inputs that each model was trained on."""
    rng = np.random.default_rng(len(name))
    if name.startswith("mobilenet") or name == "tiny_vww96":
        sizes = (224, 224) if name.startswith("mobilenet") else (96, 96)
        return rng.uniform(-1, 1, (_IMAGES, 3, *sizes)).astype(np.float32)
    if name == "tiny_resnet8":
        return rng.integers(0, 256, (_IMAGES, 3, 32, 32)).astype(np.float32)
    if name == "tiny_dscnn":
        coefficients = rng.normal(0, 8, (_IMAGES, 1, 49, 10))
        coefficients[..., 0] -= 60
        return coefficients.astype(np.float32)
    return rng.uniform(-40, 10, (_IMAGES, 640)).astype(np.float32)


def theirs(path: Path, output: str, images: np.ndarray) -> np.ndarray:
    """onnxruntime's value of an intermediate tensor."""
    proto = onnx.load(path)
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_onnxruntimes(name: str, models_dir: Path) -> None:
    """Near onnxruntime's for plans of 1 and 3 images; equal bits by one plan, one thread or two, alone or not."""
    path, images = models_dir / f"{name}.onnx", realistic(name)
    expected = theirs(path, LOGITS[name], images)
    teams = (1,) if MACHINE.isa != MACHINE.best_isa else (1, min(2, MACHINE.cores))  # compiling a team takes seconds
    for max_batch in (1, 3):
        results = []
        for threads in set(teams if max_batch > 1 else (1,)):
            session = InferenceSession(
                path, max_batch=max_batch, threads=threads, machine=MACHINE, outputs=[LOGITS[name]]
            )
            results.append(session.run(None, {"input": images})[0])
            alone = [session.run(None, {"input": images[i : i + 1]})[0] for i in range(len(images))]
            results.append(np.concatenate(alone))
        difference = np.abs(results[0] - expected).max() / np.abs(expected).max()
        assert difference <= TOLERANCE.get(name, 1e-4)
        equal = all(result.tobytes() == results[0].tobytes() for result in results)
        assert equal, f"max_batch {max_batch}: the bits depend on threads or on company"


@pytest.mark.parametrize("name", LOGITS)
def test_models_present_themselves_as_in_onnxruntime(name: str, models_dir: Path) -> None:
    path = models_dir / f"{name}.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ours = InferenceSession(path, threads=1, machine=MACHINE)
    for own, other in ((ours.get_inputs(), session.get_inputs()), (ours.get_outputs(), session.get_outputs())):
        assert [(a.name, a.shape, a.type) for a in own] == [(b.name, b.shape, b.type) for b in other]


def test_probabilities_and_classes_agree(models_dir: Path) -> None:
    """The unchanged model, softmax included."""
    path, images = models_dir / "tiny_resnet8.onnx", realistic("tiny_resnet8")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = np.asarray(session.run(None, {"input": images})[0])
    (got,) = InferenceSession(path, max_batch=_IMAGES, threads=1, machine=MACHINE).run(None, {"input": images})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(got.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
