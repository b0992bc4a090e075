"""From rounds to figures. Pure functions of lists."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Rates = Sequence[float]
"""images/s, one per round."""


@dataclass(frozen=True)
class Summary:
    """Of one value per round. low_quartile, high_quartile: interpolated linearly, as NumPy does by default."""

    median: float
    minimum: float
    low_quartile: float
    high_quartile: float
    maximum: float

    @property
    def spread_percent(self) -> float:
        """Distance between the quartiles, as a percentage of the median."""
        return 100 * (self.high_quartile - self.low_quartile) / self.median


def summarize(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    low, high = values[0], values[0]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(statistics.median(values), min(values), low, high, max(values))


def paired_ratios(ours: Rates, peer: Rates) -> list[float]:
    """ours / peer, round by round: what disturbs a whole round disturbs both."""
    return [a / b for a, b in zip(ours, peer, strict=True)]


def better_peer(ratios: Mapping[str, Summary]) -> str | None:
    """The peer against which our median ratio is lowest; None without peers."""
    return min(ratios, key=lambda peer: ratios[peer].median, default=None)


def turn_order(count: int, round_index: int) -> list[int]:
    """Who goes when in a round: 0 1 2, then 1 2 0, then 2 0 1, and again."""
    return [(round_index + turn) % count for turn in range(count)]
