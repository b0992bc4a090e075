"""What a user sees while a run is going on: on standard error, at most two updates per second, from the parent."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

UPDATE_INTERVAL_S: Final = 0.5
_PLAIN_INTERVAL_S: Final = 10.0
"""Without a terminal every update is a line that stays, so there are fewer."""


class Progress(Protocol):
    """Takes the present state in one line."""

    def phase(self, text: str) -> None:
        """Something new begins: always shown."""

    def update(self, text: str) -> None:
        """The same thing goes on: shown if the last line is old enough."""

    def note(self, text: str) -> None:
        """Something to know: always shown, and it stays."""


class Quiet(AbstractContextManager["Quiet"]):
    """Shows nothing."""

    def phase(self, text: str) -> None:
        """Nothing."""

    def update(self, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


class PlainLines(AbstractContextManager["PlainLines"]):
    """For logs and pipes: one line per phase, then one every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_s = time.monotonic()

    def phase(self, text: str) -> None:
        """Print a line."""
        self._last_s = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, text: str) -> None:
        """Print a line if the last one is old."""
        if time.monotonic() - self._last_s >= _PLAIN_INTERVAL_S:
            self.phase(text)

    def note(self, text: str) -> None:
        """Print a line."""
        self.phase(text)

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


class LiveLine(AbstractContextManager["LiveLine"]):
    """For a terminal: one line that changes in place and is gone at the end."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._last_s = 0.0

    def phase(self, text: str) -> None:
        """Show at once."""
        self._last_s = time.monotonic()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def update(self, text: str) -> None:
        """Show unless something was shown within the last half second."""
        if time.monotonic() - self._last_s >= UPDATE_INTERVAL_S:
            self.phase(text)

    def note(self, text: str) -> None:
        """Print above the line that changes."""
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> LiveLine:
        self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._live.stop()


class Numbered:
    """Progress with the test's number in front."""

    def __init__(self, progress: Progress, prefix: str) -> None:
        self._progress = progress
        self._prefix = prefix

    def phase(self, text: str) -> None:
        """As in Progress."""
        self._progress.phase(self._prefix + text)

    def update(self, text: str) -> None:
        """As in Progress."""
        self._progress.update(self._prefix + text)

    def note(self, text: str) -> None:
        """As in Progress."""
        self._progress.note(self._prefix + text)


def open_progress(quiet: bool) -> Quiet | PlainLines | LiveLine:
    """A context manager: the kind that fits where standard error goes."""
    if quiet:
        return Quiet()
    console = Console(stderr=True)
    return LiveLine(console) if console.is_terminal else PlainLines(console)
