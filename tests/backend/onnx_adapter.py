"""Runs ONNX's own backend tests against an engine: an `onnx.backend.base` adapter.

ONNX's node tests give weights, bounds and target shapes as graph inputs, which no inference engine gets at run time.
Here each input that the op needs as a constant is bound as an initializer once the arrays are known, so that the engine
sees the model that an exporter would have written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep

from backend.graph.onnx_reader import read_model
from backend.graph.passes import run_passes
from backend.reference import run_reference

Engine = Callable[[onnx.ModelProto, Mapping[str, np.ndarray]], "list[np.ndarray]"]

CONSTANT_INPUTS: Final = {
    "BatchNormalization": (1, 2, 3, 4),
    "Clip": (1, 2),
    "Conv": (1, 2),
    "Dropout": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1,),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "ReduceMean": (1,),
    "Reshape": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
"""Op type -> indices of the inputs that must be constants."""


def reference_engine(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Reader, all passes, NumPy twins in float32."""
    return run_reference(run_passes(read_model(model)), inputs)


def session_engine(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The product: a session of the best kernels of this machine."""
    from backend import InferenceSession  # here, because the other engine needs no compiled kernels

    return InferenceSession(model, threads=1).run(None, inputs)


def bind_constants(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model with every constant input as an initializer, and the inputs that are left."""
    bound = {
        node.input[index]
        for node in model.graph.node
        for index in CONSTANT_INPUTS.get(node.op_type, ())
        if index < len(node.input) and node.input[index]
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [info for info in result.graph.input if info.name not in bound]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(_initializer(inputs[name], name) for name in sorted(bound & set(inputs)))
    return result, {name: array for name, array in inputs.items() if name not in bound}


def _initializer(array: np.ndarray | onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Cases give elements that NumPy does not know as a TensorProto."""
    tensor = onnx.TensorProto()
    tensor.CopyFrom(array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(array, name))
    tensor.name = name
    return tensor


class AdapterRep(BackendRep):
    """A model waiting for its inputs."""

    def __init__(self, model: onnx.ModelProto, engine: Engine) -> None:
        self._model = model
        self._engine = engine

    def run(self, inputs: Sequence[np.ndarray], **_: Any) -> tuple[np.ndarray, ...]:
        """Outputs for arrays in the order of the graph's inputs (initializers do not count)."""
        initialized = {tensor.name for tensor in self._model.graph.initializer}
        names = [info.name for info in self._model.graph.input if info.name not in initialized]
        model, left = bind_constants(self._model, dict(zip(names, inputs, strict=True)))
        return tuple(self._engine(model, left))


def backend_for(engine: Engine) -> type[Backend]:
    """An `onnx.backend.base.Backend` class over `engine`."""

    class Adapter(Backend):
        @classmethod
        def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> BackendRep:
            if not cls.supports_device(device):
                raise ValueError(f"device {device!r}: only CPU is supported")
            return AdapterRep(model, engine)

        @classmethod
        def supports_device(cls, device: str) -> bool:
            return device == "CPU"

    return Adapter
