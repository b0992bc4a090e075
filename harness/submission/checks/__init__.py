"""A dry run of the submission checker: every rule of a round by name, and what in a tree breaks it.

Stricter than MLCommons' own checkers where those let mistakes through: runs that are INVALID, errors that LoadGen
logged, accuracies over a part of the images, compliance tests without their settings, edited verdicts.
"""

from __future__ import annotations

from .run import CheckConfig, CheckReport, check_tree

__all__ = ["CheckConfig", "CheckReport", "check_tree"]
