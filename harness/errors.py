"""The errors of this package: one line each, fit to show to a user; `cli` turns the class into an exit status."""

from __future__ import annotations


class HarnessError(Exception):
    """Base of every error that `harness` raises on purpose."""


class BadInputError(HarnessError):
    """What the user gave cannot be run: a flag, a file, a folder, a model, user.conf. Exit status 2."""


class DiskFullError(BadInputError):
    """The disk of the output folder filled up during a run, which has failed. Exit status 2."""


class RunFailedError(HarnessError):
    """A test began and did not end properly: inference failed, the process died, logs are torn. Exit status 1."""


class RunInterruptedError(HarnessError):
    """A signal ended the run. Exit status 128 + `signal_number` (130 for Ctrl-C)."""

    def __init__(self, text: str, signal_number: int) -> None:
        super().__init__(text)
        self.signal_number = signal_number


class CheckFailedError(HarnessError):
    """Everything ran, and what was examined is not as it should be; the findings have been printed. Exit status 1."""
