"""OpenVINO on the CPU, as a peer: LATENCY hint, one stream, one compiled model per batch size in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov

from ..config import Precision
from ..errors import BadInputError
from ..profiles import ClassOutput, TensorInfo, choose_output
from .protocol import RunnerRequest, check_input, required_model

DEVICE: Final = "CPU"


class OpenVinoRunner:
    """Whole batches through the model compiled for them, a smaller rest image by image."""

    def __init__(
        self, compiled: Mapping[int, Any], request: RunnerRequest, input_name: str, output: ClassOutput, index: int
    ) -> None:
        self._compiled = {batch: model.create_infer_request() for batch, model in compiled.items()}
        self._request = request
        self._input_name = input_name
        self._output = output
        self._index = index

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 NHWC -> float32 NCHW, the reference's own values."""
        return self._request.spec.to_float(images, "NCHW")

    def predict(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """float32 [n, C, H, W] -> classes [n]."""
        if len(samples) in self._compiled:
            return self._infer(samples)
        return np.concatenate([self._infer(samples[i : i + 1]) for i in range(len(samples))])

    def _infer(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        request = self._compiled[len(samples)]
        request.infer({0: samples}, share_inputs=True)
        return self._output.read(request.get_output_tensor(self._index).data)

    def describe(self) -> Mapping[str, str | int]:
        """Version and settings."""
        return {
            "engine": f"openvino {ov.__version__}",
            "input": self._input_name,
            "output": self._output.describe(),
            **{
                key: str(value) for key, value in cpu_properties(self._request.threads, self._request.precision).items()
            },
        }


def open_runner(request: RunnerRequest) -> OpenVinoRunner:
    """Raises: BadInputError if openvino refuses the model, or its input or outputs are not what we feed and read."""
    path = required_model(request, "openvino")
    core = ov.Core()
    compiled = {}
    try:
        for batch in sorted({1, request.max_batch}):
            model = core.read_model(path)
            inputs = [tensor_info(node) for node in model.inputs]
            outputs = [tensor_info(node) for node in model.outputs]
            tensor = check_input(inputs, request)
            output = choose_output(outputs, str(path))
            model.reshape({tensor.name: [batch, *tensor.shape[1:]]})
            compiled[batch] = core.compile_model(model, DEVICE, cpu_properties(request.threads, request.precision))
    except RuntimeError as error:
        raise BadInputError(f"openvino cannot load {path}: {' '.join(str(error).split())}") from error
    index = next(i for i, node in enumerate(outputs) if node.name == output.name)
    runner = OpenVinoRunner(compiled, request, tensor.name, output, index)
    for batch in compiled:
        runner.predict(runner.prepare(np.zeros((batch, *request.image_shape), np.uint8)))
    return runner


def cpu_properties(threads: int, precision: Precision | None) -> dict[str, Any]:
    """What differs from OpenVINO's defaults; its own pinning is off because the instance's threads inherit a mask."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": False,
    }


def tensor_info(node: Any) -> TensorInfo:
    """An input or output of a model, as every engine's is described."""
    shape = tuple(size.get_length() if size.is_static else None for size in node.partial_shape)
    kinds = {"f32": "tensor(float)", "i64": "tensor(int64)", "i32": "tensor(int32)"}
    type_name = node.element_type.get_type_name()
    return TensorInfo(node.any_name, shape, kinds.get(type_name, type_name))
