"""--precision: the same flag in `run`, `bench` and `plan`; bf16 against fp32 on real images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from harness_support import Command, run_record

from backend import InferenceSession, PixelInput, detect
from backend.simd.isa import BF16_EXTENSIONS
from harness.config import Precision, RunConfig, check_precision
from harness.errors import BadInputError
from preprocessing import MOBILENET
from preprocessing.imagenet import preprocess
from preprocessing.labels import read_val_map

MOBILENET_FILE = "mobilenet_v2_1.0_224.onnx"


def test_mobilenets_classes_in_bf16(models_dir: Path, imagenet_dir: Path) -> None:
    """MobileNetV2, whose depthwise layers are the hardest to round, gives 97 of 100 images the class of fp32."""
    val_map = read_val_map(imagenet_dir)
    images = np.stack([preprocess(imagenet_dir / name, MOBILENET) for name in val_map.files])
    classes = []
    for precision in ("fp32", "bf16-emulated"):
        session = InferenceSession(
            models_dir / MOBILENET_FILE, precision=precision, max_batch=10, pixels=PixelInput(MOBILENET.table())
        )
        (values,) = session.run(None, {session.get_inputs()[0].name: images})
        classes.append(values.argmax(axis=1))
    assert len(images) == 100
    assert np.sum(classes[0] == classes[1]) >= 97


def test_run_and_plan_in_bf16(command: Command, model: Path, dataset: Path, tmp_path: Path) -> None:
    """What ran is in run.json; the plan file is for bf16, and refused by a run in fp32."""
    path = tmp_path / "plan.json"
    planned = command("plan", model, "--precision", "bf16-emulated", "--threads", 1, "--json", path, "--quiet")
    assert planned.status == 0, planned.stderr
    assert ", bf16, max_batch 1;" in planned.stdout and "conv_gemm bf16-f32" in planned.stdout
    assert json.loads(path.read_text())["precision"] == "bf16"
    run = ("run", "--model", model, "--dataset-path", dataset, "--accuracy", "--plan", path, "--max-batchsize", 1)
    done = command(*run, "--precision", "bf16-emulated", "--quiet")
    assert done.status == 0, done.stderr
    record = run_record(tmp_path / "reports/runs/resnet50/SingleStream/accuracy")
    assert record["backend"]["precision"] == "bf16-emulated"
    refused = command(*run, "--quiet")
    assert refused.status != 0
    assert "it is for precision bf16, not fp32" in refused.stderr


@pytest.mark.skipif(not {*BF16_EXTENSIONS.values()}.isdisjoint(detect().isa.extensions), reason="this CPU has bf16")
@pytest.mark.parametrize("arguments", [("plan",), ("bench", "--against", "none", "--model")], ids=["plan", "bench"])
def test_a_cpu_without_bf16_says_so(command: Command, model: Path, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, model, "--precision", "bf16", "--quiet")
    assert done.status == 2
    (line,) = done.stderr.splitlines()
    assert "/proc/cpuinfo lists avx512_bf16" in line and "'bf16-emulated'" in line


@pytest.mark.parametrize(
    ("precision", "backend", "text"),
    [
        ("bf16", "onnxruntime", "--precision bf16 is for --backend numba or openvino: onnxruntime has none"),
        ("bf16", "null", "null has none"),
        ("bf16-emulated", "openvino", "--precision bf16-emulated is for --backend numba, not for openvino"),
    ],
)
def test_precisions_that_a_backend_lacks(precision: Precision, backend: str, text: str) -> None:
    with pytest.raises(BadInputError, match=text):
        RunConfig("resnet50", "resnet50", "Offline", "accuracy", backend, None, Path("images"), precision=precision)
    for other in ("fp32", None):
        check_precision(other, backend)
