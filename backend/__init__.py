"""ONNX convolution networks on CPUs through Numba-compiled kernels. Knows no LoadGen, no image file, no label."""

from __future__ import annotations

from .errors import BackendError, InputError, MachineError, ModelError
from .machine import Machine, detect
from .model import InferenceSession, NodeArg, StepProfile
from .pixels import PixelInput

__all__ = [
    "BackendError",
    "InferenceSession",
    "InputError",
    "Machine",
    "MachineError",
    "ModelError",
    "NodeArg",
    "PixelInput",
    "StepProfile",
    "detect",
]
