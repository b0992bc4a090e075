"""ONNX model -> Graph. The only file of the backend that imports onnx.

Called by the session. Everything read here comes from a file that may be damaged or hostile: whatever is wrong with
it ends in a ModelError of one line, and no file outside the model's folder is opened.

May import: ir, shapes, check, builder, onnx_ops, onnx_constants, errors.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PureWindowsPath
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import checker, numpy_helper

from ..errors import ModelError
from .builder import Array, GraphBuilder, Node
from .check import check
from .ir import BATCH, Graph, Shape, Value
from .onnx_constants import FOLDERS, fold
from .onnx_ops import OPERATORS
from .prune import drop_unused
from .shapes import shape_text

MIN_OPSET: Final = 7
MAX_OPSET: Final = 28
"""Operator-set versions whose differences `onnx_ops` knows."""

_EXTERNAL: Final = onnx.TensorProto.EXTERNAL
_ITEM_BYTES: Final[dict[int, int]] = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.INT32: 4,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
}
"""Element types of constants that are read; numpy_helper.tensor_dtype_to_np_dtype gives the NumPy type."""

_INTEGER_OPS: Final = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
"""How op types begin that compute with integers, in ONNX and in onnxruntime's own domain."""


def read_model(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Graph:
    """The graph of an ONNX model, checked and pruned to its outputs.

    model: path of an .onnx file, its bytes, or a ModelProto (left unchanged). External data is read only from the
    folder of a model that is given by path. Raises ModelError if the model cannot be read or is not supported.
    """
    folder: Path | None = None
    if isinstance(model, onnx.ModelProto):
        proto, source = model, "model"
    elif isinstance(model, bytes):
        proto, source = _parse(model, "model"), "model"
    else:
        path = Path(model)
        proto, source, folder = _parse(_read_file(path), str(path)), str(path), path.parent
    try:
        return _read_graph(proto, folder)
    except UnicodeDecodeError as error:
        raise ModelError(f"{source}: a name in the file is not UTF-8 ({error}); the file is damaged") from error
    except ModelError as error:
        # Names come from the file: whatever they hold, the text stays one line.
        raise ModelError(f"{source}: {' '.join(str(error).split())}") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; give the path of an ONNX model") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give the path of an ONNX model") from error


def _parse(data: bytes, source: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{source}: the file is empty; get the ONNX model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{source}: {len(data)} bytes are not an ONNX model (protobuf: {error}); the file is truncated, damaged or "
            "of another format"
        ) from error
    return proto


def _read_graph(proto: onnx.ModelProto, folder: Path | None) -> Graph:
    graph = proto.graph
    if not graph.node or not graph.output:
        raise ModelError(
            f"holds {len(graph.node)} nodes and {len(graph.output)} outputs; it is not an ONNX model or is truncated"
        )
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    builder = GraphBuilder(_opset(proto), frozenset(names | {info.name for info in graph.input}))
    if graph.sparse_initializer:
        raise ModelError(f"has {len(graph.sparse_initializer)} sparse initializers; only dense ones are supported")
    for tensor in graph.initializer:
        _define(builder, tensor.name)
        builder.known[tensor.name] = _tensor(tensor, folder)
    inputs = tuple(_add_input(builder, info) for info in graph.input if info.name not in builder.known)
    if not inputs:
        raise ModelError("has no inputs")
    batched = [name for name in inputs if builder.values[name].shape[:1] == (BATCH,)]
    if batched and len(batched) != len(inputs):
        raise ModelError(
            f"inputs {', '.join(inputs)}: only {', '.join(batched)} have a dynamic batch; make all or none so"
        )
    _refuse_unsupported(graph)
    context = _checker_context(proto)
    read_names = {name for node in graph.node for name in node.input} | {info.name for info in graph.output}
    for node_proto in graph.node:
        _check_schema(node_proto, context)
        _add_node(builder, _node(node_proto, folder), read_names)
    outputs = tuple(_check_output(builder, info.name, inputs) for info in graph.output)
    return check(drop_unused(builder.graph(graph.name, inputs, outputs)))


def _opset(proto: onnx.ModelProto) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        stated = ", ".join(map(str, versions)) or "none"
        raise ModelError(
            f"operator-set version of domain ai.onnx: {stated}; supported are {MIN_OPSET} to {MAX_OPSET}: "
            "convert the model with onnx.version_converter"
        )
    return int(versions[0])


def _checker_context(proto: onnx.ModelProto) -> checker.C.CheckerContext:
    context = checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {entry.domain: entry.version for entry in proto.opset_import}
    return context


def _define(builder: GraphBuilder, name: str) -> None:
    if name in builder.known or name in builder.values:
        raise ModelError(f"value {name!r} is defined twice")


def _add_input(builder: GraphBuilder, info: onnx.ValueInfoProto) -> str:
    if info.name == "" or info.type.WhichOneof("value") != "tensor_type":
        raise ModelError(f"input {info.name!r} is not a tensor with a name")
    tensor = info.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        bytes_ = tensor.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
        advice = ": a model that is quantised needs a float32 input with QuantizeLinear behind it"
        raise ModelError(
            f"input {info.name!r} has element type {_type_name(tensor.elem_type)}; only FLOAT is supported"
            + (advice if bytes_ else "")
        )
    if not tensor.HasField("shape"):
        raise ModelError(f"input {info.name!r} has no shape; fix it with onnx.tools.update_model_dims")
    shape = []
    for axis, dim in enumerate(tensor.shape.dim):
        known = dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0  # some exporters write -1 for unknown
        if known and dim.dim_value == 0:
            raise ModelError(f"input {info.name!r}: axis {axis} has size 0; only inputs with elements are supported")
        if not known and axis > 0:
            raise ModelError(
                f"input {info.name!r}: axis {axis} is {dim.dim_param or dim.dim_value or 'unknown'!r}; only the "
                "batch (axis 0) may be dynamic: fix the others with onnx.tools.update_model_dims"
            )
        shape.append(dim.dim_value if known else BATCH)
    _define(builder, info.name)
    builder.values[info.name] = Value(info.name, tuple(shape))
    return info.name


def _type_name(elem_type: int) -> str:
    known = elem_type in onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(elem_type)) if known else str(elem_type)


def _node_name(node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type}:{next((name for name in node.output if name), '?')}"


def _refuse_unsupported(graph: onnx.GraphProto) -> None:
    """Names every op type that is not supported at once, with the first node that uses it."""
    refused: dict[str, str] = {}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            refused.setdefault(f"{node.domain}.{node.op_type}", _node_name(node))
        elif node.op_type not in OPERATORS and node.op_type not in FOLDERS:
            refused.setdefault(f"{node.op_type}", _node_name(node))  # bytes, in a damaged file
    if not refused:
        return
    found = ", ".join(f"{op_type} (node {name!r})" for op_type, name in refused.items())
    integers = [op_type for op_type in refused if op_type.rpartition(".")[2].startswith(_INTEGER_OPS)]
    advice = (
        "; a quantised model states its integers by QuantizeLinear and DequantizeLinear around float32 ops: quantise "
        "the float32 model again, in QDQ format"
    )
    supported = f"; supported: {', '.join(sorted(OPERATORS.keys() | FOLDERS.keys()))}"
    others = len(integers) < len(refused)
    raise ModelError(f"unsupported op {found}{advice if integers else ''}{supported if others else ''}")


def _check_schema(node: onnx.NodeProto, context: checker.C.CheckerContext) -> None:
    try:
        checker.check_node(node, context)
    except checker.ValidationError as error:
        reason = " ".join(str(error).split("==>")[0].split())
        raise ModelError(f"node {_node_name(node)!r} ({node.op_type}): {reason}") from error


def _node(proto: onnx.NodeProto, folder: Path | None) -> Node:
    attributes = {attribute.name: _attribute(proto, attribute, folder) for attribute in proto.attribute}
    return Node(_node_name(proto), proto.op_type, tuple(proto.input), tuple(proto.output), attributes)


def _attribute(node: onnx.NodeProto, attribute: onnx.AttributeProto, folder: Path | None) -> object:
    kind = attribute.type
    if kind == onnx.AttributeProto.INT:
        return attribute.i
    if kind == onnx.AttributeProto.FLOAT:
        return attribute.f
    if kind == onnx.AttributeProto.STRING:
        return attribute.s.decode("utf-8")
    if kind == onnx.AttributeProto.INTS:
        return tuple(attribute.ints)
    if kind == onnx.AttributeProto.FLOATS:
        return tuple(attribute.floats)
    if kind == onnx.AttributeProto.TENSOR:
        return _tensor(attribute.t, folder)
    raise ModelError(
        f"node {_node_name(node)!r} ({node.op_type}): attribute {attribute.name!r} is of a kind that is not supported "
        "(numbers, strings and dense tensors are)"
    )


def _add_node(builder: GraphBuilder, node: Node, read_names: set[str]) -> None:
    if not node.outputs or node.outputs[0] == "":
        raise node.error("has no output")
    for index, name in enumerate(node.outputs[1:], start=1):
        if name and name in read_names:
            raise node.error(f"output {index} ({name!r}) is used; only output 0 is supported")
    for name in node.outputs:
        if name:
            _define(builder, name)
    folded = fold(builder, node)
    if folded is not None:
        builder.known[node.outputs[0]] = folded
    elif node.op_type in OPERATORS:
        OPERATORS[node.op_type](builder, node)
    else:
        raise node.error(
            f"depends on the model's input; {node.op_type} is supported only on constants and known shapes"
        )


def _check_output(builder: GraphBuilder, name: str, inputs: tuple[str, ...]) -> str:
    if name in builder.known:
        raise ModelError(f"output {name!r} is a constant; an output must depend on the model's input")
    if name in inputs:
        raise ModelError(f"output {name!r} is an input; an output must be computed")
    if name not in builder.values:
        raise ModelError(f"output {name!r}: no node computes it")
    return name


def _tensor(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The array of a constant, its size checked against its shape before anything is allocated."""
    shape = tuple(tensor.dims)
    if tensor.data_type not in _ITEM_BYTES:
        raise ModelError(
            f"constant {tensor.name!r} has element type {_type_name(tensor.data_type)}; supported: "
            + ", ".join(_type_name(kind) for kind in _ITEM_BYTES)
        )
    if any(size < 0 for size in shape):
        raise ModelError(f"constant {tensor.name!r} has shape {list(shape)}; the file is damaged")
    if tensor.data_location == _EXTERNAL:
        return _external(tensor, shape, folder)
    if tensor.HasField("raw_data"):
        expected = math.prod(shape) * _ITEM_BYTES[tensor.data_type]
        raw = tensor.raw_data  # a copy each time it is asked for
        if len(raw) != expected:
            raise ModelError(
                f"constant {tensor.name!r} of shape {list(shape)} holds {len(raw)} bytes, expected {expected}; "
                "the file is damaged"
            )
        return _native(np.frombuffer(raw, _stored_dtype(tensor)).reshape(shape))
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"constant {tensor.name!r} of shape {list(shape)} cannot be read ({error}); the file is damaged"
        ) from error


def _external(tensor: onnx.TensorProto, shape: Shape, folder: Path | None) -> Array:
    """Reads a constant from a file beside the model. Refuses, before opening it, a file outside the model's folder."""
    what = f"external data of constant {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(f"{what} is in {location!r}, but the model was not given by path; give the path of its file")
    parts = PureWindowsPath(location).parts  # splits at both kinds of slash and knows drives
    path = folder / location
    if (
        not parts
        or location.startswith(("/", "\\"))
        or PureWindowsPath(location).drive
        or ".." in parts
        or "\0" in location
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise ModelError(
            f"{what} is in {location!r}, outside the model's folder {folder}; refused: move it beside the model"
        )
    expected = math.prod(shape) * _ITEM_BYTES[tensor.data_type]
    offset, length = _size_entry(entries, "offset", 0, what), _size_entry(entries, "length", expected, what)
    if length != expected:
        raise ModelError(f"{what} has length {length}, shape {shape_text(shape)} needs {expected} bytes")
    try:
        available = path.stat().st_size
        if offset + length > available:
            raise ModelError(f"{what} needs bytes {offset} to {offset + length} of {path}, which has {available}")
        data = np.fromfile(path, _stored_dtype(tensor), count=math.prod(shape), offset=offset)
    except OSError as error:
        raise ModelError(f"{what}: {path} cannot be read ({error.strerror})") from error
    return _native(data.reshape(shape))


def _stored_dtype(tensor: onnx.TensorProto) -> np.dtype[Any]:
    little: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    return little


def _native(stored: Array) -> Array:
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _size_entry(entries: dict[str, str], key: str, default: int, what: str) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ModelError(f"{what}: {key} is {text!r}, expected a number of bytes")
    return int(text)
