"""Commands that lead from runs to a submission."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..config import COMPLIANCE_TESTS, ComplianceTest
from ..errors import CheckFailedError
from ..submission.rounds import ROUNDS
from .options import PATH, common_options, engine_options, shared_run

if TYPE_CHECKING:
    from ..doctor import Finding

_round: Final = click.option(
    "--round", "round_name", default=ROUNDS[0], show_default=True, metavar="NAME", help="Whose rules."
)
_system_type: Final = click.option(
    "--scenarios",
    "system_type",
    default="edge",
    show_default=True,
    metavar="TYPE",
    help="System type, which decides the scenarios: edge or datacenter,edge.",
)


def _submission_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What names a submission."""
    options = (
        click.option("--division", type=click.Choice(["closed", "open"]), default="closed", show_default=True),
        _system_type,
        click.option("--system-name", required=True, metavar="NAME", help="Folder of the system's results."),
        click.option("--submitter", required=True, metavar="ORG", help="Folder of the submitter."),
        click.option("--system-toml", type=PATH, metavar="FILE.toml", help="What cannot be detected of the system."),
        click.option(
            "--calibration",
            type=PATH,
            metavar="FILE.md",
            help="How a quantised model's ranges were found. [default: from the record that `quantize` left beside it]",
        ),
        click.option("--infer", is_flag=True, help="Edge: infer MultiStream and Offline where they were not run."),
        click.option("--rehearsal", is_flag=True, help="Package what is not for submission, and mark it so."),
        _round,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _ask_on_terminal() -> Callable[[str, str], str] | None:
    """A question per unknown field, if somebody is there."""
    if not sys.stdin.isatty():
        return None
    return lambda field, hint: click.prompt(f"{field} ({hint})" if hint else field, err=True, type=str)


@click.command()
@click.argument("test", type=click.Choice(COMPLIANCE_TESTS))
@click.argument("scenario_dir", type=PATH)
@click.option("--verify-only", is_flag=True, help="Run nothing: verify the run that is there once more.")
@common_options
def audit(test: ComplianceTest, scenario_dir: Path, verify_only: bool, quiet: bool, **_: Any) -> None:
    """Run and verify a compliance test of the performance run in SCENARIO_DIR, such as reports/runs/resnet50/Offline.

    Settings are those of that run. TEST01 also needs the accuracy run beside it. Exit status 1 if the test fails.
    """
    from .. import console
    from ..progress import open_progress
    from ..submission import audit as submission_audit

    if verify_only:
        outcome = submission_audit.verify_again(test, scenario_dir)
    else:
        with open_progress(quiet) as progress:
            outcome = submission_audit.audit(test, scenario_dir, progress)
    console.print_audit(outcome)
    if not outcome.passed:
        raise CheckFailedError(f"{test} failed: see {outcome.folder}")


@click.command("package")
@click.argument("runs_dir", type=PATH)
@click.option("--output", type=PATH, required=True, metavar="DIR", help="Gets the tree and the untruncated originals.")
@_submission_options
@common_options
def package_command(runs_dir: Path, output: Path, quiet: bool, debug: bool, **settings: Any) -> None:
    """Make the tree to submit from the finished runs in RUNS_DIR, such as reports/runs/resnet50."""
    del quiet, debug  # it is quick; debug is read by `main`
    from ..submission.package import PackageConfig, package

    tree = package(PackageConfig(runs=runs_dir, output=output, **settings), _ask_on_terminal())
    click.echo(f"tree: {tree}")


@click.command()
@click.option("--output", type=PATH, metavar="FILE.toml", help="[default: standard output]")
@_round
@common_options
def describe_system(output: Path | None, round_name: str, **_: Any) -> None:
    """Write the system description as far as it can be detected, to be completed for --system-toml."""
    from ..run_folder import write_atomically
    from ..submission.rounds import load_round
    from ..submission.system import as_toml

    text = as_toml(load_round(round_name), Path.cwd())
    if output is None:
        click.echo(text, nl=False)
        return
    write_atomically(output, text)
    click.echo(f"complete the empty fields in {output}")


@click.command()
@click.argument("tree", type=PATH)
@_round
@click.option("--submitter", metavar="ORG", help="Only this submitter. [default: all]")
@click.option("--originals", type=PATH, metavar="DIR", help="Untruncated logs. [default: `originals` beside TREE]")
@click.option("--rehearsal", is_flag=True, help="Do not mind that the tree is marked as a rehearsal.")
@common_options
def check(
    tree: Path, round_name: str, submitter: str | None, originals: Path | None, rehearsal: bool, **_: Any
) -> None:
    """Check the submission in TREE (which holds closed/ or open/) by all rules. Exit status 1 if any is broken."""
    from .. import console
    from ..submission.checks import CheckConfig, check_tree
    from ..submission.package import ORIGINALS

    beside = tree.absolute().parent / ORIGINALS
    if originals is None and beside.is_dir():
        originals = beside
    checked = check_tree(CheckConfig(tree.absolute(), round_name, submitter, originals, rehearsal))
    console.print_check(checked)
    if not checked.passed:
        raise CheckFailedError(f"{tree}: {len(checked.findings)} findings against the rules of {round_name}")


@click.command()
@engine_options
@_system_type
@_round
@click.option("--seconds", type=float, default=10.0, show_default=True, metavar="SECONDS", help="Of one short run.")
@click.option(
    "--output", type=PATH, default=Path("user.conf"), show_default=True, metavar="FILE", help="The user.conf to write."
)
@click.option(
    "--runs", type=PATH, default=Path("reports/runs"), show_default=True, metavar="DIR", help="Gets the short runs."
)
@common_options
def tune_load(
    system_type: str, round_name: str, seconds: float, output: Path, runs: Path, quiet: bool, **settings: Any
) -> None:
    """Find target_qps and target_latency of every scenario by short runs, and write a user.conf."""
    from ..progress import open_progress
    from ..submission.rounds import load_round
    from ..tuning.tune import TuneConfig, tune, user_conf, write_user_conf

    scenarios = load_round(round_name).scenarios_of(system_type)
    config = TuneConfig(shared_run(settings, runs), scenarios, seconds)
    with open_progress(quiet) as progress:
        tuned = tune(config, progress)
    write_user_conf(tuned, output)
    click.echo(user_conf(tuned), nl=False)
    click.echo(f"written: {output}")


@click.command()
@engine_options
@click.option(
    "--output", type=PATH, default=Path("reports"), show_default=True, metavar="DIR", help="Where runs would go."
)
@_round
@click.option("--rehearsal", is_flag=True, help="Do not mind what only keeps runs from submission.")
@common_options
def doctor(output: Path, round_name: str, rehearsal: bool, quiet: bool, debug: bool, **settings: Any) -> None:
    """Say whether machine, model and images are ready for official runs. Exit status 1 if they are not."""
    del debug  # read by `main`
    from ..doctor import DoctorConfig, examine
    from ..progress import open_progress
    from ..submission.rounds import load_round

    with open_progress(quiet) as progress:
        findings = examine(DoctorConfig(shared_run(settings, output), load_round(round_name), rehearsal), progress)
    _stop_unless_ready(findings)
    click.echo("ready")


def _stop_unless_ready(findings: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(str(finding))
    failed = sum(finding.level == "fail" for finding in findings)
    if failed:
        raise CheckFailedError(f"not ready: {failed} of {len(findings)} examinations failed")


@click.command()
@engine_options
@click.option("--output", type=PATH, required=True, metavar="DIR", help="Gets loads, runs and the tree.")
@_submission_options
@click.option("--plan-only", is_flag=True, help="Tune the loads, list the runs with their lengths, and stop.")
@click.option(
    "--seconds", "tune_s", type=float, default=10.0, show_default=True, metavar="SECONDS", help="Of a tuning run."
)
@click.option("--time", "duration_s", type=float, metavar="SECONDS", help="Rehearsal: length of performance runs.")
@common_options
def campaign(
    output: Path,
    plan_only: bool,
    tune_s: float,
    duration_s: float | None,
    rehearsal: bool,
    quiet: bool,
    debug: bool,
    **settings: Any,
) -> None:
    """Make a whole submission: tune, run every scenario with its compliance tests, package, check.

    The same command line goes on where an earlier one was interrupted.
    """
    del debug  # read by `main`
    from .. import console
    from ..doctor import DoctorConfig, examine
    from ..progress import open_progress
    from ..submission.campaign import Campaign, CampaignConfig, describe_steps
    from ..submission.package import PackageConfig
    from ..submission.rounds import load_round

    output = output.absolute()
    shared = shared_run(settings, output / "runs")
    config = CampaignConfig(
        run=shared,
        package=PackageConfig(runs=shared.output / shared.name, output=output, rehearsal=rehearsal, **settings),
        tune_s=tune_s,
        duration_s=duration_s,
    )
    running = Campaign(config, _ask_on_terminal())
    with open_progress(quiet) as progress:
        if not any(step.done for step in running.steps()):
            _stop_unless_ready(
                examine(DoctorConfig(shared, load_round(config.package.round_name), rehearsal), progress)
            )
        running.tune_loads(progress)
        for line in describe_steps(running.steps()):
            click.echo(line)
        if plan_only:
            return
        running.run_all(progress, click.echo)
    result = running.finish()
    console.print_check(result.report)
    click.echo(f"tree: {result.tree}")
    if not result.report.passed:
        raise CheckFailedError(f"{result.tree}: {len(result.report.findings)} findings")
