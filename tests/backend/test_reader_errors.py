"""Every refusal of the reader, with its text; and damaged files, which may end in nothing but a ModelError."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node

from backend.errors import ModelError
from backend.graph.onnx_reader import read_model

W34 = np.ones((3, 4), np.float32)
FILTER = np.ones((4, 3, 3, 3), np.float32)
PICTURE = ["N", 3, 8, 8]


def _one(
    op_type: str, inputs: str, shape: Any, constants: Any = None, opset: int = 13, **attributes: Any
) -> onnx.ModelProto:
    return model([node(op_type, inputs, "y", **attributes)], {"x": shape}, ["y"], constants, opset=opset)


def _changed(proto: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    change(proto)
    return proto


def _relu(shape: Any = ("N", 3)) -> onnx.ModelProto:
    return _one("Relu", "x", shape)


def _with_tensor(**fields: Any) -> onnx.ModelProto:
    """MatMul whose weight is the TensorProto of these fields."""
    proto = _one("MatMul", "x w", ["N", 3])
    proto.graph.initializer.append(TensorProto(name="w", **fields))
    return proto


def _with_subgraph() -> onnx.ModelProto:
    proto = _one("Relu", "x", ["N", 3])
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["s"], value_strings=[b"a"]))
    return proto


REFUSALS = {
    "unsupported op": (
        _changed(_one("LSTM", "x", PICTURE), lambda p: setattr(p.graph.node[0], "name", "recurrent")),
        r"unsupported op LSTM \(node 'recurrent'\); supported: Add, ArgMax, AveragePool, .*Unsqueeze",
    ),
    "unsupported domain": (
        _changed(_relu(), lambda p: setattr(p.graph.node[0], "domain", "com.microsoft")),
        r"unsupported op com.microsoft.Relu \(node 'Relu:y'\); supported: ",
    ),
    "old opset": (
        _changed(_relu(), lambda p: setattr(p.opset_import[0], "version", 6)),
        "domain ai.onnx: 6; supported are 7 to 28: convert the model with onnx.version_converter",
    ),
    "no opset": (_changed(_relu(), lambda p: p.opset_import.pop()), "operator-set version of domain ai.onnx: none"),
    "no nodes": (
        _changed(_relu(), lambda p: p.graph.node.pop()),
        "holds 0 nodes and 1 outputs; it is not an ONNX model",
    ),
    "no inputs": (_changed(_relu(), lambda p: p.graph.input.pop()), "has no inputs"),
    "dynamic picture size": (
        _relu(["N", 3, "height", 8]),
        r"input 'x': axis 2 is 'height'; only the batch \(axis 0\) may be dynamic: fix the others with onnx.tools",
    ),
    "empty input": (_relu(["N", 0]), "input 'x': axis 1 has size 0"),
    "input without shape": (
        _changed(_relu(), lambda p: p.graph.input[0].type.tensor_type.ClearField("shape")),
        "input 'x' has no shape",
    ),
    "input is no tensor": (
        _changed(_relu(), lambda p: p.graph.input[0].type.Clear()),
        "input 'x' is not a tensor with a name",
    ),
    "input is int64": (
        _changed(_relu(), lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64)),
        "input 'x' has element type INT64; only FLOAT is supported",
    ),
    "batches mixed": (
        model([node("Add", "x z", "y")], {"x": ["N", 3], "z": [1, 3]}, ["y"]),
        "inputs x, z: only x have a dynamic batch; make all or none so",
    ),
    "missing initializer": (
        _one("Conv", "x w", PICTURE),
        r"node 'Conv:y' \(Conv\): input 1 \('w'\) is missing: no input, initializer or earlier node has this name",
    ),
    "computed weight": (
        model([node("Conv", "x w", "y")], {"x": [1, 3, 8, 8], "w": [4, 3, 3, 3]}, ["y"]),
        r"node 'Conv:y' \(Conv\): input 1 \('w'\) must be a constant, but the model computes it",
    ),
    "constant input of an op": (
        model([node("Relu", "w", "h"), node("Add", "x h", "y")], {"x": ["N", 4]}, ["y"], {"w": W34}),
        r"node 'Relu:h' \(Relu\): input 0 \('w'\) is a constant; here it must depend on the model's input",
    ),
    "weight of float64": (
        _one("MatMul", "x w", ["N", 3], {"w": W34.astype(np.float64)}),
        r"input 1 \('w'\) is float64; only float32 is supported",
    ),
    "empty weight": (
        _one("Add", "x w", ["N", 3], {"w": W34[:0]}),
        r"input 1 \('w'\) has shape \[0, 4\], which is empty",
    ),
    "read before written": (
        model([node("Relu", "h", "y"), node("Relu", "x", "h")], {"x": ["N", 3]}, ["y"]),
        r"node 'Relu:y' \(Relu\): input 0 \('h'\) is missing",
    ),
    "written twice": (
        model([node("Relu", "x", "y"), node("Relu", "x", "y")], {"x": ["N", 3]}, ["y"]),
        "value 'y' is defined twice",
    ),
    "output is a constant": (
        model([node("Relu", "x", "h")], {"x": ["N", 3]}, ["w"], {"w": W34}),
        "output 'w' is a constant; an output must depend on the model's input",
    ),
    "output is an input": (model([node("Relu", "x", "y")], {"x": ["N", 3]}, ["x"]), "output 'x' is an input"),
    "output that nothing computes": (
        model([node("Relu", "x", "y")], {"x": ["N", 3]}, ["z"]),
        "output 'z': no node computes it",
    ),
    "second output": (
        model([node("MaxPool", "x", "y indices", kernel_shape=[2, 2])], {"x": PICTURE}, ["y", "indices"]),
        r"node 'MaxPool:y' \(MaxPool\): output 1 \('indices'\) is used; only output 0 is supported",
    ),
    "attribute that the op has not": (_one("Relu", "x", ["N", 3], slope=0.1), r"node 'Relu:y' \(Relu\): .*slope"),
    "attribute of the wrong type": (_one("Flatten", "x", PICTURE, axis=1.5), r"node 'Flatten:y' \(Flatten\): .*axis"),
    "attribute of an unknown kind": (
        _with_subgraph(),
        r"node 'Constant:s' \(Constant\): attribute 'value_strings' is of a kind",
    ),
    "too many inputs": (_one("Relu", "x x", ["N", 3]), r"node 'Relu:y' \(Relu\): .*input size 2"),
    "auto_pad unknown": (
        _one("Conv", "x w", PICTURE, {"w": FILTER}, auto_pad="SAME"),
        "attribute 'auto_pad' is 'SAME'; supported: NOTSET, VALID, SAME_UPPER, SAME_LOWER",
    ),
    "negative pads": (
        _one("Conv", "x w", PICTURE, {"w": FILTER}, pads=[0, -1, 0, 0]),
        r"attribute 'pads' is \[0, -1, 0, 0\]; expected four numbers that are not negative",
    ),
    "zero stride": (
        _one("MaxPool", "x", PICTURE, kernel_shape=[2, 2], strides=[1, 0]),
        r"attribute 'strides' is \[1, 0\]; expected positive numbers",
    ),
    "1-D convolution": (
        _one("Conv", "x w", ["N", 3, 8], {"w": FILTER[..., 0]}),
        r"input 'x' has shape \[N, 3, 8\]; only 2-D pictures \(rank 4\) are supported",
    ),
    "1-D kernel": (
        _one("MaxPool", "x", PICTURE, kernel_shape=[2]),
        r"attribute 'kernel_shape' is \[2\]; only 2-D \(two numbers\) is supported",
    ),
    "kernel_shape of another weight": (
        _one("Conv", "x w", PICTURE, {"w": FILTER}, kernel_shape=[5, 5]),
        r"attribute 'kernel_shape' is \(5, 5\), weight 'w' has \(3, 3\)",
    ),
    "channels that do not fit": (
        _one("Conv", "x w", ["N", 5, 8, 8], {"w": FILTER}),
        r"node 'Conv:y' \(Conv\): input \[N, 5, 8, 8\] does not fit weight \[4, 3, 3, 3\] with group 1",
    ),
    "bias that does not fit": (
        _one("Conv", "x w b", PICTURE, {"w": FILTER, "b": np.ones(3, np.float32)}),
        r"node 'Conv:y' \(Conv\): bias \[3\] should be \[4\]",
    ),
    "kernel larger than the picture": (
        _one("MaxPool", "x", PICTURE, kernel_shape=[9, 9]),
        r"kernel \(9, 9\) with dilations \(1, 1\) exceeds input \[N, 3, 8, 8\] with pads \(0, 0, 0, 0\)",
    ),
    "batch norm in training mode": (
        model(
            [node("BatchNormalization", "x w w w w", "y", training_mode=1)],
            {"x": PICTURE},
            ["y"],
            {"w": W34[:, 0]},
            opset=15,
        ),
        r"only the inference form \(training_mode=0, spatial=1\) is supported",
    ),
    "batch norm of other channels": (
        model([node("BatchNormalization", "x w w w w", "y")], {"x": PICTURE}, ["y"], {"w": W34[0]}),
        r"scale, bias, mean and variance have shapes \[\[4\], .*; input \[N, 3, 8, 8\] needs \[C\]",
    ),
    "batch norm of negative variance": (
        model([node("BatchNormalization", "x w w w v", "y")], {"x": PICTURE}, ["y"], {"w": W34[:, 0], "v": -W34[:, 0]}),
        r"variance \+ epsilon falls to -0.99999",
    ),
    "clip with a computed bound": (
        model([node("Clip", "x low", "y")], {"x": [2, 3], "low": []}, ["y"]),
        r"node 'Clip:y' \(Clip\): input 1 \('low'\) must be a constant",
    ),
    "clip with many bounds": (
        _one("Clip", "x w", ["N", 4], {"w": W34}),
        r"input 1 \('w'\) is float32 \[3, 4\], expected one number",
    ),
    "clip at NaN": (
        _one("Clip", "x w", ["N", 4], {"w": np.float32(np.nan)}),
        "bounds nan and 3.4.*: NaN bounds nothing",
    ),
    "gemm of rank 3": (
        _one("Gemm", "x w", ["N", 2, 3], {"w": W34}),
        r"input 'x' has shape \[N, 2, 3\], expected rank 2",
    ),
    "gemm that does not fit": (
        _one("Gemm", "x w", ["N", 4], {"w": W34}),
        r"input \[N, 4\] does not fit weight \[3, 4\]",
    ),
    "gemm addend that widens": (
        _one("Gemm", "x w c", [1, 3], {"w": W34, "c": W34}),
        r"input 2 does not broadcast to the product's shape \[1, 4\]",
    ),
    "matmul of two computed values": (
        model([node("MatMul", "x x", "y")], {"x": [3, 3]}, ["y"]),
        r"node 'MatMul:y' \(MatMul\): input 1 \('x'\) must be a constant",
    ),
    "shapes that do not broadcast": (
        _one("Add", "x w", ["N", 3], {"w": W34}),
        r"node 'Add:y' \(Binary\): shapes \[N, 3\] and \[3, 4\] do not broadcast",
    ),
    "batch meets a fixed size": (
        _one("Add", "x w", ["N", 4], {"w": W34}),
        r"node 'Add:y' \(Binary\): shapes \[N, 4\] and \[3, 4\] do not broadcast",
    ),
    "pad mode": (
        _one("Pad", "x p", PICTURE, {"p": np.zeros(8, np.int64)}, mode="reflect"),
        "attribute 'mode' is 'reflect'; only 'constant' is supported",
    ),
    "pads of another rank": (
        _one("Pad", "x p", PICTURE, {"p": np.zeros(6, np.int64)}),
        r"6 pads for 4 axes \[0, 1, 2, 3\]; expected two for each axis",
    ),
    "padding the batch": (
        _one("Pad", "x p", ["N", 3], {"p": np.ones(4, np.int64)}),
        r"works across the batch \(axis 0 of input \[N, 3\]\); this is not supported",
    ),
    "cropping everything": (
        _one("Pad", "x p", ["N", 3], {"p": np.array([0, -2, 0, -1])}),
        r"the output would have shape \[N, 0\]",
    ),
    "pads that are no integers": (
        _one("Pad", "x p", ["N", 3], {"p": np.zeros(4, np.float32)}),
        r"input 1 \('p'\) is float32 of rank 1, expected integers",
    ),
    "mean over the batch": (
        _one("ReduceMean", "x", ["N", 3], axes=[0]),
        r"works across the batch \(axis 0 of input \[N, 3\]\)",
    ),
    "axis that is not there": (_one("ArgMax", "x", ["N", 3], axis=2), "axis 2 does not exist in an input of rank 2"),
    "axes that repeat": (_one("ReduceMean", "x", ["N", 3], axes=[1, -1]), r"axes \[1, -1\] repeat an axis"),
    "softmax over the batch": (_one("Softmax", "x", ["N", 3], opset=11, axis=0), "works across the batch"),
    "transpose of the batch": (
        _one("Transpose", "x", ["N", 3], perm=[1, 0]),
        r"perm \(1, 0\) moves the batch axis of input \[N, 3\]; this is not supported",
    ),
    "perm that is none": (_one("Transpose", "x", [2, 3], perm=[1, 1]), r"perm \(1, 1\) is not a permutation"),
    "reshape that does not fit": (
        _one("Reshape", "x t", PICTURE, {"t": np.array([0, 100])}),
        r"input 'x' of shape \[N, 3, 8, 8\] cannot take shape \[0, 100\]; the batch must stay in axis 0",
    ),
    "reshape that fixes the batch": (
        _one("Reshape", "x t", PICTURE, {"t": np.array([1, -1])}),
        r"cannot take shape \[1, -1\]; the batch must stay in axis 0 of a model with a dynamic batch",
    ),
    "flatten of the batch": (_one("Flatten", "x", PICTURE, axis=2), r"axis 2 of input \[N, 3, 8, 8\] merges the batch"),
    "squeeze of a wide axis": (
        _one("Squeeze", "x a", PICTURE, {"a": np.array([1])}),
        r"axes \[1\] of input \[N, 3, 8, 8\] are not all of size 1",
    ),
    "dropout in training mode": (
        _one("Dropout", "x r t", ["N", 3], {"r": np.float32(0.5), "t": np.bool_(True)}),
        "training_mode is true; only inference is supported",
    ),
    "cast of a computed value": (
        _one("Cast", "x", ["N", 3], to=TensorProto.INT64),
        "casts 'x' from float32 to element type 7 of ONNX's TensorProto; only casts that change nothing are supported",
    ),
    "arithmetic on class indices": (
        model([node("ArgMax", "x", "i"), node("Relu", "i", "y")], {"x": [2, 3]}, ["y"], opset=14),
        r"node 'Relu:y' \(Clip\): input 'i' is int64; only float32 is supported here",
    ),
    "folding op on a computed value": (
        _one("Gather", "x i", [2, 3], {"i": np.array([0])}),
        r"node 'Gather:y' \(Gather\): depends on the model's input; Gather is supported only on constants",
    ),
    "computing with the batch size": (
        model(
            [node("Shape", "x", "s"), node("Mul", "s two", "t"), node("Reshape", "x t", "y")],
            {"x": ["N", 3]},
            ["y"],
            {"two": np.array([2])},
        ),
        r"node 'Mul:t' \(Mul\): computes with the batch size, which is known only at run time",
    ),
    "constants that cannot be computed": (
        model(
            [node("Gather", "w i", "g"), node("Add", "x g", "y")],
            {"x": ["N", 4]},
            ["y"],
            {"w": W34, "i": np.array([9])},
        ),
        r"node 'Gather:g' \(Gather\): cannot be computed from constants of shapes \[\[3, 4\], \[1\]\]: index 9",
    ),
    "integer division by zero": (
        model(
            [node("Div", "i z", "d"), node("Reshape", "x d", "y")],
            {"x": ["N", 4]},
            ["y"],
            {"i": np.array([4]), "z": np.array([0])},
        ),
        r"node 'Div:d' \(Div\): cannot be computed .*integer division by zero",
    ),
    "constants of two types": (
        model(
            [node("Add", "i w", "d"), node("Add", "x d", "y")], {"x": ["N", 4]}, ["y"], {"i": np.array([4]), "w": W34}
        ),
        "input types int64 and float32 differ or are not numbers",
    ),
    "cast of constants to an odd type": (
        model(
            [node("Cast", "w", "c", to=TensorProto.UINT8), node("Add", "x c", "y")], {"x": ["N", 4]}, ["y"], {"w": W34}
        ),
        r"attribute 'to' is 2; supported element types are \[1, 6, 7, 11\]",
    ),
    "constant without a value": (
        _changed(
            model([node("Constant", "", "c", value_int=1), node("Add", "x c", "y")], {"x": ["N", 4]}, ["y"]),
            lambda p: p.graph.node[0].attribute.pop(),
        ),
        r"node 'Constant:c' \(Constant\): attributes \[\] hold no dense tensor of numbers",
    ),
    "tensor of another element type": (
        _with_tensor(dims=[3, 4], data_type=TensorProto.FLOAT16, raw_data=bytes(24)),
        "constant 'w' has element type FLOAT16; supported: FLOAT, DOUBLE, INT32, INT64, BOOL, INT8, UINT8",
    ),
    "tensor of an unknown element type": (
        _with_tensor(dims=[3, 4], data_type=99),
        "constant 'w' has element type 99; supported: FLOAT",
    ),
    "tensor of negative size": (
        _with_tensor(dims=[3, -4], data_type=TensorProto.FLOAT),
        r"constant 'w' has shape \[3, -4\]; the file is damaged",
    ),
    "tensor with too few bytes": (
        _with_tensor(dims=[3, 4], data_type=TensorProto.FLOAT, raw_data=bytes(44)),
        r"constant 'w' of shape \[3, 4\] holds 44 bytes, expected 48; the file is damaged",
    ),
    "tensor with too few numbers": (
        _with_tensor(dims=[3, 4], data_type=TensorProto.FLOAT, float_data=[1.0]),
        r"constant 'w' of shape \[3, 4\] cannot be read \(.*\); the file is damaged",
    ),
    "sparse tensor": (
        _changed(_relu(), lambda p: p.graph.sparse_initializer.add()),
        "has 1 sparse initializers; only dense ones are supported",
    ),
    "value beyond all measure": (
        _one("Pad", "x p", ["N", 3], {"p": np.array([0, 0, 0, 2**40])}),
        r"node 'Pad:y': output \[N, 1099511627779\] has more than 2147483647 elements per sample",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_says_what_where_and_which_values(name: str) -> None:
    proto, text = REFUSALS[name]
    with pytest.raises(ModelError) as caught:
        read_model(proto)
    assert re.search(text, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(ModelError) as caught:
            read_model(path)
        assert str(caught.value).startswith(str(path))
        return str(caught.value)

    assert "no such file" in refusal(tmp_path / "absent.onnx")
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "empty.onnx").touch()
    assert "the file is empty" in refusal(tmp_path / "empty.onnx")
    (tmp_path / "page.html").write_text("<!DOCTYPE html><title>404 Not Found</title>")
    assert "are not an ONNX model" in refusal(tmp_path / "page.html")
    (tmp_path / "half.onnx").write_bytes(_fuzzed_model()[:-5])
    assert "truncated, damaged" in refusal(tmp_path / "half.onnx")


OUTSIDE = [
    "/etc/hostname",
    "../secret.bin",
    "sub/../../secret.bin",
    "..\\secret.bin",
    "C:\\secret.bin",
    "C:secret.bin",
    "",
    "link.bin",
]


@pytest.mark.parametrize("location", OUTSIDE)
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    _save_external(folder, location=location)
    with pytest.raises(ModelError, match=r"external data of constant 'w' is in .*, outside the model's folder"):
        read_model(folder / "model.onnx")


def test_external_data_that_cannot_be_read(tmp_path: Path) -> None:
    def refusal(**entries: object) -> str:
        _save_external(tmp_path, **entries)
        with pytest.raises(ModelError) as caught:
            read_model(tmp_path / "model.onnx")
        return str(caught.value)

    assert "cannot be read (No such file or directory)" in refusal(location="absent.bin")
    (tmp_path / "w.bin").write_bytes(bytes(50))
    assert "needs bytes 8 to 56 of" in refusal(location="w.bin", offset=8)
    assert "has length 40, shape [3, 4] needs 48 bytes" in refusal(location="w.bin", length=40)
    assert "offset is '-1', expected a number of bytes" in refusal(location="w.bin", offset=-1)
    with pytest.raises(ModelError, match=r"is in 'w.bin', but the model was not given by path"):
        read_model((tmp_path / "model.onnx").read_bytes())


def _save_external(folder: Path, **entries: object) -> None:
    tensor = TensorProto(name="w", dims=[3, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    proto = _one("MatMul", "x w", ["N", 3])
    proto.graph.initializer.append(tensor)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def _fuzzed_model() -> bytes:
    """A model with most kinds of nodes; small, so that a flipped bit more often hits structure than numbers."""
    nodes = [
        node("Pad", "x p", "a", name="pad"),
        node("Conv", "a w b", "c", strides=[2, 2], auto_pad="SAME_UPPER"),
        node("BatchNormalization", "c b b b v", "d", epsilon=1e-3),
        node("Clip", "d low high", "e"),
        node("MaxPool", "e", "f", kernel_shape=[2, 2], ceil_mode=1, pads=[1, 1, 0, 0]),
        node("AveragePool", "f", "g", kernel_shape=[2, 2], count_include_pad=1),
        node("Shape", "g", "s"),
        node("Slice", "s zero one", "n"),
        node("Concat", "n rest", "t", axis=0),
        node("Reshape", "g t", "h"),
        node("Gemm", "h m", "i", alpha=0.5, transB=1),
        node("Unsqueeze", "i one", "j"),
        node("ReduceMean", "j", "k", axes=[1], keepdims=0),
        node("Softmax", "k", "y", axis=-1),
        node("ArgMax", "k", "z", axis=1),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    constants = {
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "w": rng.random((4, 3, 3, 3), np.float32),
        "b": rng.random(4, np.float32),
        "v": rng.random(4, np.float32) + 1,
        "low": np.float32(0),
        "high": np.float32(6),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([-1]),
        "m": rng.random((5, 100), np.float32),
    }
    proto = model(nodes, {"x": ["N", 3, 9, 9]}, ["y", "z"], constants)
    for tensor in proto.graph.initializer:
        if tensor.name in ("p", "b"):  # both ways of storing numbers
            array = numpy_helper.to_array(tensor).reshape(-1)
            kind = TensorProto.FLOAT if array.dtype == np.float32 else TensorProto.INT64
            tensor.CopyFrom(helper.make_tensor(tensor.name, kind, array.shape, array.tolist()))
    return proto.SerializeToString()


def test_the_fuzzed_model_is_sound() -> None:
    assert read_model(_fuzzed_model()).outputs == ("y", "z")


def test_damaged_files_end_in_model_errors_only() -> None:
    """Truncations at every length, and single and multiple flipped bits; any other exception fails the test."""
    data = _fuzzed_model()
    rng = np.random.default_rng(1)
    damaged = [data[:length] for length in range(0, len(data), 3)]
    for flips in (1, 1, 1, 4, 30):
        for _ in range(300):
            changed = bytearray(data)
            for position in rng.integers(0, len(data), flips):
                changed[position] ^= 1 << int(rng.integers(8))
            damaged.append(bytes(changed))
    refused = 0
    for candidate in damaged:
        try:
            read_model(candidate)
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(damaged) // 2
