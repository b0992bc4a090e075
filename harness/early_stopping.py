"""LoadGen's early stopping: how many queries may be late, of how many, before a percentile is in doubt.

With confidence 99 % and no tolerance: t late queries are allowed among n if BinomialCDF(t; n, 1 - percentile) < 1 %.
Source: MLPerf Inference, loadgen/early_stopping.cc and its description.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_DOUBT: Final = 0.01


@lru_cache(maxsize=64)
def allowed_late(queries: int, percentile: float) -> int:
    """The greatest number of late queries among so many; -1 if even none would be too many."""
    late = 1 - percentile
    log_odds = math.log(late) - math.log1p(-late)
    log_probability = queries * math.log1p(-late)  # of no late query
    total = 0.0
    for count in range(queries + 1):
        total += math.exp(log_probability)
        if total >= _DOUBT:
            return count - 1
        log_probability += math.log(queries - count) - math.log(count + 1) + log_odds if count < queries else 0.0
    return queries


@lru_cache(maxsize=64)
def least_queries(late: int, percentile: float) -> int:
    """The least number of queries among which so many may be late."""
    low, high = late, 2 * (late + 1)
    while allowed_late(high, percentile) < late:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if allowed_late(middle, percentile) < late:
            low = middle
        else:
            high = middle
    return high


def stream_queries(percentile: float) -> int:
    """Queries that a stream needs before LoadGen can estimate its percentile: one may be discarded."""
    return least_queries(1, percentile)
