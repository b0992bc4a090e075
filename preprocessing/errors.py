"""The errors of this package. Each text is one line: what happened, where, with which values, and what to do."""

from __future__ import annotations


class PreprocessingError(Exception):
    """Base of every error that `preprocessing` raises on purpose; the text is fit to show to a user."""


class ImageError(PreprocessingError):
    """One image cannot be used: missing, truncated, not a JPEG, or declaring more pixels than is sane."""


class LabelError(PreprocessingError):
    """The label map cannot be used: missing, malformed, naming an absent image, or shorter than asked for."""


class StoreError(PreprocessingError):
    """The array store cannot be built or opened: foreign or stale, in use, unfinished, damaged, or disk trouble."""
