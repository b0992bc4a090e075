"""A small data set, a small ImageNet classifier in the official model's style, and ways to run the command line.

All of it is real: JPEGs, ONNX, LoadGen in processes of its own. The model is cheap (a global mean and one dense layer).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import platformdirs
import pytest
from harness_support import IMAGE_COUNT, Command, Finished
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from submission_support import as_official, short_runs

from harness.cli import exit_status
from harness.config import SCENARIOS
from harness.submission.package import PackageConfig, package

_KERNELS = Path(platformdirs.user_cache_dir("loadgen-numba"), "kernels")  # before a test changes the environment


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's cache folder that lives as long as the tests. Compiled kernels are those of all tests."""
    folder = tmp_path_factory.mktemp("cache")
    _KERNELS.mkdir(parents=True, exist_ok=True)
    (folder / "loadgen-numba").mkdir()
    (folder / "loadgen-numba/kernels").symlink_to(_KERNELS)
    return folder


@pytest.fixture
def command(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in an empty folder to its end. In this process, to import the engines only once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def run(*arguments: object) -> Finished:
        capfd.readouterr()
        status = exit_status(list(map(str, arguments)))
        printed = capfd.readouterr()
        return Finished(status, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain-coloured JPEGs with slight noise; labels are set by `model`'s own rule in NumPy, one of four wrongly."""
    folder = tmp_path_factory.mktemp("dataset")
    random = np.random.default_rng(7)
    lines = []
    for index in range(IMAGE_COUNT):
        colour = random.integers(20, 236, 3)
        pixels = np.clip(colour + random.integers(-6, 7, (240, 260, 3)), 0, 255).astype(np.uint8)
        name = f"ILSVRC2012_val_{index + 1:08d}.JPEG"
        Image.fromarray(pixels).save(folder / name, quality=95)
        lines.append(f"{name} {(int(np.argmax(_WEIGHTS.T @ (colour - _MEAN) + _BIAS)) - 1 + (index % 4 == 0)) % 1000}")
    (folder / "val_map.txt").write_text("\n".join(lines) + "\n")
    return folder


_random = np.random.default_rng(3)
_MEAN = np.array([123.68, 116.78, 103.94])
_WEIGHTS = _random.normal(size=(3, 1001)).astype(np.float32)
_BIAS = np.zeros(1001, np.float32)
_BIAS[0] = -1e6  # "background" never wins, as in the real model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signature of the official ResNet50: input_tensor:0 NCHW; ArgMax:0 and softmax_tensor:0 over 1001 classes."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input_tensor:0"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["ArgMax:0"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["logits"], ["softmax_tensor:0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input_tensor:0", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [
            helper.make_tensor_value_info("ArgMax:0", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("softmax_tensor:0", TensorProto.FLOAT, ["N", 1001]),
        ],
        [numpy_helper.from_array(_WEIGHTS, "weights"), numpy_helper.from_array(_BIAS, "bias")],
    )
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def official_runs(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Runs of all four scenarios that look like official ones; to be read, or copied before they are changed."""
    folder = tmp_path_factory.mktemp("official")
    runs = short_runs(folder, dataset, SCENARIOS, folder / "store")
    as_official(runs)
    return runs


@pytest.fixture(scope="session")
def system_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What cannot be detected of a system."""
    path = tmp_path_factory.mktemp("system") / "system.toml"
    path.write_text(
        'status = "available"\nhost_memory_configuration = "1x 24 GB"\nhost_storage_type = "SSD"\n'
        'host_networking = "N/A"\nhost_networking_topology = "N/A"\nhost_network_card_count = "1"\ncooling = "air"\n'
    )
    return path


@pytest.fixture(scope="session")
def good_tree(tmp_path_factory: pytest.TempPathFactory, official_runs: Path, system_toml: Path) -> Path:
    """A closed edge submission with as little source as may be; to be copied."""
    output = tmp_path_factory.mktemp("tree")
    package(PackageConfig(official_runs, output, "v6.1", "closed", "edge", "box1", "Acme", system_toml))
    for name in ("harness", "backend", "preprocessing"):
        shutil.rmtree(output / "submission/closed/Acme/src/resnet50" / name)
    return output
