"""Images for a run: the dataset's folder, and the store of preprocessed pictures made from it.

Stores live in the user's cache folder unless told otherwise, one per dataset folder and recipe; they are built by the
parent (`open_dataset`) and only mapped by the child (`open_images`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import platformdirs

from preprocessing import (
    VAL_MAP_NAME,
    PreprocessingError,
    PreprocessSpec,
    ValMap,
    build_store,
    count_unnamed_images,
    open_store,
    read_val_map,
)

from .config import IMAGENET_CLASS_COUNT
from .errors import BadInputError
from .progress import Progress

_APPLICATION: Final = "loadgen-numba"
_DIGEST_CHARACTERS: Final = 12


@dataclass(frozen=True)
class Dataset:
    """The first `sample_count` images of a folder with val_map.txt, preprocessed by `spec` in a finished store.

    warnings: what the user may have overlooked about the folder.
    """

    path: Path
    store_path: Path
    spec: PreprocessSpec
    sample_count: int
    warnings: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Where this project keeps what it can make again."""
    return platformdirs.user_cache_path(_APPLICATION)


def default_store_path(dataset_path: Path, spec: PreprocessSpec) -> Path:
    """Different dataset folders and different recipes never share a store."""
    digest = hashlib.sha256(f"{dataset_path.resolve()}\n{spec.digest()}".encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return cache_folder() / "stores" / f"{spec.name}-{digest}"


def open_dataset(
    path: Path,
    spec: PreprocessSpec,
    sample_count: int | None,
    progress: Progress,
    *,
    store_path: Path | None = None,
    workers: int | None = None,
    verify: bool = False,
) -> Dataset:
    """Preprocess what is not yet in the store. sample_count: None for all images. store_path: None for the cache.

    verify: read every picture of the store and compare it with the checksum it was stored with.
    Raises: BadInputError for a missing or damaged image, label map or store.
    """
    store_path = store_path or default_store_path(path, spec)
    try:
        val_map = read_val_map(path, sample_count, class_count=IMAGENET_CLASS_COUNT)
        progress.phase(f"looking for {len(val_map)} images of {path} in {store_path}")
        build_store(store_path, spec, val_map, workers=workers, progress=_announced(progress, f"preprocessing {path}"))
        if verify:
            open_store(
                store_path,
                spec,
                val_map,
                verify="pictures",
                progress=_announced(progress, f"checking {store_path}"),
            )
    except PreprocessingError as error:
        raise BadInputError(str(error)) from error
    return Dataset(path, store_path, spec, len(val_map), tuple(_unnamed(val_map)) if sample_count is None else ())


def count_images(path: Path) -> int:
    """How many images a dataset's map names. Raises: BadInputError."""
    try:
        return len(read_val_map(path, class_count=IMAGENET_CLASS_COUNT))
    except PreprocessingError as error:
        raise BadInputError(str(error)) from error


def _unnamed(val_map: ValMap) -> Iterator[str]:
    """The warning that a map names only a part of what the folder holds, where nobody asked for a part."""
    unnamed = count_unnamed_images(val_map)
    if unnamed > 0:
        yield (
            f"{val_map.dataset_path / VAL_MAP_NAME} names {len(val_map)} images, and the folder holds {unnamed} more: "
            "those are left out"
        )


def _announced(progress: Progress, what: str) -> Callable[[int, int], None]:
    """Says that something has begun when its first images are done, and then how far it is."""
    begun = False

    def show(done: int, total: int) -> None:
        nonlocal begun
        (progress.update if begun else progress.phase)(f"{what}: {done} of {total} images")
        begun = True

    return show


def open_images(dataset: Dataset) -> np.memmap[Any, np.dtype[np.uint8]]:
    """uint8 [N, H, W, 3], mapped read-only. Raises: PreprocessingError."""
    val_map = read_val_map(dataset.path, dataset.sample_count)
    return open_store(dataset.store_path, dataset.spec, val_map).images
