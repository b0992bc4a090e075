"""How sure a number is. Every interval names its method; METHODS says in words what each takes for granted.

Quantiles have order-statistic intervals: they need no assumption about the shape of a distribution, which for
latencies is neither normal nor symmetric, and a resampling of a tail quantile is no better than its order statistics.
Source: W. J. Conover, Practical Nonparametric Statistics, 3.2 (confidence interval for a quantile).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy import stats

from .records import Distribution, Interval

CONFIDENCE: Final = 0.95
EACH_OF_TWO: Final = 1 - (1 - CONFIDENCE) / 2
"""Of each of two intervals that shall both hold with CONFIDENCE (Bonferroni)."""

ORDER_STATISTICS: Final = "order statistics"
BATCH_TIMES: Final = "batch times"
TWO_RUNS: Final = "both intervals"
STUDENT: Final = "Student's t of logarithms"
WELCH: Final = "Welch's t of logarithms"
ROUNDS: Final = "order statistics of rounds"

METHODS: Final[Mapping[str, str]] = {
    ORDER_STATISTICS: "Between two of the sorted latencies, whose ranks follow from the binomial distribution; exact "
    "for any shape of the distribution, if queries are independent. It tells how well this run knows its percentile, "
    "not how runs on another day differ. Ends are rounded outwards to the histogram's buckets of 1 %. Left out where "
    "LoadGen's own percentile lies outside, since the harness's clock has then timed something else: the call and the "
    "taking of the answer, microseconds, differ, and in Server the wait from the scheduled time is LoadGen's alone.",
    BATCH_TIMES: "Throughput over the mean time of a batch, normal approximation from the spread of the batches' "
    "times, if batches are independent. Of this run alone.",
    TWO_RUNS: "Ratio of two runs: from the lowest over the highest to the highest over the lowest end of intervals "
    "that hold with 97.5 % each, so that both hold with at least 95 % (Bonferroni). Wide rather than wrong.",
    STUDENT: "Of the geometric mean of repeated runs, Student's t on logarithms with one degree of freedom less than "
    "there are runs. It includes what differs from run to run.",
    WELCH: "Ratio of the geometric means of repeated runs, Welch's t on logarithms: each backend has a spread of its "
    "own.",
    ROUNDS: "Of a median over rounds of a bench, by order statistics; for a ratio over pairs of one round, so that "
    "what disturbs a whole round disturbs both.",
}


def quantile_ranks(count: int, share: float, confidence: float) -> tuple[int, int] | None:
    """Ranks (from 1) of two of `count` sorted values between which the quantile lies with at least this confidence.

    P(low is above it) and P(high is below it) are at most (1 - confidence) / 2 each. None if there are too few values.
    """
    doubt = (1 - confidence) / 2
    low, high = int(stats.binom.ppf(doubt, count, share)), int(stats.binom.ppf(1 - doubt, count, share)) + 1
    return (low, high) if low >= 1 and high <= count else None


def of_quantile(values: Sequence[float], share: float, method: str, confidence: float = CONFIDENCE) -> Interval | None:
    """Of a quantile of the distribution that the values are drawn from."""
    ranks = quantile_ranks(len(values), share, confidence)
    if ranks is None:
        return None
    ordered = sorted(values)
    return Interval(ordered[ranks[0] - 1], ordered[ranks[1] - 1], confidence, method)


def of_distribution(distribution: Distribution | None, share: float, confidence: float = CONFIDENCE) -> Interval | None:
    """As `of_quantile`, in ms, from the lower edge of one bucket to the upper edge of another."""
    ranks = None if distribution is None else quantile_ranks(sum(distribution.counts), share, confidence)
    if distribution is None or ranks is None:
        return None
    low, high = np.searchsorted(np.cumsum(distribution.counts), ranks)
    return Interval(distribution.edges_ms[low], distribution.edges_ms[high + 1], confidence, ORDER_STATISTICS)


def of_latency(
    percentile: float, stated_ms: float | None, times: Distribution | None, confidence: float = CONFIDENCE
) -> Interval | None:
    """Of a percentile, a share of 1; None where LoadGen's clock, which stated it, and the harness's do not agree."""
    found = of_distribution(times, percentile, confidence)
    if found is None or stated_ms is None or not found.low <= stated_ms <= found.high:
        return None
    return found


def of_throughput(rate: float, batches: Distribution | None, confidence: float = CONFIDENCE) -> Interval | None:
    """Of a rate that is inverse to the mean time of a batch; None if it cannot be told from so few."""
    if batches is None or sum(batches.counts) < 2:
        return None
    counts, edges_ms = np.array(batches.counts), np.array(batches.edges_ms)
    middles_ms = (edges_ms[:-1] + edges_ms[1:]) / 2
    mean_ms = np.average(middles_ms, weights=counts)
    variance = np.average((middles_ms - mean_ms) ** 2, weights=counts) / (counts.sum() - 1)
    share = float(stats.norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / mean_ms)
    return Interval(rate / (1 + share), rate / (1 - share), confidence, BATCH_TIMES) if share < 1 else None


def of_ratio(over: Interval | None, under: Interval | None) -> Interval | None:
    """Of over / under, which hold with EACH_OF_TWO."""
    if over is None or under is None or under.low <= 0:
        return None
    return Interval(over.low / under.high, over.high / under.low, CONFIDENCE, TWO_RUNS)


def of_geometric_mean(values: Sequence[float]) -> Interval | None:
    """Of that of what the values, all above 0, are drawn from; None for fewer than two, or if none differs."""
    if len({*values}) < 2:
        return None
    logarithms = [math.log(value) for value in values]
    error = statistics.stdev(logarithms) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    mean = statistics.fmean(logarithms)
    return Interval(math.exp(mean - half), math.exp(mean + half), CONFIDENCE, STUDENT)


def of_ratio_of_means(over: Sequence[float], under: Sequence[float]) -> Interval | None:
    """Of the ratio of two geometric means; None unless both have at least two positive values that differ."""
    if min(len(over), len(under)) < 2 or min(*over, *under) <= 0 or len({*over}) + len({*under}) <= 2:
        return None
    found = stats.ttest_ind(np.log(over), np.log(under), equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(math.exp(found.low), math.exp(found.high), CONFIDENCE, WELCH)
