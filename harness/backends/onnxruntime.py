"""ONNX Runtime on the CPU, as a peer: all optimisations, sequential execution, threads on the instance's cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from ..errors import BadInputError
from ..profiles import ClassOutput, TensorInfo, choose_output
from .protocol import AS_IN_MODEL, RunnerRequest, check_input, required_model

_OPTIMIZATION: Final = ort.GraphOptimizationLevel.ORT_ENABLE_ALL

_LOAD_ERRORS: Final = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)
"""What onnxruntime raises for a model it cannot load; they have no common base."""


class OnnxRuntimeRunner:
    """Feeds the reference's own float32 NCHW values."""

    def __init__(self, session: Any, request: RunnerRequest, input_name: str, output: ClassOutput) -> None:
        self._session = session
        self._request = request
        self._input_name = input_name
        self._output = output

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 NHWC -> float32 NCHW."""
        return self._request.spec.to_float(images, "NCHW")

    def predict(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """float32 [n, C, H, W] -> classes [n]."""
        (values,) = self._session.run([self._output.name], {self._input_name: samples})
        return self._output.read(values)

    def describe(self) -> Mapping[str, str | int]:
        """Version and the settings that differ from defaults."""
        return {
            "engine": f"onnxruntime {ort.__version__}",
            "precision": AS_IN_MODEL,
            **session_settings(self._request.threads),
            "input": self._input_name,
            "output": self._output.describe(),
        }


def open_runner(request: RunnerRequest) -> OnnxRuntimeRunner:
    """Raises: BadInputError if onnxruntime refuses the model, or its input or outputs are not what we feed and read."""
    model = required_model(request, "onnxruntime")
    session = open_session(model, request.threads)
    inputs = [tensor_info(node) for node in session.get_inputs()]
    tensor = check_input(inputs, request)
    output = choose_output([tensor_info(node) for node in session.get_outputs()], str(model))
    runner = OnnxRuntimeRunner(session, request, tensor.name, output)
    for batch in {1, request.max_batch}:
        runner.predict(runner.prepare(np.zeros((batch, *request.image_shape), np.uint8)))
    return runner


def session_settings(threads: int) -> dict[str, str | int]:
    """What differs from onnxruntime's defaults, by the names of `SessionOptions` and `InferenceSession`."""
    return {
        "providers": "CPUExecutionProvider",
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "graph_optimization_level": _OPTIMIZATION.name,
    }


def open_session(model: Path, threads: int) -> Any:
    """An onnxruntime session with `session_settings`. Raises: BadInputError if it refuses the model."""
    settings = session_settings(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings["intra_op_num_threads"]
    options.inter_op_num_threads = settings["inter_op_num_threads"]
    options.graph_optimization_level = _OPTIMIZATION
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(model), options, providers=[settings["providers"]])
    except _LOAD_ERRORS as error:
        raise BadInputError(f"onnxruntime cannot load {model}: {' '.join(str(error).split())}") from error


def tensor_info(node: Any) -> TensorInfo:
    """An input or output of a model, as every engine's is described."""
    return TensorInfo(node.name, tuple(size if isinstance(size, int) else None for size in node.shape), node.type)
