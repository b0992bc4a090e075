"""Runs of one scenario beside each other, and what their backends do on average. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from ..config import SCENARIOS
from ..settings import applies_to
from . import intervals
from .records import BackendMean, Comparison, Interval, Quantity, Run, RunRatio

_SHAPING: Final = ("backend", "model", "precision")


def compare(runs: Sequence[Run]) -> tuple[Comparison, ...]:
    """By scenario, those with at least two finished performance runs; the first of a scenario is its baseline.

    Compliance tests and searches are no results and are left out.
    """
    comparisons = []
    for scenario in SCENARIOS:
        found = [run for run in runs if run.scenario == scenario and run.mode == "performance" and run.compared]
        if len(found) > 1:
            ratios = tuple(_ratio(run, found[0]) for run in found[1:])
            comparisons.append(Comparison(scenario, ratios, _backends(found)))
    return tuple(comparisons)


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
    if run.latency is None:
        return None
    return intervals.of_latency(run.latency, run.distribution, intervals.EACH_OF_TWO)


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
    groups: dict[tuple[str | None, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.backend, run.model, run.precision), []).append(run)
    baseline = [run.compared.value for run in next(iter(groups.values())) if run.compared]
    means: list[BackendMean] = []
    for members in groups.values():
        compared = members[0].compared
        assert compared is not None
        values = [run.compared.value for run in members if run.compared]
        mean = Quantity(
            compared.name, statistics.fmean(values), compared.unit, compared.better, intervals.of_mean(values)
        )
        first = not means
        means.append(
            BackendMean(
                backend=members[0].backend,
                model=members[0].model,
                precision=members[0].precision,
                runs=tuple(run.number for run in members),
                mean=mean,
                ratio=1.0 if first else statistics.geometric_mean(values) / statistics.geometric_mean(baseline),
                ratio_interval=None if first else intervals.of_ratio_of_means(values, baseline),
            )
        )
    return tuple(means)
