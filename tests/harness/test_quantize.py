"""`quantize` and `get-calibration-list`: what is written, what is said, what is refused; nothing half-written."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from harness_support import Command
from onnx import TensorProto, helper, numpy_helper

from harness.quantize import images
from harness.quantize.images import OfficialList, choose_images
from harness.quantize.measure import weight_spread
from harness.quantize.models import Layer


@pytest.fixture(scope="session")
def small_cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions and a dense layer over 1001 classes, in an operator set without scales per channel."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.normal(0, 0.05, (16, 3, 7, 7)),
        "w1": rng.normal(0, 0.1, (24, 16, 3, 3)),
        "w2": rng.normal(0, 1, (24, 1001)),
        "b": np.zeros(1001),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["c0"], name="first", strides=[8, 8]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="second", strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b"], ["scores"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1001])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    path = tmp_path_factory.mktemp("cnn") / "cnn.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path


def _weights_by_node(path: Path) -> dict[str, str]:
    """Of each layer, whether its weights come from a DequantizeLinear."""
    graph = onnx.load(path).graph
    written = {node.output[0]: node.op_type for node in graph.node}
    return {
        node.name: written.get(node.input[1], "constant") for node in graph.node if node.op_type in ("Conv", "Gemm")
    }


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_model_is_quantised(command: Command, tmp_path: Path, small_cnn: Path, dataset: Path, method: str) -> None:
    """Any runtime loads it; ranges are in the model and in the report; nothing but these two files is left."""
    output = tmp_path / "small.int8.onnx"
    flags = ("--count", 6, "--method", method, "--output", output, "--quiet")
    finished = command("quantize", "--model", small_cnn, "--dataset-path", dataset, *flags)
    assert (finished.status, finished.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.int8.json", "small.int8.onnx"]
    report = json.loads((tmp_path / "small.int8.json").read_text())
    assert (report["method"], len(report["calibration"]["images"])) == (method, 6)
    assert all(low <= 0 <= high and low < high for low, high in report["ranges"].values())
    assert min(report["sqnr_db"].values()) > 10
    assert report["top1_agreement"]["images"] == 14
    assert report["stability"]["images"] == 6
    onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    metadata = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert json.loads(metadata["loadgen_numba.quantization"])["ranges"] == report["ranges"]
    assert set(_weights_by_node(output).values()) == {"DequantizeLinear"}
    assert "same top-1 class as float32: " in finished.stdout


def test_ends_stay_in_float_and_one_image_is_enough(
    command: Command, tmp_path: Path, small_cnn: Path, dataset: Path
) -> None:
    output = tmp_path / "small.onnx"
    flags = ("--count", 1, "--keep-float", "first,last", "--output", output, "--quiet")
    finished = command("quantize", "--model", small_cnn, "--dataset-path", dataset, *flags)
    assert finished.status == 0, finished.stderr
    assert _weights_by_node(output) == {"first": "constant", "second": "DequantizeLinear", "last": "constant"}
    assert "warning: ranges come from one image" in finished.stdout
    assert json.loads((tmp_path / "small.json").read_text())["stability"]["spread"] is None


def test_per_tensor_weights_warn(command: Command, tmp_path: Path, small_cnn: Path, dataset: Path) -> None:
    """A layer with one loud channel: the others are left with few steps, and that is said."""
    model = onnx.load(small_cnn)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "w1")
    loud = numpy_helper.to_array(weight).copy()
    loud[3] *= 100
    weight.CopyFrom(numpy_helper.from_array(loud, "w1"))
    onnx.save(model, tmp_path / "loud.onnx")
    flags = ("--count", 2, "--per-tensor", "--output", tmp_path / "loud.int8.onnx", "--quiet")
    finished = command("quantize", "--model", tmp_path / "loud.onnx", "--dataset-path", dataset, *flags)
    assert finished.status == 0, finished.stderr
    assert "warning: per-tensor weights collapse in second: 23 of 24 channels" in finished.stdout


def test_levels_of_channels() -> None:
    """Channels at the largest weight keep 127 steps, at a 20th 6.35; a channel of zeros has none to lose."""
    weight = np.array([[1.0, -0.5], [0.05, 0.01], [0.0, 0.0]], np.float32)
    (spread,) = weight_spread([Layer("layer", "y", weight)])
    assert spread.fewest_levels == pytest.approx(127 / 20)
    assert (spread.collapsed_channels, spread.channels) == (1, 3)


BAD_INPUT: dict[str, tuple[tuple[object, ...], str]] = {
    "no model": (("--model", "none.onnx"), "--model none.onnx: no such file"),
    "not a model": (("--model", "text.onnx"), "--model text.onnx: is no ONNX model"),
    "count": (("--count", 0), "--count 0: must be from 1 to 10,000"),
    "more than there are": (("--count", 21), "--count 21: --dataset-path"),
    "kept": (("--keep-float", "middle"), "'middle' is not one of first, last"),
    "output suffix": (("--output", "out.bin"), "--output out.bin: must end in .onnx"),
    "output folder": (("--output", "nowhere/out.onnx"), "there is no folder nowhere"),
    "no images": (("--dataset-path", "empty"), "--dataset-path empty: holds neither val_map.txt nor JPEG files"),
    "no folder": (("--dataset-path", "missing"), "--dataset-path missing: no such folder"),
    "no list": (("--calibration-list", "none.txt"), "--calibration-list none.txt: cannot be read"),
    "empty list": (("--calibration-list", "blank.txt"), "names no images"),
    "unknown image": (("--calibration-list", "unknown.txt"), "1 of 2 images are not in"),
    "outside": (("--calibration-list", "outside.txt"), "is outside"),
    "damaged image": (("--dataset-path", "damaged"), "not a JPEG"),
    "another profile's model": (("--model", "wide.onnx"), "profile resnet50 makes one, [N, 3, 224, 224]"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(command: Command, tmp_path: Path, small_cnn: Path, dataset: Path, name: str) -> None:
    """One line, exit status 2, and no file where the output would be."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    for damaged in ("a.jpeg", "b.jpeg"):
        (tmp_path / "damaged" / damaged).write_bytes(b"no picture")
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "blank.txt").write_text("\n\n")
    (tmp_path / "unknown.txt").write_text("ILSVRC2012_val_00000001.JPEG 3\nnot_there.JPEG 4\n")
    (tmp_path / "outside.txt").write_text("../secret.JPEG\n../other.JPEG\n")
    wide = onnx.load(small_cnn)
    wide.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 256
    onnx.save(wide, tmp_path / "wide.onnx")
    arguments, text = BAD_INPUT[name]
    flags: dict[object, object] = {
        "--model": small_cnn,
        "--dataset-path": dataset,
        "--output": "out.onnx",
        "--count": 2,
    }
    flags |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    finished = command("quantize", *(item for pair in flags.items() for item in pair), "--quiet")
    assert finished.status == 2
    (line,) = finished.stderr.splitlines()
    assert text in line
    assert not list(tmp_path.glob("*out.*")), "something was left"


def test_quantised_models_are_not_quantised_again(
    command: Command, tmp_path: Path, small_cnn: Path, dataset: Path
) -> None:
    first, images_of = tmp_path / "first.onnx", ("--dataset-path", dataset, "--count", 1, "--quiet")
    assert command("quantize", "--model", small_cnn, *images_of, "--output", first).status == 0
    before = first.read_bytes()
    again = command("quantize", "--model", first, *images_of, "--output", tmp_path / "second.onnx")
    assert (again.status, "is quantised already" in again.stderr) == (2, True)
    itself = command("quantize", "--model", first, *images_of, "--output", first)
    assert (itself.status, "is the model itself" in itself.stderr) == (2, True)
    assert first.read_bytes() == before


def test_lists_name_images_with_and_without_labels(tmp_path: Path, dataset: Path) -> None:
    names = [f"ILSVRC2012_val_{index:08d}.JPEG" for index in (5, 2, 9)]
    bare, labelled = tmp_path / "bare.txt", tmp_path / "labelled.txt"
    bare.write_text("\n".join(names) + "\n")
    labelled.write_text("".join(f"{name} {index}\n" for index, name in enumerate(names)))
    for path in (bare, labelled):
        chosen = choose_images(dataset, path, None)
        assert [file.name for file in chosen.calibration] == names
        assert len(chosen.others) == 17
        assert not set(chosen.others) & set(chosen.calibration)
    assert [file.name for file in choose_images(dataset, bare, 2).calibration] == names[:2]
    spread = choose_images(dataset, None, 3)
    assert [file.name[-7:-5] for file in spread.calibration] == ["01", "11", "20"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves tmp_path/served over HTTP."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()


def test_lists_are_downloaded_and_checked(
    command: Command, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that were published, or nothing: a changed list and a missing one leave what was there."""
    data = b"a.JPEG\nb.JPEG\n"
    (tmp_path / "served/list.txt").write_bytes(data)
    good = OfficialList(f"{server}list.txt", sha256(data).hexdigest())
    monkeypatch.setitem(images.OFFICIAL_LISTS, 1, good)
    finished = command("get-calibration-list", "--option", "1", "--quiet")
    assert (finished.status, finished.stdout) == (0, "2 images: list.txt\n")
    assert (tmp_path / "list.txt").read_bytes() == data
    (tmp_path / "served/list.txt").write_bytes(data + b"c.JPEG\n")
    changed = command("get-calibration-list", "--output", "list.txt")
    assert (changed.status, "nothing was written" in changed.stderr) == (2, True)
    monkeypatch.setitem(images.OFFICIAL_LISTS, 1, OfficialList(f"{server}none.txt", "0"))
    missing = command("get-calibration-list", "--output", "list.txt")
    assert (missing.status, "cannot be fetched" in missing.stderr) == (2, True)
    assert (tmp_path / "list.txt").read_bytes() == data


CALIBRATION_IMAGES = Path(__file__).with_name("calibration_images.txt")
"""The numbers of the images in MLCommons' two lists, in their order, an empty line between the lists."""


def _published_list(option: int) -> bytes:
    """The file as MLCommons publishes it: option 1 is bare names, option 2 has one image of each class from 0 on."""
    numbers = CALIBRATION_IMAGES.read_text().split("\n\n")[option - 1].split()
    names = [f"ILSVRC2012_val_{int(number):08d}.JPEG" for number in numbers]
    lines = names if option == 1 else [f"{name} {label}" for label, name in enumerate(names)]
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize("option", [1, 2])
def test_the_official_lists_are_those_of_mlcommons(
    command: Command, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, option: int
) -> None:
    """The very bytes that MLCommons publishes pass, under their name; the same list with one image changed does not."""
    official = images.OFFICIAL_LISTS[option]
    name = f"cal_image_list_option_{option}.txt"
    assert official.url == f"https://raw.githubusercontent.com/mlcommons/inference/master/calibration/ImageNet/{name}"
    monkeypatch.setitem(images.OFFICIAL_LISTS, option, replace(official, url=server + name))
    published = _published_list(option)
    (tmp_path / "served" / name).write_bytes(published)
    finished = command("get-calibration-list", "--option", option, "--quiet")
    assert (finished.status, finished.stdout) == (0, f"500 images: {name}\n"), finished.stderr
    assert (tmp_path / name).read_bytes() == published
    (tmp_path / name).unlink()
    (tmp_path / "served" / name).write_bytes(published.replace(b"_00000", b"_00001", 1))
    changed = command("get-calibration-list", "--option", option, "--quiet")
    assert (changed.status, "nothing was written" in changed.stderr) == (2, True)
    assert not (tmp_path / name).exists()
