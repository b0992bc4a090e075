"""The errors of this package. Each text says what happened, where, with which values, and what to do."""

from __future__ import annotations


class BackendError(Exception):
    """Base of every error that `backend` raises on purpose; the text is one line, fit to show to a user."""


class ModelError(BackendError):
    """The ONNX file cannot be read or run: corrupt, unsupported op, dynamic shape, external data out of reach."""


class InputError(BackendError):
    """`InferenceSession.run` was given a wrong input name, shape or dtype, or asked for an unknown output."""


class MachineError(BackendError):
    """This machine, or the way it is set up, cannot do what was asked: ISA, threads, threading layer."""


class PlanError(BackendError):
    """A saved plan cannot be followed: not a plan file, made for something else, or with a value that cannot be."""
