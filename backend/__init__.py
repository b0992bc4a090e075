"""ONNX convolution networks on CPUs through Numba-compiled kernels. Knows no LoadGen, no image file, no label."""

from __future__ import annotations

from .engine import kernel_cache
from .errors import BackendError, InputError, MachineError, ModelError, PlanError
from .graph.ends import QuantizedEnds
from .machine import Machine, detect
from .machine_file import read_machine
from .model import (
    InferenceSession,
    NodeArg,
    SessionOptions,
    StepProfile,
    plan_model,
    read_options,
    read_quantized_ends,
    usable_threads,
)
from .pixels import PixelInput
from .plan.plan import Plan
from .plan.record import PlanRecord, read_record
from .plan.table import Roofs

__all__ = [
    "BackendError",
    "InferenceSession",
    "InputError",
    "Machine",
    "MachineError",
    "ModelError",
    "NodeArg",
    "PixelInput",
    "Plan",
    "PlanError",
    "PlanRecord",
    "QuantizedEnds",
    "Roofs",
    "SessionOptions",
    "StepProfile",
    "detect",
    "kernel_cache",
    "plan_model",
    "read_machine",
    "read_options",
    "read_quantized_ends",
    "read_record",
    "usable_threads",
]
