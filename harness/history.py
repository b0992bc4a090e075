"""What the parent saw of a test, look after look: what it foretold, and where the test stood still.

Kept in memory while the test runs, and written beside its logs as `forecasts.csv` when it has ended. The live line and
`tools/forecasts` read it; results never do.
"""

from __future__ import annotations

import bisect
import csv
import io
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import live

FORECASTS: Final = "forecasts.csv"
_COLUMNS: Final = ("elapsed_s", "completed", "late", "left_s", "expected")
_STANDS: Final = 0.1
"""Of the rate over the whole test; below it a test stands still."""
_LEAST_S: Final = 1.0
_MEAN_GAPS: Final = 20.0
"""Poisson arrivals leave a gap of so many mean ones once in five hundred million."""
_STEPS: Final = 2.0
"""Batches make a test go forward in steps, of which one look sees some; so many usual ones take a while."""


@dataclass(frozen=True)
class Look:
    """One row of the file.

    elapsed_s: since the test began. completed: samples. late: of Server, that are or will be over the bound.
    left_s: foretold; None if it was not. expected: VALID, INVALID, or nothing where that was open.
    """

    elapsed_s: float
    completed: int
    late: int
    left_s: float | None
    expected: str


@dataclass(frozen=True)
class Standstill:
    """A time in which hardly a sample was completed: from `begin_s` after the test began."""

    begin_s: float
    seconds: float

    def __str__(self) -> str:
        return f"nothing was answered for {self.seconds:.1f} s, {self.begin_s:.0f} s into the test"


class History:
    """The looks at one test. goal: None if it is not known."""

    def __init__(self, goal: live.Goal | None) -> None:
        self._goal = goal
        self._looks: list[Look] = []

    def add(self, seen: live.Seen) -> live.Forecast:
        """Forecast, and keep it."""
        told = live.Forecast(None)
        if self._goal is not None:
            told = live.forecast(self._goal, seen, self._half(seen.elapsed_s))
        self._looks.append(Look(seen.elapsed_s, seen.completed, told.late, told.left_s, told.expected or ""))
        return told

    def standstill(self) -> Standstill | None:
        """The longest one; None if the test never stood still between two looks."""
        return longest_standstill(self._looks)

    def as_csv(self) -> str:
        """The file's text; its last row is of the end."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for look in self._looks:
            left = "" if look.left_s is None else f"{look.left_s:.2f}"
            writer.writerow((f"{look.elapsed_s:.2f}", look.completed, look.late, left, look.expected))
        return file.getvalue()

    def _half(self, elapsed_s: float) -> tuple[int, int]:
        """Completed samples and late ones at half the time."""
        number = bisect.bisect_right(self._looks, elapsed_s / 2, key=lambda look: look.elapsed_s)
        return (self._looks[number - 1].completed, self._looks[number - 1].late) if number else (0, 0)


def read_forecasts(path: Path) -> list[Look]:
    """The rows of a file. Raises: OSError, ValueError, KeyError for what is none."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Look(
                float(row["elapsed_s"]),
                int(row["completed"]),
                int(row["late"]),
                float(row["left_s"]) if row["left_s"] else None,
                row["expected"],
            )
            for row in csv.DictReader(file)
        ]


def until_answered(looks: Sequence[Look]) -> Sequence[Look]:
    """Without the looks after the last answer: there LoadGen sorts latencies and writes its logs."""
    return [look for look in looks if look.completed < looks[-1].completed] + [
        next(look for look in looks if look.completed == looks[-1].completed)
    ]


def longest_standstill(looks: Sequence[Look]) -> Standstill | None:
    """The longest stretch of looks between which the rate was next to nothing, if no chance explains it."""
    looks = until_answered(looks) if looks else looks
    if len(looks) < 2 or looks[-1].elapsed_s == 0 or looks[-1].completed == 0:
        return None
    rate = looks[-1].completed / looks[-1].elapsed_s
    steps = [look.completed - before.completed for before, look in itertools.pairwise(looks)]
    usual = statistics.median([step for step in steps if step > 0] or [0])
    least_s, least_rate = max(_LEAST_S, max(_MEAN_GAPS, _STEPS * usual) / rate), _STANDS * rate
    longest, begin_s = None, None
    for before, look in itertools.pairwise(looks):
        seconds = look.elapsed_s - before.elapsed_s
        if look.completed - before.completed >= least_rate * seconds:
            begin_s = None
            continue
        begin_s = before.elapsed_s if begin_s is None else begin_s
        if longest is None or look.elapsed_s - begin_s > longest.seconds:
            longest = Standstill(begin_s, look.elapsed_s - begin_s)
    return longest if longest is not None and longest.seconds >= least_s else None
