"""ONNX files as far as quantisation needs them: layers, pairs of QuantizeLinear and DequantizeLinear, extra outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

LAYER_TYPES: Final = ("Conv", "Gemm", "MatMul")
_QUANTIZED_TYPES: Final = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class Layer:
    """A node with weights: its name, and the float32 weights with output channels first."""

    name: str
    output: str
    weight: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Activation:
    """A value that is quantised: `tensor` in float32, `dequantized` after the pair."""

    tensor: str
    dequantized: str
    low: float
    high: float


def has_quantized_nodes(model: onnx.ModelProto) -> bool:
    """Whether the model computes in integers, or says where it would."""
    return any(node.op_type in _QUANTIZED_TYPES or node.op_type.startswith("QLinear") for node in model.graph.node)


def is_quantized(path: Path) -> bool | None:
    """`has_quantized_nodes` of a file; None if there is none, or it is no ONNX model."""
    try:
        return has_quantized_nodes(onnx.load(path, load_external_data=False))
    except (OSError, DecodeError):
        return None


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """Convolutions and dense layers with constant weights, in order."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in LAYER_TYPES or node.input[1] not in constants:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
        if node.op_type != "Conv" and not transposed:
            weight = weight.T
        found.append(Layer(node.name, node.output[0], weight))
    return found


def activations_of(model: onnx.ModelProto) -> list[Activation]:
    """The pairs around activations of a QDQ model, with the ranges that they can hold."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantizing = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    outputs = {output.name for output in model.graph.output}
    found = []
    for node in model.graph.node:
        source = quantizing.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None or source.input[0] in constants:
            continue
        scale, zero_point = float(constants[node.input[1]]), constants[node.input[2]]
        limits = np.iinfo(zero_point.dtype)
        low, high = ((limit - int(zero_point)) * scale for limit in (limits.min, limits.max))
        # An output of the model keeps its name behind the pair; before it, the quantizer makes up another.
        tensor = node.output[0] if node.output[0] in outputs else source.input[0]
        found.append(Activation(tensor, node.output[0], low, high))
    return found


def with_outputs(path: Path, tensors: Iterable[str]) -> onnx.ModelProto:
    """The model with these tensors, but for its inputs, as further outputs."""
    model = onnx.load(path)
    present = {value.name for value in (*model.graph.output, *model.graph.input)}
    for name in dict.fromkeys(tensors):
        if name not in present:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model


def set_metadata(path: Path, key: str, text: str) -> None:
    """Adds an entry to a model's metadata_props."""
    model = onnx.load(path)
    entry: Any = model.metadata_props.add()
    entry.key, entry.value = key, text
    onnx.save(model, path)
