"""The reader against onnxruntime: real models, generated ones of every op form and operator-set version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx_models import model, node, random_input, run_onnxruntime

from backend.graph.ir import BATCH, Conv, Dense, Softmax
from backend.graph.onnx_reader import read_model
from backend.graph.passes import run_passes
from backend.graph.prune import prune
from backend.reference import run_reference

_RNG = np.random.default_rng(7)


def _array(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


def _integers(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


def _conv(**attributes: Any) -> onnx.ModelProto:
    group = attributes.get("group", 1)
    weight = _array(6, 4 // group, *attributes.pop("kernel", (3, 3)))
    return model(
        [node("Conv", "x w b", "y", **attributes)],
        {"x": ["N", 4, 11, 8]},
        ["y"],
        {"w": weight, "b": _array(6)},
    )


def _pool(op_type: str, opset: int = 19, **attributes: Any) -> onnx.ModelProto:
    return model([node(op_type, "x", "y", **attributes)], {"x": ["N", 3, 11, 8]}, ["y"], opset=opset)


def _unary(
    op_type: str, inputs: str, shape: Sequence[int | str], opset: int, *constants: Any, **attributes: Any
) -> Any:
    names = [name for name in inputs.split()[1:] if name != "_"]
    arrays = dict(zip(names, constants, strict=True))
    return model([node(op_type, inputs, "y", **attributes)], {"x": shape}, ["y"], arrays, opset=opset)


def _batch_norm(opset: int, shape: Sequence[int | str]) -> onnx.ModelProto:
    arrays = {"s": _array(3), "b": _array(3), "m": _array(3), "v": np.abs(_array(3))}
    return model([node("BatchNormalization", "x s b m v", "y", epsilon=1e-3)], {"x": shape}, ["y"], arrays, opset=opset)


def _gemm(
    shape: Sequence[int | str], addend: np.ndarray | None, weight: np.ndarray, **attributes: Any
) -> onnx.ModelProto:
    constants = {"w": weight} | ({} if addend is None else {"c": addend})
    return model(
        [node("Gemm", "x w" + ("" if addend is None else " c"), "y", **attributes)], {"x": shape}, ["y"], constants
    )


PICTURE = ["N", 3, 6, 5]

MODELS = {
    **{
        f"conv-{auto_pad}-stride{stride}": _conv(auto_pad=auto_pad, strides=[stride, stride])
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for stride in (1, 2, 3)
    },
    "conv-asymmetric-pads": _conv(pads=[0, 2, 1, 3], strides=[2, 1]),
    "conv-group": _conv(group=2, pads=[1, 1, 1, 1], kernel=(3, 2)),
    "conv-1x1-stride": _conv(kernel=(1, 1), strides=[2, 3]),
    "conv-dilated": _conv(dilations=[2, 3], pads=[2, 3, 2, 3], kernel_shape=[3, 3]),
    **{
        f"{op_type}-{auto_pad}-stride{stride}": _pool(
            op_type, auto_pad=auto_pad, kernel_shape=[3, 2], strides=[stride, stride]
        )
        for op_type in ("MaxPool", "AveragePool")
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for stride in (1, 2, 3)
    },
    **{
        f"average-ceil{ceil}-include{include}-stride{stride}": _pool(
            "AveragePool",
            kernel_shape=[3, 4],
            strides=[stride, stride],
            pads=[1, 2, 0, 1],
            ceil_mode=ceil,
            count_include_pad=include,
        )
        for ceil in (0, 1)
        for include in (0, 1)
        for stride in (1, 2, 3)
    },
    **{
        f"max-ceil-stride{stride}-dilation{dilation}": _pool(
            "MaxPool",
            kernel_shape=[3, 2],
            strides=[stride, stride],
            pads=[1, 0, 1, 1],
            dilations=[dilation, dilation],
            ceil_mode=1,
        )
        for stride in (1, 2, 3)
        for dilation in (1, 2)
    },
    "average-ceil-drops-the-last-window": _pool(
        "AveragePool", kernel_shape=[3, 3], strides=[3, 3], pads=[0, 1, 2, 2], ceil_mode=1, count_include_pad=1
    ),
    "max-opset7": _pool("MaxPool", opset=7, kernel_shape=[2, 2]),
    "global-average": _unary("GlobalAveragePool", "x", PICTURE, 7),
    **{f"batch-norm-opset{opset}": _batch_norm(opset, PICTURE) for opset in (7, 9, 13, 14, 15)},
    "batch-norm-rank2": _batch_norm(15, ["N", 3]),
    "clip-opset7": _unary("Clip", "x", PICTURE, 7, min=-0.25, max=0.5),
    "clip-opset7-max-only": _unary("Clip", "x", PICTURE, 7, max=0.5),
    "clip-opset13-max-only": _unary("Clip", "x _ high", PICTURE, 13, np.float32(0.5)),
    "clip-opset13-min-only": _unary("Clip", "x low", PICTURE, 13, np.float32(0.5)),
    "pad-opset10": _unary("Pad", "x", PICTURE, 10, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5),
    "pad-opset13-crop": _unary("Pad", "x p v", PICTURE, 13, _integers(0, 0, 1, -2, 0, 1, -3, 0), np.float32(2)),
    "pad-opset18-axes": _unary("Pad", "x p _ a", PICTURE, 18, _integers(1, 2, 3, 4), _integers(-1, 1)),
    "mean-opset11": _unary("ReduceMean", "x", PICTURE, 11, axes=[-1, 2], keepdims=0),
    "mean-opset18": _unary("ReduceMean", "x a", PICTURE, 18, _integers(1, -1), keepdims=1),
    "mean-opset18-noop": _unary("ReduceMean", "x", PICTURE, 18, noop_with_empty_axes=1),
    "mean-everything": _unary("ReduceMean", "x", [2, 3, 4], 13, keepdims=0),
    "softmax-opset11-default": _unary("Softmax", "x", PICTURE, 11),
    "softmax-opset11-axis2": _unary("Softmax", "x", PICTURE, 11, axis=2),
    "softmax-opset11-flat": _unary("Softmax", "x", ["N", 7, 1, 1], 11),
    "softmax-opset13-default": _unary("Softmax", "x", PICTURE, 13),
    "softmax-opset13-channels": _unary("Softmax", "x", PICTURE, 13, axis=1),
    "squeeze-opset11": _unary("Squeeze", "x", ["N", 3, 1, 1], 11, axes=[-1, 2]),
    "squeeze-opset13": _unary("Squeeze", "x a", ["N", 3, 1, 1], 13, _integers(2, 3)),
    "squeeze-all": _unary("Squeeze", "x", [2, 1, 3, 1], 13),
    "unsqueeze-opset11": _unary("Unsqueeze", "x", ["N", 3], 11, axes=[-1, 1]),
    "unsqueeze-opset13": _unary("Unsqueeze", "x a", ["N", 3], 13, _integers(2, 3)),
    "flatten": _unary("Flatten", "x", PICTURE, 13),
    "flatten-fixed": _unary("Flatten", "x", [2, 3, 4, 5], 13, axis=-2),
    "flatten-all": _unary("Flatten", "x", [2, 3, 4], 13, axis=3),
    "reshape-copy": _unary("Reshape", "x t", PICTURE, 13, _integers(0, -1, 5)),
    "reshape-rest": _unary("Reshape", "x t", PICTURE, 13, _integers(-1, 90)),
    "reshape-opset7": _unary("Reshape", "x t", [2, 3, 4], 7, _integers(4, -1)),
    "transpose": _unary("Transpose", "x", PICTURE, 13, perm=[0, 3, 1, 2]),
    "dropout-opset7": _unary("Dropout", "x", PICTURE, 7, ratio=0.5),
    "dropout-opset13": _unary("Dropout", "x r t", PICTURE, 13, np.float32(0.5), np.bool_(False)),
    "cast": _unary("Cast", "x", PICTURE, 13, to=TensorProto.FLOAT),
    "gemm": _gemm(["N", 5], _array(4), _array(5, 4)),
    "gemm-no-addend": _gemm(["N", 5], None, _array(4, 5), transB=1),
    "gemm-scaled": _gemm(["N", 5], _array(1, 4), _array(4, 5), transB=1, alpha=0.5, beta=-2.0),
    "gemm-scalar-addend": _gemm(["N", 5], np.float32(3), _array(5, 4)),
    "gemm-transposed": _gemm([5, 2], _array(2, 1), _array(5, 4), transA=1, alpha=1.5),
    "gemm-matrix-addend": _gemm([2, 5], _array(2, 4), _array(5, 4), beta=0.25),
    "gemm-computed-addend": model(
        [node("Gemm", "x w", "p", alpha=2.0), node("Gemm", "x w p", "y", beta=3.0)],
        {"x": ["N", 5]},
        ["y"],
        {"w": _array(5, 4)},
    ),
    "matmul-stack": model([node("MatMul", "x w", "y")], {"x": ["N", 7, 5]}, ["y"], {"w": _array(5, 4)}),
    **{
        f"{op_type.lower()}-{inputs.replace(' ', '')}": model(
            [node(op_type, inputs, "y")], {"x": PICTURE}, ["y"], {"c": _array(3, 1, 5), "s": np.float32(1.5)}
        )
        for op_type in ("Add", "Sub", "Mul", "Div")
        for inputs in ("x c", "c x", "s x", "x x")
    },
    "sum-of-four": model([node("Sum", "x c x s", "y")], {"x": PICTURE}, ["y"], {"c": _array(6, 5), "s": np.float32(2)}),
    "two-inputs": model([node("Mul", "x z", "y")], {"x": PICTURE, "z": ["N", 3, 1, 1]}, ["y"]),
    "constants-of-all-kinds": model(
        [
            node("Constant", "", "f", value_float=0.5),
            node("Constant", "", "v", value_floats=[1.0, 2.0, 3.0, 4.0, 5.0]),
            node("Constant", "", "t", value=onnx.numpy_helper.from_array(_array(6, 1))),
            node("Mul", "f v", "g"),
            node("Sub", "g t", "h"),
            node("Add", "x h", "y"),
        ],
        {"x": PICTURE},
        ["y"],
    ),
    "reshape-as-pytorch-writes-it": model(
        [
            node("Shape", "x", "shape"),
            node("Constant", "", "zero", value_int=0),
            node("Gather", "shape zero", "batch"),
            node("Constant", "", "first", value_ints=[0]),
            node("Unsqueeze", "batch first", "batch1"),
            node("Constant", "", "rest", value_ints=[-1]),
            node("Concat", "batch1 rest", "target", axis=0),
            node("Reshape", "x target", "y"),
        ],
        {"x": PICTURE},
        ["y"],
    ),
    "reshape-as-tf2onnx-writes-it": model(
        [
            node("Shape", "x", "shape"),
            node("Cast", "shape", "shape32", to=TensorProto.INT32),
            node("Slice", "shape32 from to axis", "batch"),
            node("Concat", "batch sizes", "target32", axis=0),
            node("Cast", "target32", "target", to=TensorProto.INT64),
            node("Reshape", "x target", "y"),
        ],
        {"x": PICTURE},
        ["y"],
        {"from": _integers(0), "to": _integers(1), "axis": _integers(0), "sizes": np.array([15, 6], np.int32)},
    ),
    "size-computed-from-shape": model(
        [
            node("Shape", "x", "shape", start=1),
            node("Slice", "shape first last axis step", "reversed"),
            node("Gather", "reversed two", "width"),
            node("Mul", "width six", "columns"),
            node("Div", "columns three", "third"),
            node("Sub", "third two", "fewer"),
            node("Concat", "zero fewer rest", "target", axis=0),
            node("Reshape", "x target", "y"),
        ],
        {"x": ["N", 4, 6, 5]},
        ["y"],
        {
            "first": _integers(-1),
            "last": _integers(-9),
            "axis": _integers(0),
            "step": _integers(-1),
            "zero": _integers(0),
            "two": _integers(2),
            "three": _integers(3),
            "six": _integers(6),
            "rest": _integers(-1),
        },
        opset=15,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_generated_model_equals_onnxruntime(name: str) -> None:
    proto = MODELS[name]
    inputs = {
        info.name: random_input([dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim], seed=3)
        for info in proto.graph.input
    }
    graph = read_model(proto)
    for expected, plain, fused in zip(
        run_onnxruntime(proto, inputs),
        run_reference(graph, inputs),
        run_reference(run_passes(graph), inputs),
        strict=True,
    ):
        np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(fused, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_with_dilation_equals_onnx_reference(auto_pad: str, stride: int) -> None:
    """onnxruntime refuses this combination."""
    proto = _conv(auto_pad=auto_pad, strides=[stride, stride], dilations=[2, 1])
    x = {"x": random_input(["N", 4, 11, 8])}
    expected = ReferenceEvaluator(proto).run(None, x)[0]
    np.testing.assert_allclose(run_reference(read_model(proto), x)[0], expected, rtol=1e-5, atol=1e-5)


REAL = {
    "mobilenet_v2_1.0_224": ({"Conv": 53}, 2e-5),
    "tiny_resnet8": ({"Conv": 9, "Dense": 1}, 2e-5),
    "tiny_dscnn": ({"Conv": 9, "Dense": 1}, 2e-5),
    "tiny_vww96": ({"Conv": 27, "Dense": 1}, 2e-5),
    "tiny_ad": ({"Dense": 10}, 2e-5),
}
"""Model -> (its heavy ops, allowed difference from onnxruntime as a part of the largest output)."""


@pytest.mark.parametrize("name", REAL)
def test_real_model_equals_onnxruntime(models_dir: Path, name: str) -> None:
    heavy, tolerance = REAL[name]
    path = models_dir / f"{name}.onnx"
    graph = read_model(path)
    shape = graph.values[graph.inputs[0]].shape
    x = {graph.inputs[0]: np.random.default_rng(1).uniform(-1, 1, (2, *shape[1:])).astype(np.float32)}
    expected = run_onnxruntime(onnx.load(path), x)[0]
    fused = run_passes(graph)
    counts = {kind: sum(type(op).__name__ == kind for op in fused.ops) for kind in heavy}
    assert counts == heavy
    assert not any(type(op).__name__ in ("Clip", "Binary", "BatchNorm", "Pad") for op in fused.ops)
    for got in (run_reference(fused, x)[0], run_reference(fused, x, np.float64)[0]):
        assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def test_batch_is_symbolic_or_fixed() -> None:
    nodes = [node("Relu", "x", "y")]
    assert read_model(model(nodes, {"x": ["batch", 3]}, ["y"])).values["y"].shape == (BATCH, 3)
    assert read_model(model(nodes, {"x": [4, 3]}, ["y"])).values["y"].shape == (4, 3)
    unnamed = model(nodes, {"x": ["batch", 3]}, ["y"])
    unnamed.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    assert read_model(unnamed).values["y"].shape == (BATCH, 3)


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    """As models of IR version 3 state them."""
    proto = model([node("MatMul", "x w", "y")], {"x": ["N", 3], "w": [3, 2]}, ["y"], {"w": _array(3, 2)})
    assert read_model(proto).inputs == ("x",)


def test_nodes_without_a_name_get_a_stable_one() -> None:
    proto = model([node("Relu", "x", "hidden"), node("Relu", "hidden", "y", name="last")], {"x": ["N", 3]}, ["y"])
    assert [op.name for op in read_model(proto).ops] == ["Relu:hidden", "last"]


def test_model_is_read_from_path_bytes_and_proto(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], {"x": ["N", 3]}, ["y"])
    before = proto.SerializeToString()
    (tmp_path / "model.onnx").write_bytes(before)
    graphs = [read_model(source) for source in (tmp_path / "model.onnx", str(tmp_path / "model.onnx"), before, proto)]
    assert all(graph == graphs[0] for graph in graphs)
    assert proto.SerializeToString() == before


def test_external_data_inside_the_folder_is_read(tmp_path: Path) -> None:
    weight, bias = _array(5, 400), _array(400)
    proto = model([node("Gemm", "x w b", "y")], {"x": ["N", 5]}, ["y"], {"w": weight, "b": bias})
    (tmp_path / "weights").mkdir()
    onnx.save_model(
        proto,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights/all.bin",
        size_threshold=0,
    )
    graph = read_model(tmp_path / "model.onnx")
    np.testing.assert_array_equal(graph.constants["w"], weight)
    np.testing.assert_array_equal(graph.constants["y.bias"], bias)


def official_style_model(seed: int = 0) -> onnx.ModelProto:
    """A miniature in the style of MLCommons' resnet50_v1.onnx: tf2onnx, opset 8 forms, two outputs side by side."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes, constants = [], {}

    def conv_bn(x: str, y: str, out_channels: int, channels: int, size: int, **attributes: Any) -> None:
        constants[f"{y}/w"] = weights(out_channels, channels, size, size)
        nodes.append(node("Conv", f"{x} {y}/w", f"{y}/conv", **attributes))
        for key in ("gamma", "beta", "mean"):
            constants[f"{y}/{key}"] = weights(out_channels) + (key == "gamma")
        constants[f"{y}/var"] = rng.uniform(0.5, 2, out_channels).astype(np.float32)
        names = " ".join(f"{y}/{key}" for key in ("gamma", "beta", "mean", "var"))
        nodes.append(node("BatchNormalization", f"{y}/conv {names}", y, epsilon=1e-5))

    nodes.append(node("Identity", "input_tensor:0", "in"))
    nodes.append(node("Pad", "in", "padded", pads=[0, 0, 3, 3, 0, 0, 3, 3], mode="constant"))
    conv_bn("padded", "stem", 16, 3, 7, strides=[2, 2])
    nodes.append(node("Relu", "stem", "stem_relu"))
    nodes.append(node("MaxPool", "stem_relu", "pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"))
    conv_bn("pool", "shortcut", 32, 16, 1, strides=[2, 2])
    conv_bn("pool", "a", 8, 16, 1)
    nodes.append(node("Relu", "a", "a_relu"))
    nodes.append(node("Pad", "a_relu", "a_pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant"))
    conv_bn("a_pad", "b", 8, 8, 3, strides=[2, 2])
    nodes.append(node("Relu", "b", "b_relu"))
    conv_bn("b_relu", "c", 32, 8, 1)
    nodes += [node("Add", "c shortcut", "sum"), node("Relu", "sum", "block")]
    nodes += [
        node("ReduceMean", "block", "mean", axes=[2, 3], keepdims=1),
        node("Squeeze", "mean", "flat", axes=[2, 3]),
    ]
    constants["dense/w"], constants["dense/b"] = weights(32, 1001), weights(1001)
    nodes += [node("MatMul", "flat dense/w", "product"), node("Add", "product dense/b", "logits")]
    nodes.append(node("Softmax", "logits", "softmax_tensor:0", axis=1))
    nodes.append(node("ArgMax", "logits", "ArgMax:0", axis=1, keepdims=0))
    proto = model(
        nodes, {"input_tensor:0": ["unk__616", 3, 40, 40]}, ["ArgMax:0", "softmax_tensor:0"], constants, opset=8
    )
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return proto


def test_official_style_equals_onnxruntime_and_is_fully_fused() -> None:
    proto = official_style_model()
    x = {"input_tensor:0": random_input(["N", 3, 40, 40], batch=3)}
    graph = run_passes(read_model(proto))
    assert graph.outputs == ("ArgMax:0", "softmax_tensor:0")
    assert [graph.values[name].dtype for name in graph.outputs] == ["int64", "float32"]
    assert [type(op).__name__ for op in graph.ops] == [
        *("Conv", "Pool", "Conv", "Conv", "Conv", "Conv", "Mean", "Reshape", "Dense", "Softmax", "ArgMax")
    ]  # fmt: skip
    expected = run_onnxruntime(proto, x)
    got = run_reference(graph, x)
    assert got[0].dtype == np.int64
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-4)


def test_outputs_that_are_not_asked_for_are_not_computed() -> None:
    proto = official_style_model()
    graph = run_passes(prune(read_model(proto), ["ArgMax:0"]))
    assert not any(isinstance(op, Softmax) for op in graph.ops)
    assert graph.outputs == ("ArgMax:0",)


def test_intermediate_values_can_be_asked_for() -> None:
    proto = official_style_model()
    names = ["logits", "c/conv", "sum", "in", "stem"]
    x = {"input_tensor:0": random_input(["N", 3, 40, 40])}
    with_outputs = onnx.ModelProto()
    with_outputs.CopyFrom(proto)
    del with_outputs.graph.output[:]
    with_outputs.graph.output.extend(onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    graph = run_passes(prune(read_model(proto), names))
    assert any(isinstance(op, Conv) for op in graph.ops) and any(isinstance(op, Dense) for op in graph.ops)
    for got, expected in zip(run_reference(graph, x), run_onnxruntime(with_outputs, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
