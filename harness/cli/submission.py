"""Commands that lead from runs to a submission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import COMPLIANCE_TESTS, ComplianceTest
from ..errors import CheckFailedError
from .options import PATH, common_options


@click.command()
@click.argument("test", type=click.Choice(COMPLIANCE_TESTS))
@click.argument("scenario_dir", type=PATH)
@click.option("--verify-only", is_flag=True, help="Run nothing: verify the run that is there once more.")
@common_options
def audit(test: ComplianceTest, scenario_dir: Path, verify_only: bool, quiet: bool, **_: Any) -> None:
    """Run and verify a compliance test of the performance run in SCENARIO_DIR, such as reports/runs/resnet50/Offline.

    Settings are those of that run. TEST01 also needs the accuracy run beside it. Exit status 1 if the test fails.
    """
    from .. import report
    from ..progress import open_progress
    from ..submission import audit as submission_audit

    if verify_only:
        outcome = submission_audit.verify_again(test, scenario_dir)
    else:
        with open_progress(quiet) as progress:
            outcome = submission_audit.audit(test, scenario_dir, progress)
    report.print_audit(outcome)
    if not outcome.passed:
        raise CheckFailedError(f"{test} failed: see {outcome.folder}")
