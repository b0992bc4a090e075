"""Quantised models as onnxruntime's quantizer writes them: read, absorbed, run; judged by onnxruntime and the twin."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as onnx_node_cases
from onnx_models import model, node, run_onnxruntime
from onnxruntime.quantization import QuantType
from plan_runner import MACHINE
from qdq_models import quantized_by_onnxruntime

from backend import InferenceSession, InputError, ModelError, PixelInput
from backend.graph.ir import Graph, Quantization, Requantize
from backend.graph.onnx_quantization import quantize
from backend.graph.onnx_reader import read_model
from backend.graph.passes import run_passes
from backend.graph.prune import prune
from backend.plan.pack import stored_bytes
from backend.reference import run_reference

QUANTIZERS: dict[str, dict[str, Any]] = {
    "u8s8-per-channel": {},
    "u8s8-per-tensor": {"per_channel": False},
    "s8s8-symmetric": {"activations": QuantType.QInt8, "ActivationSymmetric": True},
    "s8s8": {"activations": QuantType.QInt8},
    "u8u8": {"weights": QuantType.QUInt8, "per_channel": False},
}


def _small_network() -> onnx.ModelProto:
    """Stem with asymmetric pads, max pool, residual block with a projection, depthwise, average, dense, softmax."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {
        "w0": weight(24, 3, 3, 3), "w1": weight(16, 24, 1, 1), "w2": weight(16, 16, 3, 3), "w3": weight(40, 16, 1, 1),
        "w4": weight(40, 24, 1, 1), "w5": weight(40, 1, 3, 3), "w6": weight(33, 40),
    }  # fmt: skip
    for index, size in enumerate((24, 16, 16, 40, 40, 40, 33)):
        constants[f"b{index}"] = 0.1 * rng.standard_normal(size).astype(np.float32)
    nodes = [
        node("Conv", "x w0 b0", "c0", name="stem", strides=[2, 2], pads=[0, 0, 1, 1]),
        node("Relu", "c0", "r0"),
        node("MaxPool", "r0", "p0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "p0 w1 b1", "c1", name="reduce"),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", name="middle", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2"),
        node("Conv", "r2 w3 b3", "c3", name="expand"),
        node("Conv", "p0 w4 b4", "c4", name="project"),
        node("Add", "c3 c4", "a", name="add"),
        node("Relu", "a", "r3"),
        node("Conv", "r3 w5 b5", "c5", name="depthwise", pads=[1, 1, 1, 1], group=40),
        node("Clip", "c5 zero six", "r5"),
        node("Add", "r5 r3", "a2", name="add_to_depthwise"),
        node("Add", "a2 a2", "a3", name="twice"),
        node("GlobalAveragePool", "a3", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w6 b6", "logits", name="dense", transB=1),
    ]
    constants |= {"zero": np.float32(0), "six": np.float32(6)}
    return model(nodes, {"x": ["N", 3, 19, 21]}, ["logits"], constants)


def _feeds(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((1, 3, 19, 21)).astype(np.float32)} for _ in range(count)]


@cache
def _quantized(name: str) -> onnx.ModelProto:
    return quantized_by_onnxruntime(_small_network(), _feeds(4), **QUANTIZERS[name])


def _integer_ops(graph: Graph) -> Counter[str]:
    """Ops by type, those that requantise told apart."""
    return Counter(
        type(op).__name__ + ("+" if isinstance(getattr(op, "epilogue", None), Requantize) else "") for op in graph.ops
    )


@pytest.mark.parametrize("name", ["u8s8-per-channel", "u8s8-per-tensor", "s8s8"])
def test_everything_is_absorbed(name: str) -> None:
    """No op of float32 is left but for the conversion at both ends."""
    found = _integer_ops(run_passes(read_model(_quantized(name))))
    expected = {"Quantize": 1, "Conv+": 6, "Pool": 1, "QuantizedAdd": 1, "QuantizedAverage": 1, "Reshape": 1}
    assert found == expected | {"Dense+": 1, "Dequantize": 1}


def test_weights_that_int8_cannot_hold_stay_in_float() -> None:
    """uint8 weights with a zero point in the middle of a range of 255 steps."""
    found = _integer_ops(run_passes(read_model(_quantized("u8u8"))))
    assert found["Conv"] + found["Conv+"] == 6
    assert found["Conv"] > 0
    text = str(InferenceSession(_quantized("u8u8"), isa=MACHINE.isa.name).plan())
    assert f"float32: {found['Conv'] + found['Dense']} of 7 layers" in text


@pytest.mark.parametrize("name", QUANTIZERS)
def test_twin_against_onnxruntime(name: str) -> None:
    """Absorbed or not, the logits are within a few steps of onnxruntime's, which round some ties the other way."""
    proto, feeds = _quantized(name), _feeds(3)
    graph = run_passes(read_model(proto))
    steps = []
    for feed in feeds:
        want = run_onnxruntime(proto, feed)[0]
        scale = float(numpy_helper.to_array(_initializer(proto, "logits_scale")))
        for integers in (True, False):
            twin = graph if integers else run_passes(read_model(proto), integers=False)
            steps.append(np.abs(run_reference(twin, feed)[0] - want).max() / scale)
    assert max(steps) <= 2.01


def _initializer(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


@pytest.mark.parametrize("scale", [1.0, 1.2e-7])
def test_the_bias_of_a_channel_without_weights_is_kept(scale: float) -> None:
    """Its scale is a placeholder: in steps of it, a bias in float32 would be lost, or beyond int32."""
    constants = {
        "xs": np.float32(0.5), "xz": np.uint8(0), "ys": np.float32(0.01), "yz": np.uint8(0),
        "w": np.array([[0], [100]], np.int8)[..., None, None], "wz": np.zeros(2, np.int8),
        "ws": np.array([scale, 0.0001], np.float32), "b": np.array([0.26, 0.1], np.float32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("DequantizeLinear", "q xs xz", "d"),
        node("DequantizeLinear", "w ws wz", "dw", axis=0),
        node("Conv", "d dw b", "c", name="conv"),
        node("QuantizeLinear", "c ys yz", "r"),
        node("DequantizeLinear", "r ys yz", "y"),
    ]
    proto = model(nodes, {"x": ["N", 1, 4, 4]}, ["y"], constants)
    feed = {"x": np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)}
    session = InferenceSession(proto, isa=MACHINE.isa.name)
    assert "float32:" not in str(session.plan())
    got, want = session.run(None, feed)[0], run_onnxruntime(proto, feed)[0]
    assert set(np.rint(got[0, 0].ravel() / 0.01)) == {26}
    assert np.abs(got - want).max() <= 0.0101


@pytest.mark.parametrize("name", QUANTIZERS)
def test_session_equals_twin(name: str) -> None:
    """To the bit where everything is integers, and near it where float32 sums take part."""
    proto = _quantized(name)
    feed = {"x": np.concatenate([feed["x"] for feed in _feeds(5)])}
    session = InferenceSession(proto, max_batch=3, isa=MACHINE.isa.name)
    assert session.plan().record.precision == "int8"
    got, want = session.run(None, feed)[0], run_reference(run_passes(read_model(proto)), feed)[0]
    if name == "u8u8":
        assert np.abs(got - want).max() <= 0.05 * np.abs(want).max()
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ["u8s8-per-channel", "s8s8-symmetric"])
def test_layer_by_layer_against_onnxruntime(name: str) -> None:
    """Each stored value, from onnxruntime's own integers of the layer before: at most one step apart."""
    proto, feed = _quantized(name), _feeds(1)[0]
    stored = [n.output[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    zero_points = {n.output[0]: kinds[n.input[2]] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    probe.graph.output.extend(helper.make_tensor_value_info(name, zero_points[name], None) for name in stored)
    theirs = dict(zip(["logits", *stored], run_onnxruntime(probe, feed), strict=True))
    graph = run_passes(prune(read_model(proto), stored))
    compared = 0
    for op in graph.ops:
        value = graph.values[op.output]
        if op.output in theirs and value.dtype in ("uint8", "int8"):
            from backend.reference import evaluate

            known = {**graph.constants, **theirs, **feed}
            if all(read in known for read in _reads(op)):
                ours = evaluate(op, known, graph).astype(np.int32)
                assert np.abs(ours - theirs[op.output].astype(np.int32)).max() <= 1, op.name
                compared += 1
    assert compared >= 8


def _reads(op: Any) -> tuple[str, ...]:
    from backend.graph.ir import reads

    return reads(op)


def test_precision() -> None:
    """auto is int8 for a quantised model; float32 is for the asking; int8 needs a quantised model."""
    proto, feed = _quantized("u8s8-per-channel"), _feeds(1)[0]
    in_float = InferenceSession(proto, precision="fp32", isa=MACHINE.isa.name).run(None, feed)[0]
    integers = InferenceSession(proto, precision="int8", isa=MACHINE.isa.name).run(None, feed)[0]
    assert np.abs(in_float - integers).max() <= 0.05 * np.abs(integers).max()
    with pytest.raises(InputError, match="no QuantizeLinear: quantise it first"):
        InferenceSession(_small_network(), precision="int8", isa=MACHINE.isa.name)


def test_pixels_reach_a_quantised_model_through_a_table() -> None:
    """The same as quantising the floats that the pixels stand for."""
    proto = _quantized("u8s8-per-channel")
    pixels = PixelInput.affine((120.0, 110.0, 130.0), 1 / 60)
    images = np.random.default_rng(0).integers(0, 256, (4, 19, 21, 3), dtype=np.uint8)
    session = InferenceSession(proto, max_batch=4, pixels=pixels, isa=MACHINE.isa.name)
    floats = np.stack([pixels.table[c][images[..., c]] for c in range(3)], axis=1)
    np.testing.assert_array_equal(session.run(None, {"x": images})[0], session.run(None, {"x": floats})[0])


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_pixels_are_rounded_as_numbers_are(dtype: str) -> None:
    """The table's bytes are the twin's for ties, for what saturates, for infinities and NaN."""
    quantization = Quantization(dtype, (0.5,), (7,))  # type: ignore[arg-type]
    x = np.array([[0.25, 0.75, -0.25, 1e9, -1e9, np.inf, -np.inf, np.nan]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = stored_bytes(x, quantization)
    want = quantize(x, quantization).astype(np.int32) + (128 if dtype == "int8" else 0)
    np.testing.assert_array_equal(stored, want)


REFUSED = {
    "int4": (TensorProto.INT4, "element type INT4"),
    "float8": (TensorProto.FLOAT8E4M3FN, "element type FLOAT8E4M3FN"),
    "uint16": (TensorProto.UINT16, "element type UINT16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_types_that_are_refused_by_name(name: str) -> None:
    kind, text = REFUSED[name]
    zero = helper.make_tensor("zero", kind, [], [0])
    proto = model([node("QuantizeLinear", "x s zero", "q"), node("DequantizeLinear", "q s zero", "y")],
                  {"x": ["N", 4]}, ["y"], {"s": np.float32(0.1)}, opset=21)  # fmt: skip
    proto.graph.initializer.append(zero)
    with pytest.raises(ModelError, match=text) as caught:
        read_model(proto)
    assert "\n" not in str(caught.value)


WEIGHTS = {
    "int4": (TensorProto.INT4, {}, "constant 'w' has element type INT4; supported: .*INT8"),
    "float8": (TensorProto.FLOAT8E4M3FN, {}, "constant 'w' has element type FLOAT8E4M3FN; supported: .*INT8"),
    "blocked": (TensorProto.INT8, {"block_size": 2, "axis": 0}, r"node 'weights' .*in blocks of 2; supported"),
    "scales in two axes": (TensorProto.INT8, {"axis": 0}, r"node 'weights' .*supported is one scale per tensor or per"),
}
"""Element type, attributes of DequantizeLinear, and what is said. Blocks have a scale each: [2, 3] of them."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_refused_by_name(name: str) -> None:
    kind, attributes, text = WEIGHTS[name]
    nodes = [node("DequantizeLinear", "w s", "d", name="weights", **attributes), node("MatMul", "x d", "y")]
    scale = np.full((2, 3), 0.1, np.float32) if "axis" in attributes else np.float32(0.1)
    proto = model(nodes, {"x": ["N", 4]}, ["y"], {"s": scale}, opset=21)
    proto.graph.initializer.append(helper.make_tensor("w", kind, [4, 3], [1] * 12))
    with pytest.raises(ModelError, match=text) as caught:
        read_model(proto)
    assert "\n" not in str(caught.value)


def test_integer_ops_and_inputs_say_what_to_do() -> None:
    """The other ways to write a quantised model: ops on integers, and inputs of them."""
    integers = model([node("QLinearConv", "x s z w s z s z", "y"), node("Relu", "x", "r")], {"x": ["N", 4]}, ["y"])
    with pytest.raises(ModelError, match=r"unsupported op QLinearConv \(node 'QLinearConv:y'\); .*in QDQ format$"):
        read_model(integers)
    theirs = model([node("QLinearAdd", "x s z x s z s z", "y", domain="com.microsoft")], {"x": ["N", 4]}, ["y"])
    with pytest.raises(ModelError, match=r"com.microsoft.QLinearAdd .*in QDQ format$"):
        read_model(theirs)
    bytes_ = _pair()
    bytes_.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(ModelError, match=r"input 'x' has element type UINT8; .*a float32 input with QuantizeLinear"):
        read_model(bytes_)


def test_outputs_of_integers() -> None:
    """A model may end in a QuantizeLinear: its outputs are described and given as onnxruntime does."""
    feed = {"x": np.array([[-1.0, 0.25, 0.35, 99.0]], np.float32)}
    for kind, zero in ((TensorProto.UINT8, np.uint8(3)), (TensorProto.INT8, np.int8(-2))):
        constants = {"s": np.float32(0.1), "z": zero}
        proto = model([node("QuantizeLinear", "x s z", "q")], {"x": ["N", 4]}, ["q"], constants, output_type=kind)
        session = InferenceSession(proto, isa=MACHINE.isa.name)
        (theirs,) = run_onnxruntime(proto, feed)
        (ours,) = session.run(None, feed)
        assert session.get_outputs()[0].type == f"tensor({theirs.dtype})"
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def _pair(opset: int = 21, **attributes: Any) -> onnx.ModelProto:
    nodes = [node("QuantizeLinear", "x s z", "q", **attributes), node("DequantizeLinear", "q s z", "y")]
    return model(nodes, {"x": ["N", 4]}, ["y"], {"s": np.float32(0.1), "z": np.uint8(3)}, opset=opset)


def test_other_forms_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="in blocks of 32"):
        read_model(_pair(block_size=32))
    with pytest.raises(ModelError, match="element type INT4"):
        read_model(_pair(output_dtype=TensorProto.INT4))
    wrong = _pair()
    wrong.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(-0.1), "s"))
    with pytest.raises(ModelError, match="scales are positive and finite"):
        read_model(wrong)


@pytest.mark.parametrize("name", ["dequantizelinear", "dequantizelinear_axis"])
def test_onnx_cases_of_constants(name: str) -> None:
    """ONNX's own cases, whose inputs are integers, which here only constants can be; zeros are added to the result."""
    importlib.import_module("onnx.backend.test.case.node.dequantizelinear")
    (case,) = (case for case in onnx_node_cases._NodeTestCases if case.name == f"test_{name}")
    ((arrays, (want,)),) = case.data_sets
    (operation,) = case.model.graph.node
    constants = dict(zip(operation.input, arrays, strict=True))
    nodes = [operation, node("Add", f"{operation.output[0]} zeros", "sum")]
    proto = model(nodes, {"zeros": want.shape}, ["sum"], constants, opset=21)
    got = InferenceSession(proto, isa=MACHINE.isa.name).run(None, {"zeros": np.zeros(want.shape, np.float32)})[0]
    np.testing.assert_array_equal(got, want)
