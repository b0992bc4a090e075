"""Image files -> model inputs, bit-exact with MLCommons' reference; label maps; the array store on disk.

Knows nothing of inference engines or LoadGen. May import: nothing of ours.
"""

from .errors import ImageError, LabelError, PreprocessingError, StoreError
from .imagenet import RESIZER, load_rgb, preprocess, preprocess_bytes
from .labels import VAL_MAP_NAME, ValMap, count_unnamed_images, read_val_map
from .spec import IMAGENET, MOBILENET, SPECS, Layout, PreprocessSpec
from .store import ArrayStore, build_store, open_store

__all__ = [
    "IMAGENET",
    "MOBILENET",
    "RESIZER",
    "SPECS",
    "VAL_MAP_NAME",
    "ArrayStore",
    "ImageError",
    "LabelError",
    "Layout",
    "PreprocessSpec",
    "PreprocessingError",
    "StoreError",
    "ValMap",
    "build_store",
    "count_unnamed_images",
    "load_rgb",
    "open_store",
    "preprocess",
    "preprocess_bytes",
    "read_val_map",
]
