"""Our own engine: `backend.InferenceSession`, fed with the stored uint8 pixels themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend import InferenceSession, InputError, NodeArg, PixelInput

from ..profiles import ClassOutput, TensorInfo, choose_output
from .protocol import Runner, RunnerRequest, check_input, required_model


class NumbaRunner:
    """One session; samples stay uint8 NHWC, a quarter of the memory of float32."""

    def __init__(self, session: InferenceSession, pinned: list[set[int]], input_name: str, output: ClassOutput) -> None:
        """pinned: the CPUs of each thread, as the system reports them."""
        self.session = session
        self._pinned = pinned
        self._input_name = input_name
        self._output = output

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The pixels as they are, contiguous in RAM."""
        return np.ascontiguousarray(images)

    def predict(self, samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """uint8 [n, H, W, C] -> classes [n]."""
        (values,) = self.session.run([self._output.name], {self._input_name: samples})
        return self._output.read(values)

    def describe(self) -> Mapping[str, str | int]:
        """ISA, plan and the caches that it was made for, threads and where they are, output read."""
        return {
            "engine": "numba",
            "kernels": self.session.kernels,
            "precision": self.session.precision,
            "input_data_type": "uint8",
            "isa": self.session.machine.isa.name,
            "threads": self.session.threads,
            "plan_sha256": self.session.plan().record.sha256,
            "plan_made_for": str(self.session.plan().record.machine),
            "cpus_by_thread": "; ".join(",".join(map(str, sorted(cpus))) for cpus in self._pinned),
            "input": self._input_name,
            "output": self._output.describe(),
        }


def open_runner(request: RunnerRequest) -> NumbaRunner:
    """Compile, load and warm up. Raises: BackendError; BadInputError for input or outputs that do not fit."""
    session = _open_first(request) if request.sibling is None else _open_sibling(request.sibling, request)
    tensor = check_input(_inputs(session), request)
    output = choose_output([tensor_info(node) for node in session.get_outputs()], str(request.model))
    runner = NumbaRunner(session, session.pin(request.cores), tensor.name, output)
    for batch in sorted({1, request.max_batch}):
        runner.predict(np.zeros((batch, *request.image_shape), np.uint8))
    return runner


def _open_first(request: RunnerRequest) -> InferenceSession:
    model = required_model(request, "numba")
    try:
        return _open_session(model, request, request.max_batch)
    except InputError:
        # Of a model whose batch is fixed, that may be; then it is told in the words that hold for every engine.
        check_input(_inputs(_open_session(model, request, 1)), request)
        raise


def _open_sibling(first: Runner, request: RunnerRequest) -> InferenceSession:
    assert isinstance(first, NumbaRunner)
    return first.session.sibling(request.threads)


def _open_session(model: Path, request: RunnerRequest, max_batch: int) -> InferenceSession:
    return InferenceSession(
        model,
        precision=request.precision or "auto",
        max_batch=max_batch,
        threads=request.threads,
        kernels=request.kernels,
        isa=request.isa,
        machine=request.machine,
        plan=request.plan,
        pixels=PixelInput(request.spec.table()),
    )


def _inputs(session: InferenceSession) -> list[TensorInfo]:
    return [tensor_info(node) for node in session.get_inputs()]


def tensor_info(node: NodeArg) -> TensorInfo:
    """An input or output of a model, as every engine's is described."""
    return TensorInfo(node.name, tuple(size if isinstance(size, int) else None for size in node.shape), node.type)
