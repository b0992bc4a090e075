"""The engines that take turns, each opened as its users would open it for speed, behind one small record.

Called by `worker.py` on the thread that will run inferences, already pinned. The peers' packages are imported only when
asked for. Their settings are those of the harness's own backends of the same names.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from ..errors import BadInputError
from .config import EngineName
from .layers import measure_layers
from .messages import Array, EngineTask, Layers, Settings

Feed: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Engine:
    """An open engine.

    inputs: shape of each, float32, the batch filled in. settings: read after the first inference. bind: prepares
    what needs no repeating for one feed; the function it returns runs one inference and is what is timed. Outputs
    are in model order and may be overwritten by the next inference. measure_layers: None for an engine that cannot.
    """

    inputs: dict[str, tuple[int, ...]]
    settings: Callable[[], Settings]
    bind: Callable[[Feed], Callable[[], list[Array]]]
    measure_layers: Callable[[Feed], Layers] | None = None


def open_engine(task: EngineTask) -> Engine:
    """Raises: BadInputError if the engine refuses the model or the settings."""
    return _OPENERS[task.engine](task)


def _open_numba(task: EngineTask) -> Engine:
    from backend import BackendError, InferenceSession

    try:
        session = InferenceSession(
            task.model,
            precision=task.precision or "auto",
            max_batch=task.batch,
            threads=task.threads,
            isa=task.isa,
            plan=task.plan,
        )
    except BackendError as error:
        raise BadInputError(" ".join(str(error).split())) from error

    def settings() -> Settings:
        return {
            "precision": session.precision,
            "max_batch": task.batch,
            "threads": session.threads,
            "isa": session.machine.isa.name,
            "plan_sha256": session.plan().record.sha256,
            "plan_made_for": str(session.plan().record.machine),
            "threading_layer": _threading_layer(task.threads),
            "wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set: OpenMP's default, spin, then sleep"),
            "session_bytes": session.plan().owned_bytes(session.threads),
        }

    return Engine(
        inputs=_with_batch({node.name: node.shape for node in session.get_inputs()}, task),
        settings=settings,
        bind=lambda feed: lambda: session.run(None, feed),
        measure_layers=partial(measure_layers, session),
    )


def _threading_layer(threads: int) -> str:
    if threads == 1:
        return "none: one thread"
    import numba

    layer = str(numba.threading_layer())
    if layer != "omp":
        return layer
    return f"omp ({importlib.import_module('numba.np.ufunc.omppool').openmp_vendor})"


def _open_onnxruntime(task: EngineTask) -> Engine:
    from ..backends.onnxruntime import open_session, session_settings, tensor_info

    session = open_session(task.model, task.threads)
    infos = [tensor_info(node) for node in session.get_inputs()]
    return Engine(
        inputs=_with_batch({info.name: info.shape for info in infos}, task),
        settings=lambda: session_settings(task.threads),
        bind=lambda feed: lambda: session.run(None, feed),
    )


def _open_openvino(task: EngineTask) -> Engine:
    import openvino as ov

    from ..backends.openvino import DEVICE, cpu_properties, tensor_info

    properties = cpu_properties(task.threads, task.precision)
    try:
        core = ov.Core()
        model = core.read_model(task.model)
        infos = [tensor_info(node) for node in model.inputs]
        inputs = _with_batch({info.name: info.shape for info in infos}, task)
        model.reshape({name: list(shape) for name, shape in inputs.items()})
        compiled = core.compile_model(model, DEVICE, properties)
        request = compiled.create_infer_request()
    except RuntimeError as error:
        raise BadInputError(f"openvino cannot load {task.model}: {' '.join(str(error).split())}") from error

    def bind(feed: Feed) -> Callable[[], list[Array]]:
        return lambda: list(request.infer(feed, share_inputs=True, share_outputs=True).values())

    def settings() -> Settings:
        values = {name: compiled.get_property(name) for name in properties}
        return {
            **{name: v.get_type_name() if isinstance(v, ov.Type) else str(v) for name, v in values.items()},
            "device": DEVICE,
            "batch": f"fixed at {task.batch}",
            "inputs_and_outputs": "shared, not copied",
        }

    return Engine(inputs=inputs, settings=settings, bind=bind)


_OPENERS: Final[Mapping[EngineName, Callable[[EngineTask], Engine]]] = {
    "numba": _open_numba,
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}


def _with_batch(shapes: Mapping[str, Any], task: EngineTask) -> dict[str, tuple[int, ...]]:
    """The shapes with the batch in axis 0 wherever that is not fixed. Raises: BadInputError for other open sizes."""
    filled = {}
    for name, shape in shapes.items():
        first, *rest = shape
        if isinstance(first, int) and first != task.batch:
            raise BadInputError(f"{task.model}: the batch of input {name!r} is fixed at {first}: use --batch {first}")
        if not all(isinstance(size, int) for size in rest):
            raise BadInputError(f"{task.model}: input {name!r} has open sizes beside the batch: {list(shape)}")
        filled[name] = (task.batch, *rest)
    return filled
