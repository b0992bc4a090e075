"""Tuning of all scenarios: short runs with LoadGen, a prediction for the official run, and a user.conf that says both.

Streams: the hint is the measured latency with room below. Offline: the rate at which 1.1 x duration x rate samples last
just longer than the least duration. Server: `server.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..config import STREAMS, TUNING_NAME, RunConfig, Scenario
from ..errors import BadInputError
from ..estimates import MOST_QUERIES
from ..progress import Progress
from ..results import METRICS
from ..run import DEFAULT_MAX_BATCH, RunOutcome, run
from ..run_folder import write_atomically
from ..settings import MS_PER_S, OFFLINE_SLACK, SettingValues, latency_goal
from .server import Probe, ServerGoal, tune_server

_STREAM_ROOM: Final = 0.8
"""LoadGen prepares 2 x duration / hint queries: enough for a run that turns out 2.5 times as fast."""
_FEWEST_STREAM_QUERIES: Final = 20
_OFFLINE_REPEATS: Final = 3
_OFFLINE_MARGIN: Final = 1.05
"""On top of the confidence interval: a run of ten minutes may be faster than one of seconds, after the first heat."""
_CONFIDENCE: Final = 0.95
_T_975: Final = 4.303
"""Student's t for three runs (two degrees of freedom)."""


@dataclass(frozen=True)
class TuneConfig:
    """run: what every run shares; its output gets the short runs. seconds: length of one of them.

    duration_s: of the runs to tune for, Offline's with as many samples as that takes; None for the official one.
    """

    run: RunConfig
    scenarios: tuple[Scenario, ...]
    seconds: float
    duration_s: float | None = None

    def __post_init__(self) -> None:
        """Raises: BadInputError."""
        if not 0.1 <= self.seconds <= 600:
            raise BadInputError(f"--seconds {self.seconds:g}: must be from 0.1 to 600")


@dataclass(frozen=True)
class Tuned:
    """One value of user.conf and what it is expected to lead to.

    metric: low, middle and high expectation, in the metric's unit. duration_s: of the official performance run.
    accuracy_per_s: samples answered in a second, for the duration of accuracy runs. why: in words.
    """

    scenario: Scenario
    key: str
    value: float
    metric: tuple[float, float, float]
    duration_s: float
    accuracy_per_s: float
    valid_probability: float
    why: str

    @property
    def line(self) -> str:
        """Of user.conf."""
        return f"*.{self.scenario}.{self.key} = {self.value:.6g}"


def tune(config: TuneConfig, progress: Progress) -> tuple[Tuned, ...]:
    """Tune scenario after scenario. Raises: as `run.run`; BadInputError if Server cannot meet its bound."""
    order = sorted(config.scenarios, key=lambda scenario: scenario == "Server")
    found: list[Tuned] = []
    for scenario in order:
        if scenario in STREAMS:
            found.append(_tune_stream(config, scenario, progress))
        elif scenario == "Offline":
            found.append(_tune_offline(config, progress))
        else:
            found.append(_tune_server(config, progress))
    return tuple(found)


def user_conf(tuned: Sequence[Tuned]) -> str:
    """A user.conf: each value with a comment on lines of its own, since LoadGen takes none behind a value."""
    blocks = ["# user.conf as tune-load found it; values hold for this machine, model and backend."]
    for one in tuned:
        low, middle, high = one.metric
        unit = METRICS[one.scenario].unit
        blocks.append(
            f"# {one.scenario}: {one.why}\n"
            f"# Expected: {middle:.4g} {unit} ({low:.4g} to {high:.4g}), {one.duration_s:.0f} s, "
            f"VALID with a probability of {one.valid_probability:.2f} or better.\n{one.line}"
        )
    return "\n\n".join(blocks) + "\n"


def _short_run(
    config: TuneConfig, scenario: Scenario, seconds: float, progress: Progress, **more: object
) -> RunOutcome:
    """A performance run of its own in the tuning folder. Raises: as `run.run`."""
    values = {"scenario": scenario, "mode": "performance", "min_duration_s": seconds, "name": TUNING_NAME, **more}
    return run(replace(config.run, **values), progress)  # type: ignore[arg-type]


def _tune_stream(config: TuneConfig, scenario: Scenario, progress: Progress) -> Tuned:
    outcome = _short_run(config, scenario, config.seconds, progress, min_query_count=_FEWEST_STREAM_QUERIES)
    official = outcome.official_settings
    responses, mean_s = outcome.responses, outcome.responses.mean_s()
    percentile, _ = latency_goal(scenario, official)
    least_s, least_queries = _duration_s(config, official), int(official["min_query_count"])
    hint_s = max(_STREAM_ROOM * mean_s, 2 * least_s / MOST_QUERIES)
    queries = max(least_queries, round(least_s / mean_s))
    samples = int(official["multi_stream_samples_per_query"]) if scenario == "MultiStream" else 1
    spread = 1 / math.sqrt(responses.count)
    tail = [responses.quantile_s(min(1.0, max(0.0, share))) for share in _around(percentile, responses.count)]
    return Tuned(
        scenario,
        "target_latency",
        hint_s * MS_PER_S,
        (tail[0] * MS_PER_S, tail[1] * MS_PER_S, tail[2] * MS_PER_S),
        max(least_s, queries * mean_s),
        samples / mean_s,
        1.0,
        f"{_STREAM_ROOM:g} of the mean latency {mean_s * MS_PER_S:.4g} ms (+- {100 * spread:.2g} %) over "
        f"{responses.count} queries; a hint that only sizes LoadGen's list of queries.",
    )


def _tune_offline(config: TuneConfig, progress: Progress) -> Tuned:
    seconds = config.seconds / _OFFLINE_REPEATS
    outcomes = [_short_run(config, "Offline", seconds, progress, min_query_count=1) for _ in range(_OFFLINE_REPEATS)]
    rates = [float(outcome.result.metric or 0) for outcome in outcomes]
    official = outcomes[0].official_settings
    mean = statistics.fmean(rates)
    half_width = _T_975 * statistics.stdev(rates) / math.sqrt(len(rates))
    low, high = max(min(rates), mean - half_width), mean + half_width
    least_s = _duration_s(config, official)
    least_samples = int(official["min_query_count"]) if config.duration_s is None else 1
    target = min(high * _OFFLINE_MARGIN / OFFLINE_SLACK, MOST_QUERIES / (OFFLINE_SLACK * least_s))
    samples = max(least_samples, int(OFFLINE_SLACK * least_s * target))
    bound_by = "duration" if samples > least_samples else f"the least number of samples, {least_samples}"
    return Tuned(
        "Offline",
        "target_qps",
        target,
        (low, mean, high),
        samples / mean,
        mean,
        _CONFIDENCE,
        f"{mean:.4g} samples/s (+- {100 * half_width / mean:.2g} % at {100 * _CONFIDENCE:g} %) in {len(rates)} runs; "
        f"its length follows from {bound_by}.",
    )


def _tune_server(config: TuneConfig, progress: Progress) -> Tuned:
    batch = config.run.max_batch or DEFAULT_MAX_BATCH["Server"]
    seconds = config.seconds / _OFFLINE_REPEATS
    first = _short_run(config, "Offline", seconds, progress, min_query_count=1, max_batch=batch)
    official = first.official_settings
    least_s = _duration_s(config, official)
    percentile, bound_s = latency_goal("Server", official)
    assert bound_s is not None
    goal = ServerGoal(bound_s, percentile, least_s, MOST_QUERIES / least_s)

    def probe(rate_qps: float) -> Probe:
        outcome = _short_run(config, "Server", config.seconds, progress, target_qps=rate_qps, min_query_count=1)
        late = outcome.responses.above(goal.bound_s) / max(1, outcome.responses.count)
        return Probe(rate_qps, outcome.responses, outcome.service, late)

    found = tune_server(probe, first.instances, float(first.result.metric or 1), goal)
    rate = found.rate_qps
    return Tuned(
        "Server",
        "target_qps",
        rate,
        (0.98 * rate, rate, 1.02 * rate),
        least_s,
        rate,
        found.load.valid_probability,
        f"{len(found.probes)} probes; the queueing model expects {100 * found.load.late_share:.2g} % of queries over "
        f"{bound_s * MS_PER_S:g} ms.",
    )


def _duration_s(config: TuneConfig, official: SettingValues) -> float:
    if config.duration_s is not None:
        return config.duration_s
    return float(official["min_duration_ms"]) / MS_PER_S


def _around(percentile: float, count: int) -> tuple[float, float, float]:
    """Shares between which the true percentile lies with 95 % confidence (normal approximation of order statistics)."""
    deviation = 1.96 * math.sqrt(percentile * (1 - percentile) / count)
    return percentile - deviation, percentile, percentile + deviation


def write_user_conf(tuned: Sequence[Tuned], path: Path) -> None:
    """Raises: DiskFullError, RunFailedError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, user_conf(tuned))
