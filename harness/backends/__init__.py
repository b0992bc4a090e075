"""Inference engines behind one small protocol, found by name through the entry points `loadgen_numba.backends`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final, cast

from ..errors import BadInputError
from .protocol import OpenRunner

ENTRY_POINT_GROUP: Final = "loadgen_numba.backends"


def check_backend(name: str) -> None:
    """Raises: BadInputError for an unknown name."""
    names = entry_points(group=ENTRY_POINT_GROUP).names
    if name not in names:
        known = ", ".join(sorted(names)) or "none: is the package loadgen-numba installed?"
        raise BadInputError(f"--backend {name!r} is not one of those known: {known}")


def find_backend(name: str) -> OpenRunner:
    """The function that opens a runner. Raises: BadInputError: unknown name, or engine not installed."""
    check_backend(name)
    found = entry_points(group=ENTRY_POINT_GROUP)
    try:
        return cast(OpenRunner, found[name].load())
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"--backend {name} needs the Python package {error.name!r}, which is not installed: "
            "'pip install onnxruntime openvino' installs the peers"
        ) from error
