"""The demo's model: the official file's signature and style, features as onnxruntime computes them, a real accuracy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from backend import InferenceSession, PixelInput
from harness.demo import fit
from harness.demo.assets import MODEL_NAME, RECORD_NAME, ensure_model
from harness.demo.images import CLASSES, Split
from harness.demo.model import CLASS, FEATURES, INPUT, PROBABILITIES
from harness.progress import Quiet
from preprocessing import IMAGENET

SEED = 11
LOGITS = "resnet_model/final_dense:0"
VALIDATION_COUNT = 4 * len(CLASSES)
IMAGENET_MEAN = np.array([123.68, 116.78, 103.94], np.float32)

U8Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted to fewer images than the demo's own."""
    folder, record = ensure_model(
        tmp_path_factory.mktemp("cache"),
        Quiet(),
        seed=SEED,
        fitting_count=8 * len(CLASSES),
        held_out_count=2 * len(CLASSES),
    )
    assert 0.9 <= record["held_out_top1"] <= 1
    return folder / MODEL_NAME


@pytest.fixture(scope="module")
def model(model_path: Path) -> onnx.ModelProto:
    return onnx.load(model_path)


@pytest.fixture(scope="module")
def pictures() -> U8Array:
    return fit.preprocessed(SEED, Split.VALIDATION, VALIDATION_COUNT)


def labels() -> npt.NDArray[np.int64]:
    return np.array([CLASSES[position].label for position in fit.classes(SEED, Split.VALIDATION, VALIDATION_COUNT)])


def onnxruntime_outputs(model: Any, outputs: list[str], pictures: U8Array) -> list[npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(model)
    batches = []
    for start in range(0, len(pictures), 8):
        floats = pictures[start : start + 8].astype(np.float32) - IMAGENET_MEAN
        batches.append(session.run(outputs, {INPUT: np.ascontiguousarray(floats.transpose(0, 3, 1, 2))}))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [size.dim_param or size.dim_value for size in tensor.shape.dim]


def test_signature_is_that_of_the_official_file(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 11)]
    assert [describe(value) for value in model.graph.input] == [
        ("input_tensor:0", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])
    ]
    assert [describe(value) for value in model.graph.output] == [
        ("ArgMax:0", onnx.TensorProto.INT64, ["N"]),
        ("softmax_tensor:0", onnx.TensorProto.FLOAT, ["N", 1001]),
    ]


def test_nodes_are_those_of_resnet50(model: onnx.ModelProto) -> None:
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts == {
        "Conv": 53,
        "BatchNormalization": 53,
        "Relu": 49,
        "Add": 16 + 1,  # residuals, and the last layer's bias
        "Pad": 1 + 3,  # stem and the strided 3x3 convolutions
        "MaxPool": 1,
        "ReduceMean": 1,
        "Squeeze": 1,
        "MatMul": 1,
        "Identity": 1,
        "Softmax": 1,
        "ArgMax": 1,
    }
    trainable = {
        name for node in model.graph.node if node.op_type in ("Conv", "BatchNormalization") for name in node.input[1:3]
    }
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    # The published count of ResNet50 with 1000 classes, 25,557,032, less its last layer of 2,049,000.
    assert sum(sizes[name] for name in trainable) == 23_508_032


def test_strided_convolutions_are_padded_by_a_node_of_their_own(model: onnx.ModelProto) -> None:
    writers = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    strided = []
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type != "Conv":
            continue
        kernel, stride = attributes["kernel_shape"][0], attributes["strides"][0]
        if stride == 1 or kernel == 1:
            assert attributes["pads"] == [kernel // 2] * 4
        else:
            assert attributes["pads"] == [0] * 4
            pad = writers[node.input[0]]
            assert pad.op_type == "Pad"
            assert constants[pad.input[1]].tolist() == [0, 0, kernel // 2, kernel // 2] * 2
            strided.append((kernel, stride))
    assert strided == [(7, 2), (3, 2), (3, 2), (3, 2)]


def test_tail_branches_into_softmax_and_argmax(model: onnx.ModelProto) -> None:
    tail = [node.op_type for node in model.graph.node][-7:]
    assert tail == ["ReduceMean", "Squeeze", "MatMul", "Add", "Identity", "ArgMax", "Softmax"]
    assert model.graph.node[-1].input[0] == model.graph.node[-2].input[0] == model.graph.node[-3].output[0]


def test_features_are_those_of_onnxruntime(model: onnx.ModelProto, pictures: U8Array) -> None:
    backbone = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model([INPUT], [FEATURES])
    (expected,) = onnxruntime_outputs(backbone.SerializeToString(), [FEATURES], pictures[:12])
    features = fit.engine_features(backbone, Quiet())(pictures[:12])
    assert features.shape == expected.shape == (12, 2048)
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()


def test_logits_are_those_of_onnxruntime(model: onnx.ModelProto, pictures: U8Array) -> None:
    """ResNet50's tensor before Softmax, made an output of both engines; raw pixels here, floats there.

    A batch of 8 and a last one of 1, and a plan for single images on one thread.
    """
    some = pictures[:9]
    detached = onnx.ModelProto()
    detached.CopyFrom(model)
    del detached.graph.output[:]
    detached.graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, ["N", 1001]))
    (expected,) = onnxruntime_outputs(detached.SerializeToString(), [LOGITS], some)
    pixels = PixelInput(IMAGENET.table())
    # The classes that are not used have no weights: over the others alone the largest logit is a smaller one.
    used = [image_class.label + 1 for image_class in CLASSES]
    for max_batch, threads in ((8, None), (1, 1)):
        session = InferenceSession(model, max_batch=max_batch, threads=threads, outputs=[LOGITS], pixels=pixels)
        (logits,) = session.run(None, {INPUT: some})
        assert logits.shape == expected.shape == (9, 1001)
        for ours, theirs in ((logits, expected), (logits[:, used], expected[:, used])):
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_validation_accuracy_as_onnxruntime_scores_it(model_path: Path, pictures: U8Array) -> None:
    classes, probabilities = onnxruntime_outputs(str(model_path), [CLASS, PROBABILITIES], pictures)
    assert np.array_equal(classes, probabilities.argmax(axis=1))
    assert np.mean(classes - 1 == labels()) >= 0.90
    assert np.mean(classes == labels()) == 0, "without the offset for background every answer is wrong"


def test_bf16_answers_as_fp32_does(model_path: Path, pictures: U8Array) -> None:
    """ResNet50 in 8 bits, Winograd layers included: by the gate of MobileNetV2, and as accurate within a percent."""
    classes = []
    for precision in ("fp32", "bf16-emulated"):
        session = InferenceSession(
            model_path, precision=precision, max_batch=8, pixels=PixelInput(IMAGENET.table()), outputs=[CLASS]
        )
        classes.append(session.run(None, {INPUT: pictures})[0])
    assert np.mean(classes[1] == classes[0]) >= 0.97
    accuracies = [np.mean(answers - 1 == labels()) for answers in classes]
    assert accuracies[1] >= accuracies[0] - 0.01


def test_accuracy_notices_swapped_channels(model_path: Path, pictures: U8Array) -> None:
    (classes,) = onnxruntime_outputs(str(model_path), [CLASS], pictures[:48, :, :, ::-1])
    assert np.mean(classes - 1 == labels()[:48]) <= 0.5


def test_unused_classes_never_win(model: onnx.ModelProto) -> None:
    bias = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "resnet_model/dense/bias")
    used = [image_class.label + 1 for image_class in CLASSES]
    assert bias.shape == (1001,)
    assert np.delete(bias, used).max() < bias[used].min() - 5


def test_statistics_normalise_what_they_were_measured_on(pictures: U8Array) -> None:
    """By onnxruntime: on the calibration crops every BatchNormalization gives mean 0 and deviation `gain`."""
    model = fit.build_model(SEED, fit.calibrate(SEED, pictures[:4]), None)
    side = 96
    crops = pictures[:4, (224 - side) // 2 : (224 + side) // 2, (224 - side) // 2 : (224 + side) // 2]
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = side
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = side
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    outputs = [node.output[0] for node in norms]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    results = onnxruntime_outputs(model.SerializeToString(), outputs, crops)
    gains = {tensor.name: numpy_helper.to_array(tensor)[0] for tensor in model.graph.initializer}
    for node, result in zip(norms, results, strict=True):
        channels = result.transpose(1, 0, 2, 3).reshape(result.shape[1], -1)
        gain = gains[node.input[1]]
        assert np.abs(channels.mean(axis=1)).max() < 2e-3 * gain, node.name
        live = channels.std(axis=1) > 0.5 * gain  # a channel that sees (almost) nothing has (almost) no variance
        assert live.mean() > 0.9, node.name
        assert np.allclose(channels.std(axis=1)[live], gain, rtol=2e-2), node.name


def test_ridge_is_the_textbook_solution() -> None:
    """Against the primal form solved by least squares on an augmented system."""
    random = np.random.default_rng(0)
    features = random.normal(1, 1, (40, 30)).astype(np.float32)
    targets = random.integers(0, len(CLASSES), 40)
    weight, bias = fit.ridge(features, targets, 0.1)
    x = features - features.mean(axis=0, dtype=np.float64)
    y = np.eye(len(CLASSES))[targets]
    strength = 0.1 * np.mean((x**2).sum(axis=1))
    augmented = np.vstack([x, np.sqrt(strength) * np.eye(30)])
    expected = np.linalg.lstsq(augmented, np.vstack([y - y.mean(axis=0), np.zeros((30, len(CLASSES)))]), rcond=None)[0]
    assert np.allclose(weight, expected, rtol=2**-12, atol=1e-9)
    scores = features.astype(np.float64) @ weight + bias
    assert np.allclose(scores.mean(axis=0), y.mean(axis=0), atol=1e-3), "the bias makes the mean answer right"


def test_record_says_how_it_was_made(model_path: Path) -> None:
    text = (model_path.parent / RECORD_NAME).read_text()
    for key in ("seed", "fitting_count", "held_out_count", "isa", "recipe", "ridge_penalty", "held_out_top1"):
        assert f'"{key}"' in text
    assert IMAGENET.digest() in text
