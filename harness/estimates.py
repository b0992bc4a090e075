"""How long a query will take, for the hints from which LoadGen sizes its list of queries.

The hints (expected latency of the streams, expected rate of Offline) are each submitter's own; they decide nothing but
how much is prepared. Too few queries end a test early and make it INVALID, far too many cost memory.
"""

from __future__ import annotations

from typing import Final

from .settings import LATENCY_ATTRIBUTES, MS_PER_S, NS_PER_S, RATE_ATTRIBUTES, SettingValues

_CAUTION: Final = 0.7
"""LoadGen prepares 2 * duration / hint queries, so the streams may turn out 2.8 times as fast as measured."""
_OFFLINE_MARGIN: Final = 1.25
"""On top of LoadGen's own 1.1: a rate below reality is INVALID, one above it only takes longer."""
MOST_QUERIES: Final = 2_000_000
"""LoadGen keeps about 300 bytes per prepared query."""


def stream_latency(scenario: str, settings: SettingValues, query_s: float) -> dict[str, int | float]:
    """Expected latency of a query, from a measured one in seconds."""
    shortest_ns = 2 * float(settings["min_duration_ms"]) / MS_PER_S * NS_PER_S / MOST_QUERIES
    return {LATENCY_ATTRIBUTES[scenario]: round(max(_CAUTION * query_s * NS_PER_S, shortest_ns, 1))}


def offline_rate(settings: SettingValues, samples_per_second: float) -> dict[str, int | float]:
    """Expected rate, from a measured one."""
    highest = MOST_QUERIES / (float(settings["min_duration_ms"]) / MS_PER_S)
    return {RATE_ATTRIBUTES["Offline"]: round(min(_OFFLINE_MARGIN * samples_per_second, highest), 3)}
