"""What is printed when runs are over."""

from __future__ import annotations

import click

from .run import RunOutcome


def print_outcome(outcome: RunOutcome) -> None:
    """One test: metric and verdict, or the accuracy line; what keeps it from submission; where the logs are."""
    result = outcome.result
    if result.metric is not None:
        click.echo(
            f"{result.scenario} {result.metric_name}: {result.metric:.3f} {result.metric_unit}, {result.verdict}"
        )
    if outcome.accuracy is not None:
        click.echo(outcome.accuracy.line)
    for error in result.errors:
        click.echo(f"LoadGen error: {error}")
    for reason in result.invalid_reasons:
        click.echo(f"INVALID because: {reason}")
    for reason in outcome.not_submittable:
        click.echo(f"not for submission: {reason}")
    if outcome.moved_aside is not None:
        click.echo(f"the earlier run there is now in {outcome.moved_aside}")
    click.echo(f"logs: {outcome.folder}")
