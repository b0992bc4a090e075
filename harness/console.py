"""What is printed on standard output when runs are over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from .explain import advise
from .results import RunResult
from .run import RunOutcome
from .settings import MS_PER_S, NS_PER_S
from .submission.audit import AuditOutcome
from .submission.checks import CheckReport


def print_outcome(outcome: RunOutcome) -> None:
    """One test: metric and verdict, or the accuracy line; what keeps it from submission; where the logs are."""
    result = outcome.result
    if result.metric is not None:
        click.echo(f"{result.scenario} {result.metric_name}: {_metric(result)}, {result.verdict}")
        if result.scenario == "Server":
            click.echo(_server_line(outcome))
    if result.peak_qps is not None:
        click.echo(
            f"peak found: {result.peak_qps:g} queries/s issued, the greatest rate whose trial met the latency bound; "
            "above is that trial"
        )
    if outcome.accuracy is not None:
        click.echo(outcome.accuracy.line)
    for problem in _problems(outcome):
        click.echo(problem)
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}")
    for reason in outcome.not_submittable:
        click.echo(f"not for submission: {reason}")
    if outcome.moved_aside is not None:
        click.echo(f"the earlier run there is now in {outcome.moved_aside}")
    click.echo(f"logs: {outcome.folder}")


def print_campaign(outcomes: Sequence[RunOutcome], output: Path) -> None:
    """Several tests: a table with a row per scenario, then what deviates from the official settings."""
    table = Table("scenario", "metric", "result", "verdict", "accuracy", padding=(0, 0))
    for scenario in dict.fromkeys(outcome.result.scenario for outcome in outcomes):
        of_scenario = [outcome for outcome in outcomes if outcome.result.scenario == scenario]
        measured = next((o.result for o in of_scenario if o.result.metric is not None), None)
        scored = next((o.accuracy for o in of_scenario if o.accuracy is not None), None)
        table.add_row(
            scenario,
            measured.metric_name.replace(" percentile", "") if measured else "-",
            _metric(measured) if measured else "-",
            measured.verdict if measured else "-",
            f"{scored.percent:.3f}% ({scored.good} of {scored.total})" if scored else "-",
        )
    Console().print(table)
    for outcome in outcomes:
        if outcome.result.scenario == "Server" and outcome.result.metric is not None:
            click.echo(_server_line(outcome))
    for outcome in outcomes:
        for reason in outcome.result.invalid_reasons:
            click.echo(f"{outcome.result.scenario}: INVALID because: {reason} -> try again when the machine is idle")
    for warning in dict.fromkeys(warning for outcome in outcomes for warning in outcome.warnings):
        click.echo(f"warning: {warning}")
    click.echo("not for submission, because:")
    for reason in dict.fromkeys(reason for outcome in outcomes for reason in outcome.not_submittable):
        scenarios = dict.fromkeys(o.result.scenario for o in outcomes if reason in o.not_submittable)
        click.echo(f"  {reason} ({', '.join(scenarios)})")
    for outcome in outcomes:
        if outcome.moved_aside is not None:
            click.echo(f"the earlier run of {outcome.result.scenario} is now in {outcome.moved_aside}")
    click.echo(f"logs: {output.absolute() / outcomes[0].folder.relative_to(output.absolute()).parts[0]}")


def print_audit(outcome: AuditOutcome) -> None:
    """A compliance test: what its rules say, as in the files for the submission."""
    if outcome.run is not None:
        print_outcome(outcome.run)
    for verification in (outcome.accuracy, outcome.performance):
        if verification is not None:
            click.echo(verification.text.rstrip())
    if outcome.excused:
        click.echo("answers differ, but the accuracies agree within the 1 % that the rules allow")
    click.echo(f"{outcome.test}: {'passed' if outcome.passed else 'FAILED'}")


def print_check(checked: CheckReport) -> None:
    """A line per finding, or that there is none."""
    for finding in checked.findings:
        click.echo(str(finding))
    if checked.passed:
        click.echo(f"looks OK: {checked.rules} rules over {checked.scenarios} scenarios")


def _server_line(outcome: RunOutcome) -> str:
    """What was asked of a Server run and how it did, which its metric alone does not say."""
    settings = outcome.effective_settings
    bound_ms = float(settings["server_target_latency_ns"]) / NS_PER_S * MS_PER_S
    share = float(settings["server_target_latency_percentile"])
    measured_ms = outcome.result.latency_ms.get(f"{100 * share:.2f}_percentile")
    measured = "" if measured_ms is None else f"{measured_ms:.1f} ms, "
    rate_qps = outcome.result.peak_qps or settings["server_target_qps"]
    return (
        f"Server: {rate_qps:g} queries/s issued, {100 * share:g}th percentile of latency "
        f"{measured}bound {bound_ms:g} ms"
    )


def _metric(result: RunResult) -> str:
    return f"{result.metric:.3f} {result.metric_unit}"


def _problems(outcome: RunOutcome) -> list[str]:
    """LoadGen's reasons, then what to do about them."""
    problems = [f"INVALID because: {reason}" for reason in outcome.result.invalid_reasons]
    return problems + [
        f"-> {advice}" for advice in advise(outcome.result, outcome.effective_settings, outcome.standstill)
    ]
