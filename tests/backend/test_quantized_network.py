"""MobileNetV2 as onnxruntime's quantizer writes it, on real images: layers and classes, judged by onnxruntime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx_models import run_onnxruntime
from plan_runner import MACHINE, plan_graph, run_plan
from qdq_models import quantized_by_onnxruntime

from backend import InferenceSession, PixelInput
from backend.graph.check import check
from backend.graph.ir import BATCH, Graph, Op, Quantization, Quantize, Value, reads
from backend.graph.onnx_reader import read_model
from backend.graph.passes import run_passes
from backend.reference import evaluate, run_reference
from preprocessing import MOBILENET, preprocess, read_val_map

INPUT = "input"
CALIBRATION_IMAGES = 4


@pytest.fixture(scope="module")
def float_model(models_dir: Path) -> Path:
    return models_dir / "mobilenet_v2_1.0_224.onnx"


@pytest.fixture(scope="module")
def pixels(imagenet_dir: Path) -> np.ndarray:
    """uint8 [100, 224, 224, 3]."""
    return np.stack([preprocess(imagenet_dir / name, MOBILENET) for name in read_val_map(imagenet_dir).files])


@pytest.fixture(scope="module")
def floats(pixels: np.ndarray) -> np.ndarray:
    """What the model reads, [100, 3, 224, 224]."""
    return MOBILENET.to_float(pixels, "NCHW")


@pytest.fixture(scope="module")
def quantized(float_model: Path, floats: np.ndarray) -> onnx.ModelProto:
    return quantized_by_onnxruntime(float_model, [{INPUT: floats[i : i + 1]} for i in range(CALIBRATION_IMAGES)])


def test_every_layer_is_within_a_step(quantized: onnx.ModelProto, floats: np.ndarray) -> None:
    """Each op of the network as it runs, by its kernel, fed with the integers that onnxruntime has there.

    onnxruntime computes in float32 between DequantizeLinear and QuantizeLinear here; a tie may fall to the other side.
    """
    image = {INPUT: floats[-1:]}
    known = {**image, **_stored_by_onnxruntime(quantized, image)}
    graph = run_passes(read_model(quantized))
    compared = Counter[str]()
    for op in graph.ops:
        dtype = graph.values[op.output].dtype
        if op.output in known and dtype in ("uint8", "int8"):
            alone = _alone(op, graph)
            feeds = {name: known[_origin(name)].astype(np.float32) for name in alone.inputs}
            (ours,) = run_plan(plan_graph(alone), feeds)
            apart = np.abs(ours.astype(np.int32) - known[op.output].astype(np.int32))
            assert apart.max() <= 1, f"{op.name}: {apart.max()} steps"
            assert apart.mean() < 0.01, f"{op.name}: {100 * apart.mean():.2g} % of the elements are a step apart"
            compared[type(op).__name__] += 1
        else:
            known[op.output] = evaluate(op, {**graph.constants, **known}, graph)
    everything = {"Conv": 53, "QuantizedAverage": 1, "Quantize": 2}
    assert compared == everything, "all 52 layers and the classifier; what comes in, and the probabilities"


def _stored_by_onnxruntime(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What every QuantizeLinear of the model yields, by name."""
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    found = {node.output[0]: kinds[node.input[2]] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in found.items())
    return dict(zip(found, run_onnxruntime(probe, feed), strict=True))


_NUMBERS = ".numbers"


def _origin(name: str) -> str:
    return name.removesuffix(_NUMBERS)


def _alone(op: Op, graph: Graph) -> Graph:
    """The op by itself. Each integer value that it reads comes from an input of float32: the stored numbers."""
    ops: list[Op] = []
    inputs: list[str] = []
    values = {name: graph.values[name] for name in (*reads(op), op.output)}
    for name in dict.fromkeys(reads(op)):
        if name in graph.constants:
            continue
        if values[name].dtype == "float32":
            inputs.append(name)
            continue
        numbers = name + _NUMBERS
        inputs.append(numbers)
        values[numbers] = Value(numbers, (BATCH, *values[name].shape[1:]))
        as_they_are = Quantization(values[name].dtype, (1.0,), (0,))  # type: ignore[arg-type]
        ops.append(Quantize(numbers, numbers, name, as_they_are))
    constants = {name: graph.constants[name] for name in reads(op) if name in graph.constants}
    return check(Graph(op.name, tuple(inputs), (op.output,), (*ops, op), values, constants))


def test_the_session_equals_the_twin(quantized: onnx.ModelProto, pixels: np.ndarray, floats: np.ndarray) -> None:
    """To the bit, from raw pixels and from float32."""
    session = InferenceSession(quantized, pixels=PixelInput(MOBILENET.table()), isa=MACHINE.isa.name)
    (want,) = run_reference(run_passes(read_model(quantized)), {INPUT: floats[:1]})
    for given in (pixels[:1], floats[:1]):
        np.testing.assert_array_equal(session.run(None, {INPUT: given})[0], want)


def test_classes_are_kept_as_often_as_by_onnxruntime(
    quantized: onnx.ModelProto, float_model: Path, pixels: np.ndarray, floats: np.ndarray
) -> None:
    """Of 100 images our int8 gives the class of our float32 at most once less often than onnxruntime's int8 does."""
    ours = {}
    for name, model in (("int8", quantized), ("fp32", float_model)):
        session = InferenceSession(model, max_batch=4, pixels=PixelInput(MOBILENET.table()), isa=MACHINE.isa.name)
        assert session.precision == name
        ours[name] = session.run(None, {INPUT: pixels})[0].argmax(axis=1)
    theirs = onnxruntime.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    classes = np.concatenate([theirs.run(None, {INPUT: image[None]})[0].argmax(axis=1) for image in floats])
    kept, kept_by_onnxruntime = (int((found == ours["fp32"]).sum()) for found in (ours["int8"], classes))
    assert len(pixels) == 100
    assert kept >= kept_by_onnxruntime - 1
