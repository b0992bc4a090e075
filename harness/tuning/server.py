"""Server's rate: the greatest at which a whole run stays VALID, from short probes and a queueing model.

A probe of seconds sees too few late queries to tell 0.9 % from 1.1 % of them, but it measures service times well. So
each probe feeds the model (`queueing.py`), which says what a run of ten minutes would be like; the next probe runs at
the model's rate, because service times change with the load. What the model does not know (how long a query waits for
Python, for the system) is the difference between the responses of those that met no queue; it is taken off the bound.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..errors import BadInputError
from ..timings import Durations
from .queueing import UNDISTURBED, Load, Queue

_FIRST_LOAD: Final = 0.5
"""Of the capacity: busy enough to be like the real thing, and sure not to build up a queue."""
_MOST_PROBES: Final = 5
_SETTLED: Final = 0.02
"""Two probes in a row propose the same rate, but for so much."""
_ALIKE: Final = 0.25
_OVERLOAD: Final = 0.95
_BACK_OFF: Final = 0.95
_CONTRADICTED: Final = 3.0
"""A probe whose share of late queries is so many standard deviations above the model's contradicts it."""


@dataclass(frozen=True)
class Probe:
    """A short Server run. responses and service by the harness's clock; late: queries over the bound, by LoadGen's."""

    rate_qps: float
    responses: Durations
    service: Durations
    late_share: float


RunProbe: TypeAlias = Callable[[float], Probe]
"""Runs Server at a rate, queries/s."""


@dataclass(frozen=True)
class ServerGoal:
    """bound_s: on the percentile of latency. duration_s: of the run to tune for. most_qps: that it may be."""

    bound_s: float
    percentile: float
    duration_s: float
    most_qps: float


@dataclass(frozen=True)
class ServerRate:
    """The rate found, what the model says of it, and the probes that led there."""

    load: Load
    probes: tuple[Probe, ...]

    @property
    def rate_qps(self) -> float:
        """Queries per second, in three digits: less would pretend to know more than a probe can."""
        return float(f"{self.load.rate_qps:.3g}")


def tune_server(run_probe: RunProbe, instances: int, capacity_qps: float, goal: ServerGoal) -> ServerRate:
    """Probe until two probes agree. capacity_qps: throughput of all instances, roughly.

    Raises: BadInputError if no rate can meet the bound.
    """
    probes = [run_probe(min(_FIRST_LOAD * capacity_qps, goal.most_qps))]
    ceiling = goal.most_qps
    load = _best(probes, instances, goal, ceiling)
    while len(probes) < _MOST_PROBES:
        probe = run_probe(load.rate_qps)
        probes.append(probe)
        deviation = load.late_deviation / math.sqrt(max(1, probe.responses.count))
        if probe.late_share > load.late_share + _CONTRADICTED * deviation:
            ceiling = _BACK_OFF * load.rate_qps
        proposed = _best([one for one in probes if _alike(one, probe)], instances, goal, ceiling)
        settled = abs(proposed.rate_qps / load.rate_qps - 1) <= _SETTLED
        load = proposed
        if settled:
            break
    return ServerRate(load, tuple(probes))


def _alike(probe: Probe, last: Probe) -> bool:
    """Whether service times of both can be taken together: many are needed, since late queries come from rare ones."""
    return abs(probe.rate_qps / last.rate_qps - 1) <= _ALIKE


def _best(probes: list[Probe], instances: int, goal: ServerGoal, ceiling_qps: float) -> Load:
    """What the model makes of probes at about the same rate."""
    probe = probes[-1]
    queue = Queue(functools.reduce(operator.add, (one.service for one in probes)), instances)
    overhead_s = 0.0
    if probe.rate_qps < _OVERLOAD * queue.capacity_qps:  # else everybody waits, and nobody shows the overhead alone
        at_probe = queue.load(probe.rate_qps, goal.bound_s, goal.percentile, goal.duration_s)
        overhead_s = max(0.0, probe.responses.quantile_s(UNDISTURBED) - at_probe.undisturbed_s)
    best = queue.best(goal.bound_s - overhead_s, goal.percentile, goal.duration_s, ceiling_qps)
    if best is None:
        tail_s = probe.service.quantile_s(goal.percentile)
        raise BadInputError(
            f"Server: no rate keeps {100 * goal.percentile:g} % of queries within {1e3 * goal.bound_s:g} ms: "
            f"at that percentile one inference alone takes {1e3 * tail_s:.3g} ms: use fewer --instances with more "
            "--threads, or leave Server out"
        )
    return best
