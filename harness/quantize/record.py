"""The record of a quantisation, a JSON file beside the model it made: where it lies, and whose it is.

Written by `run.py`; read where a model's origin matters: before a run is called official, and to describe the
calibration in a submission. Imports no engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_BLOCK_BYTES: Final = 1 << 20


def record_path(model: Path) -> Path:
    """Beside a quantised model."""
    return model.with_suffix(".json")


def digest(path: Path, algorithm: str) -> str:
    """md5 or sha256 of a file, in hex."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def origin(source: Path, quantised: Path) -> dict[str, str]:
    """What ties a record to its two models."""
    return {"model_md5": digest(source, "md5"), "output_sha256": digest(quantised, "sha256")}


def read_record(model: Path) -> Mapping[str, Any] | None:
    """The record of this very file; None if there is none, or it is of another one."""
    path = record_path(model)
    if not path.is_file() or not model.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("output_sha256") != digest(model, "sha256"):
        return None
    return record
