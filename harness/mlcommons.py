"""Our engine behind the interface that MLCommons' reference app (vision/classification_and_detection) expects.

In their main.py, `get_backend` needs two more lines:

    elif backend == "numba":
        from harness.mlcommons import BackendNumba; backend = BackendNumba()

Their folder has a top-level backend.py of its own, so our package of that name is loaded from its place under another.
This file imports nothing else of the harness for the same reason.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_ALIAS: Final = "loadgen_numba_backend"
_BACKEND_FOLDER: Final = Path(__file__).parent.parent / "backend"


def load_backend_package() -> ModuleType:
    """Our `backend` package, whatever else is called so. Its imports are relative, so that any name will do."""
    if _ALIAS in sys.modules:
        return sys.modules[_ALIAS]
    spec = importlib.util.spec_from_file_location(
        _ALIAS, _BACKEND_FOLDER / "__init__.py", submodule_search_locations=[str(_BACKEND_FOLDER)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package at {_BACKEND_FOLDER}: is loadgen-numba installed completely?")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_ALIAS] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_ALIAS]
        raise
    return module


class BackendNumba:
    """A backend of the reference app. One inference at a time, on all cores: their worker threads take turns."""

    def __init__(self, max_batch: int = 8, threads: int | None = None) -> None:
        """max_batch: what the plan is made for; larger batches are run in parts. threads: None for all cores."""
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self._max_batch = max_batch
        self._threads = threads
        self._turn = threading.Lock()
        self._session: Any = None

    def version(self) -> str:
        """Version of the distribution."""
        return metadata.version("loadgen-numba")

    def name(self) -> str:
        """Name of the engine."""
        return "numba"

    def image_format(self) -> str:
        """Layout of the images that `predict` takes."""
        return "NCHW"

    def load(
        self, model_path: str, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
    ) -> BackendNumba:
        """Open an ONNX file; `inputs` and `outputs` default to the model's own. Raises: BackendError."""
        package = load_backend_package()
        self._session = package.InferenceSession(model_path, max_batch=self._max_batch, threads=self._threads)
        self.inputs = list(inputs or [node.name for node in self._session.get_inputs()])
        self.outputs = list(outputs or [node.name for node in self._session.get_outputs()])
        return self

    def predict(self, feed: Mapping[str, npt.NDArray[np.float32]]) -> list[npt.NDArray[Any]]:
        """feed: float32 NCHW by input name -> the outputs, in order."""
        with self._turn:
            results: list[npt.NDArray[Any]] = self._session.run(self.outputs, feed)
        return results
