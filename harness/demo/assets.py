"""The demo's model and images, built once and kept in a folder of the user's cache.

A build happens in a folder beside its target and is renamed when it is complete, under a file lock: a killed build
leaves nothing that could be taken for a finished one, and of two builders at once the second waits and finds the
work done. Folder names carry a digest of what determines the contents, so another recipe
builds anew. The engine's own version is left out: between versions features differ in their last bits only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import PIL

from backend import detect
from preprocessing import IMAGENET

from ..errors import BadInputError
from ..progress import Progress
from . import fit, images, model
from .images import CLASSES, Split

MODEL_NAME: Final = "resnet50_v1.5_demo.onnx"
RECORD_NAME: Final = "demo.json"
"""How an asset was made; lies in its folder."""

DEFAULT_VAL_COUNT: Final = 10 * len(CLASSES)
SEED: Final = 20_150_512
FITTING_COUNT: Final = 16 * len(CLASSES)
HELD_OUT_COUNT: Final = 4 * len(CLASSES)


@dataclass(frozen=True)
class DemoAssets:
    """Where the demo is.

    dataset_path: folder with JPEGs and val_map.txt. held_out_top1: share (0..1) of the held-out images that the fit
    classified correctly; the accuracy on the validation images is for a run to find out. info: what RECORD_NAME
    says, by "model" and "images".
    """

    model_path: Path
    dataset_path: Path
    held_out_top1: float
    info: Mapping[str, Mapping[str, Any]]


def ensure_demo(
    cache_dir: Path, progress: Progress, *, val_count: int = DEFAULT_VAL_COUNT, isa: str | None = None
) -> DemoAssets:
    """The demo model and its first `val_count` validation images, built if they are not in `cache_dir` yet.

    isa: what the engine computes the fit with (as in `InferenceSession`). Same ISA, same bytes.
    Raises: BadInputError if `cache_dir` cannot be written or is full; MachineError for an ISA that is not here.
    """
    model_folder, model_record = ensure_model(cache_dir, progress, isa=isa)
    images_folder, images_record = ensure_images(cache_dir, progress, count=val_count)
    return DemoAssets(
        model_folder / MODEL_NAME,
        images_folder,
        model_record["held_out_top1"],
        {"model": model_record, "images": images_record},
    )


def ensure_model(
    cache_dir: Path,
    progress: Progress,
    *,
    seed: int = SEED,
    fitting_count: int = FITTING_COUNT,
    held_out_count: int = HELD_OUT_COUNT,
    isa: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The folder that holds MODEL_NAME, and its record. Raises as `ensure_demo`."""

    def build(folder: Path) -> dict[str, Any]:
        result = fit.fit_model(seed, fitting_count, held_out_count, progress, isa=isa)
        progress.phase("demo model: writing")
        (folder / MODEL_NAME).write_bytes(result.model.SerializeToString())
        return {"ridge_penalty": result.penalty, "held_out_top1": result.held_out_top1}

    definition = {
        "asset": "model",
        "seed": seed,
        "fitting_count": fitting_count,
        "held_out_count": held_out_count,
        "isa": detect(isa).isa.name,
        "recipe": IMAGENET.digest(),
        **_made_with(images, model, fit),
    }
    return _built_once(cache_dir, definition, build, needed_mb=105)


def ensure_images(cache_dir: Path, progress: Progress, *, count: int, seed: int = SEED) -> tuple[Path, dict[str, Any]]:
    """The folder of the first `count` validation images (ImageNet layout), and its record. Raises as `ensure_demo`."""

    def build(folder: Path) -> dict[str, Any]:
        progress.phase(f"demo images: writing {count} JPEGs")
        images.write_dataset(folder, seed, count, progress=lambda done: progress.update(f"{done} of {count}"))
        return {"split": Split.VALIDATION.name, "classes": len(CLASSES)}

    definition = {"asset": "images", "seed": seed, "count": count, **_made_with(images)}
    return _built_once(cache_dir, definition, build, needed_mb=1 + count * 65 // 1000)


def _made_with(*modules: Any) -> dict[str, str]:
    """What determines bytes besides the parameters: our own source and the libraries that draw, encode and write."""
    source = hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()
    return {"source": source, "numpy": np.__version__, "pillow": PIL.__version__, "onnx": onnx.__version__}


def _built_once(
    cache_dir: Path, definition: dict[str, Any], build: Callable[[Path], dict[str, Any]], *, needed_mb: int
) -> tuple[Path, dict[str, Any]]:
    """The finished folder of an asset and its record: the definition and what `build` returned."""
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]
    target = cache_dir / f"{definition['asset']}-{digest}"
    try:
        if not target.is_dir():
            cache_dir.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f"{target.name}.lock")):
                if not target.is_dir():
                    _build(target, definition, build)
        record: dict[str, Any] = json.loads((target / RECORD_NAME).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            f"{target}: the demo cannot be stored there ({error.strerror or error}); "
            f"it needs {needed_mb} MB in a folder that you may write: free some space, or choose another folder"
        ) from error
    except json.JSONDecodeError as error:
        raise BadInputError(f"{target / RECORD_NAME}: damaged ({error}); delete the folder to build it anew") from error
    return target, record


def _build(target: Path, definition: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():  # a builder was killed; the lock says that none is at work
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        record = {**definition, **build(partial)}
        (partial / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the kernel drops when its holder dies; the empty file stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
