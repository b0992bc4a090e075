"""Runs of one scenario beside each other, and what their backends do on average. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from ..config import SCENARIOS
from ..settings import applies_to
from . import intervals
from .records import BackendMean, Comparison, Interval, NotCompared, Quantity, Run, RunRatio

_SHAPING: Final = ("backend", "model", "precision")


def compare(runs: Sequence[Run]) -> tuple[tuple[Comparison, ...], tuple[NotCompared, ...]]:
    """By scenario, those with at least two VALID performance runs; the first of a scenario is its baseline.

    Compliance tests and searches are no results and are left out. Other runs that might be looked for in a comparison
    are named with why they are in none, where their scenario has several.
    """
    comparisons: list[Comparison] = []
    left_out: list[NotCompared] = []
    for scenario in SCENARIOS:
        candidates = [run for run in runs if run.scenario == scenario and run.mode in ("performance", "tuning")]
        why_not = {run.number: _why_not(run) for run in candidates}
        if len(candidates) > 1:
            left_out += [NotCompared(number, why) for number, why in why_not.items() if why is not None]
        found = [run for run in candidates if why_not[run.number] is None]
        if len(found) > 1:
            ratios = tuple(_ratio(run, found[0]) for run in found[1:])
            comparisons.append(Comparison(scenario, ratios, _backends(found)))
    return tuple(comparisons), tuple(left_out)


def _why_not(run: Run) -> str | None:
    if run.mode == "tuning":
        return "a short run, made to tune a load"
    if run.status != "finished":
        return run.status
    if run.verdict != "VALID":
        return run.verdict or "without a verdict"
    return "without a result" if run.compared is None else None


def _ratio(run: Run, baseline: Run) -> RunRatio:
    assert run.compared is not None and baseline.compared is not None
    return RunRatio(
        run=run.number,
        baseline=baseline.number,
        name=run.compared.name,
        better=run.compared.better,
        ratio=run.compared.value / baseline.compared.value,
        interval=intervals.of_ratio(_interval(run), _interval(baseline)),
        differences=_differences(run, baseline),
    )


def _interval(run: Run) -> Interval | None:
    """Of what is compared, wide enough for one of two."""
    assert run.compared is not None
    if run.scenario == "Offline":
        return intervals.of_throughput(run.compared.value, run.distribution, intervals.EACH_OF_TWO)
    if run.scenario == "Server" or run.latency is None:
        return None
    return intervals.of_latency(
        run.latency.percentile, run.latency.percentile_ms, run.distribution, intervals.EACH_OF_TWO
    )


def _differences(run: Run, baseline: Run) -> tuple[str, ...]:
    """What else is not equal, e.g. `server_target_qps 90, there 100`; not what was measured anew before each test."""
    there = {setting.name: setting for setting in baseline.provenance.settings}
    pairs = [
        *((name, getattr(run, name), getattr(baseline, name)) for name in _SHAPING),
        ("max_batch", run.provenance.max_batch, baseline.provenance.max_batch),
        ("instances", len(run.provenance.instances), len(baseline.provenance.instances)),
        *(
            (name, run.provenance.machine.get(name), baseline.provenance.machine.get(name))
            for name in ("processor", "logical_cpus")
        ),
        *(
            (ours.name, ours.effective, theirs.effective)
            for ours in run.provenance.settings
            if (theirs := there.get(ours.name)) is not None
            and applies_to(ours.name, run.scenario)
            and not (ours.estimated or theirs.estimated)
        ),
    ]
    return tuple(f"{name} {ours}, there {theirs}" for name, ours, theirs in pairs if ours != theirs)


def _backends(runs: Sequence[Run]) -> tuple[BackendMean, ...]:
    groups: list[list[Run]] = []
    for run in runs:
        repeated = next((group for group in groups if not _differences(run, group[0])), None)
        if repeated is None:
            groups.append([run])
        else:
            repeated.append(run)
    baseline = _values(groups[0])
    return tuple(_mean(group, baseline, groups[0][0]) for group in groups)


def _mean(repeats: Sequence[Run], baseline: Sequence[float], first: Run) -> BackendMean:
    one, values = repeats[0], _values(repeats)
    assert one.compared is not None
    name, unit, better = one.compared.name, one.compared.unit, one.compared.better
    mean = statistics.geometric_mean(values)
    return BackendMean(
        backend=one.backend,
        model=one.model,
        precision=one.precision,
        runs=tuple(run.number for run in repeats),
        mean=Quantity(name, mean, unit, better, intervals.of_geometric_mean(values)),
        ratio=1.0 if one is first else mean / statistics.geometric_mean(baseline),
        ratio_interval=None if one is first else intervals.of_ratio_of_means(values, baseline),
        differences=_differences(one, first),
    )


def _values(runs: Sequence[Run]) -> list[float]:
    return [run.compared.value for run in runs if run.compared is not None]
