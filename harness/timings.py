"""Durations while a test runs: histograms in shared memory, written by the instances, read by the parent.

They serve the live line and the tuning of loads. Results are never read from them: those are LoadGen's.
One duration costs well under a microsecond. Buckets grow by 1 %, so that every quantile is right to 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

GROWTH: Final = 1.01
SHORTEST_NS: Final = 1_000
_LONGEST_NS: Final = 1_000 * 10**9
_PER_LOG: Final = 1 / math.log(GROWTH)
BUCKETS: Final = int(math.log(_LONGEST_NS / SHORTEST_NS) * _PER_LOG) + 2
"""Of one histogram; the first takes everything shorter, the last everything longer. Each is GROWTH times as wide as the
one before it."""
_NS_PER_S: Final = 1e9

RESPONSE, SERVICE = 0, 1
"""Which histogram of an instance: from issue to answer of a query; how long a batch keeps it busy."""
HISTOGRAMS: Final = 2
SLOTS_PER_INSTANCE: Final = HISTOGRAMS * BUCKETS


class Cells(Protocol):
    """Shared memory of all instances, of which every part has one writer."""

    def __getitem__(self, cell: int) -> int: ...

    def __setitem__(self, cell: int, value: int) -> None: ...


class Recorder:
    """The part of one instance, on the writer's side."""

    def __init__(self, cells: Cells, instance: int) -> None:
        self._cells = cells
        self._first = instance * SLOTS_PER_INSTANCE

    def record(self, histogram: int, duration_ns: int, count: int = 1) -> None:
        """Count a duration, `count` times."""
        if duration_ns < SHORTEST_NS:
            bucket = 0
        else:
            bucket = min(1 + int(math.log(duration_ns / SHORTEST_NS) * _PER_LOG), BUCKETS - 1)
        self._cells[self._first + histogram * BUCKETS + bucket] += count


class Durations:
    """A histogram as it was when it was read. counts int64 [BUCKETS]."""

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        self._counts = counts

    @classmethod
    def of(cls, cells: Sequence[int] | npt.NDArray[np.int64], histogram: int) -> Durations:
        """Summed over all instances."""
        by_instance = np.asarray(cells, dtype=np.int64).reshape(-1, HISTOGRAMS, BUCKETS)
        return cls(by_instance[:, histogram].sum(axis=0))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """By bucket, int64 [BUCKETS]."""
        return self._counts

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._counts.sum())

    def __add__(self, other: Durations) -> Durations:
        """Both together."""
        return Durations(self._counts + other._counts)

    def quantile_s(self, share: float) -> float:
        """The least duration that `share` of all do not exceed, seconds; 0 if there is none."""
        if self.count == 0:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), share * self.count))
        return float(_MIDDLES_S[min(bucket, BUCKETS - 1)])

    def mean_s(self) -> float:
        """Seconds; 0 if there is none."""
        return float(self._counts @ _MIDDLES_S) / self.count if self.count else 0.0

    def above(self, bound_s: float) -> int:
        """How many are longer."""
        return int(self._counts[bound_s < _MIDDLES_S].sum())

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Durations of this distribution, seconds. Raises: ValueError if it is empty."""
        if self.count == 0:
            raise ValueError("no durations to draw from")
        return _MIDDLES_S[random.choice(BUCKETS, size=shape, p=self._counts / self.count)]


_MIDDLES_S: Final[npt.NDArray[np.float64]] = (
    SHORTEST_NS / _NS_PER_S * GROWTH ** (np.arange(BUCKETS, dtype=np.float64) - 0.5)
)
"""What stands for the durations of a bucket."""
