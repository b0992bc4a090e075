"""What the harness asks of an inference engine.

A plugin is a function `open_runner(request) -> Runner`, named in the entry-point group `loadgen_numba.backends`.
One runner is opened per instance, on the thread that will call `predict`, with that thread already pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from preprocessing import PreprocessSpec

from ..config import Precision, check_model_file
from ..errors import BadInputError
from ..profiles import TensorInfo

AS_IN_MODEL: Final = "as in the model"
"""What an engine calls its precision if it computes each layer in the type that the model file gives it."""


@dataclass(frozen=True)
class RunnerRequest:
    """model: ONNX file, None if the user named none. image_shape: H, W, C of the stored uint8 images.

    spec: their recipe, whose `to_float` and `table` give the values the model expects. cores: logical CPUs of this
    instance, to which the calling thread is bound. max_batch: most images in one `predict`. isa: None for the best
    this machine has. plan, kernels, machine: for our own engine, a plan file, whose kernels (backend.InferenceSession)
    and a machine file. precision: None for the model's. sibling: a runner that was opened with the same request but for
    its cores, which are on the same NUMA node; what is only read may be shared with it.
    """

    model: Path | None
    image_shape: tuple[int, int, int]
    spec: PreprocessSpec
    cores: tuple[int, ...]
    max_batch: int
    isa: str | None
    plan: Path | None = None
    kernels: str = "auto"
    machine: Path | None = None
    precision: Precision | None = None
    sibling: Runner | None = None

    @property
    def threads(self) -> int:
        """How many this instance may use: one per core."""
        return len(self.cores)


class Runner(Protocol):
    """One instance of an engine with one model loaded, every shape it will see compiled and run once."""

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 [n, H, W, C] -> the samples as this engine wants them, n on the first axis. Untimed; once per load."""

    def predict(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """At most max_batch prepared samples -> ImageNet classes 0..999, int64 [n]. Timed."""

    def describe(self) -> Mapping[str, str | int | float]:
        """What run.json says about the engine: versions, settings, the model's `input` by name, output read."""


OpenRunner: TypeAlias = Callable[[RunnerRequest], Runner]


def required_model(request: RunnerRequest, backend: str) -> Path:
    """The request's model. Raises: BadInputError if there is none."""
    if request.model is None:
        raise BadInputError(f"--backend {backend} needs a model: add --model FILE.onnx")
    check_model_file(request.model)
    return request.model


def check_input(inputs: list[TensorInfo], request: RunnerRequest) -> TensorInfo:
    """The model's only input.

    Raises: BadInputError unless it takes float32 [N, C, H, W] of the images' size, N open; or 1, if no batch is larger.
    """
    height, width, channels = request.image_shape
    wanted = (channels, height, width)
    if len(inputs) != 1 or "float" not in inputs[0].type or inputs[0].shape[1:] != wanted:
        found = ", ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs)
        raise BadInputError(
            f"{request.model}: expected one float32 input of shape [N, {channels}, {height}, {width}], found {found}"
        )
    batch = inputs[0].shape[0]
    if batch is not None and batch > 1:
        raise BadInputError(
            f"{request.model}: its batch is fixed at {batch}, but a run also asks for single images: export it with an "
            "open batch, or with batch 1"
        )
    if batch == 1 and request.max_batch > 1:
        raise BadInputError(
            f"{request.model}: its batch is fixed at 1, but batches of up to {request.max_batch} were to be run: add "
            "--max-batchsize 1"
        )
    return inputs[0]
