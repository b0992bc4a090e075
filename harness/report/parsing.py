"""Values from files that others may have changed: checked once, when they are read. Knows no file's schema."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BadInputError


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """For statements that read a file's values and compute nothing. Raises: BadInputError for what they raise."""
    try:
        yield
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """A JSON object. Raises: TypeError."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} is no object")
    return value


def positive(value: Any, name: str) -> float:
    """Raises: OverflowError, TypeError, ValueError unless it is finite and above 0."""
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {value}, which is not above 0")
    return number


def not_negative(value: Any, name: str) -> float:
    """Raises: OverflowError, TypeError, ValueError unless it is finite and at least 0."""
    return 0.0 if value == 0 else positive(value, name)


def text_or_none(value: Any) -> str | None:
    """As text, if there is anything."""
    return None if value is None else str(value)
