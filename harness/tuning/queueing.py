"""A queue like Server's: Poisson arrivals, first come first served, c instances with the same service times (M/G/c).

Pure simulation, with random numbers of its own: neither LoadGen's seeds nor its schedule are used, so that nothing is
tuned to the schedule of a round. The same seed draws the same arrivals and service times at every rate, scaled, which
makes the share of late queries grow smoothly with the rate. A batch counts as one query: Server's default is one image
at a time, and larger batches are left to the probes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..early_stopping import allowed_late
from ..timings import Durations

_SCHEDULES: Final = 256
_QUERIES: Final = 2000
_WARM_UP: Final = 200
"""Of each schedule, the first so many are not counted: the queue begins empty."""
_BATCH: Final = 300
"""Late queries come in clusters; so many in a row make one observation of their variance."""
_STEPS: Final = 12
"""Of the bisection: the rate is found to 1 part in 4000 of the capacity."""
UNDISTURBED: Final = 0.1
"""Quantile of responses below which nobody has waited, at any load that a bound allows."""
_SURE: Final = 0.95
"""How probable a VALID run is to be."""


@dataclass(frozen=True)
class Load:
    """What the queue does at a rate.

    late_share: of queries over the bound; over n queries that share has a standard deviation of
    late_deviation / sqrt(n), more than if queries were late independently. valid_probability: of a whole run.
    undisturbed_s: response time of queries that met no queue, at a low quantile.
    """

    rate_qps: float
    late_share: float
    late_deviation: float
    valid_probability: float
    undisturbed_s: float


class Queue:
    """One distribution of service times on c instances, with its random numbers drawn once."""

    def __init__(self, service: Durations, instances: int, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        shape = (_QUERIES, _SCHEDULES)
        self._instances = instances
        self._gaps = random.standard_exponential(shape)
        self._service = service.draw(random, shape)
        self.capacity_qps = instances / service.mean_s()

    def responses_s(self, rate_qps: float) -> npt.NDArray[np.float64]:
        """Response times [queries, schedules] at a rate, seconds, without the warm-up."""
        arrivals = np.cumsum(self._gaps / rate_qps, axis=0)
        free = np.zeros((_SCHEDULES, self._instances))
        rows = np.arange(_SCHEDULES)
        responses = np.empty_like(arrivals)
        for number in range(_QUERIES):
            first = free.argmin(axis=1)
            ends = np.maximum(arrivals[number], free[rows, first]) + self._service[number]
            free[rows, first] = ends
            responses[number] = ends - arrivals[number]
        return responses[_WARM_UP:]

    def load(self, rate_qps: float, bound_s: float, percentile: float, duration_s: float) -> Load:
        """What a run of this length at this rate would be like."""
        responses = self.responses_s(rate_qps)
        late = responses > bound_s
        share = float(late.mean())
        clusters = late.reshape(-1, _BATCH, _SCHEDULES).sum(axis=1)
        variance_per_query = float(clusters.var()) / _BATCH
        queries = max(1, round(rate_qps * duration_s))
        probability = _below(
            allowed_late(queries, percentile) + 0.5, queries * share, math.sqrt(queries * variance_per_query)
        )
        deviation = math.sqrt(variance_per_query)
        return Load(rate_qps, share, deviation, probability, float(np.quantile(responses, UNDISTURBED)))

    def best(self, bound_s: float, percentile: float, duration_s: float, most_qps: float) -> Load | None:
        """The greatest rate, up to `most_qps`, at which a run is VALID as good as surely; None if there is none."""
        high = min(most_qps, self.capacity_qps)
        found = self.load(high, bound_s, percentile, duration_s)
        if found.valid_probability >= _SURE:
            return found
        low, best = 0.0, None
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = self.load(middle, bound_s, percentile, duration_s)
            if found.valid_probability >= _SURE:
                best, low = found, middle
            else:
                high = middle
        return best


def _below(limit: float, mean: float, deviation: float) -> float:
    """Probability that a normal variable is below a limit."""
    if deviation == 0:
        return 1.0 if mean <= limit else 0.0
    return 0.5 * (1 + math.erf((limit - mean) / (deviation * math.sqrt(2))))
