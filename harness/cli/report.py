"""The command that makes a page of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from ..errors import BadInputError
from .options import PATH, common_options

_EXTRA: Final = ("jinja2", "matplotlib", "scipy")
"""What the extra `report` brings, by the names of imports."""


@click.command()
@click.argument("paths", type=PATH, metavar="RUN_FOLDER...", nargs=-1, required=True)
@click.option("--output", type=PATH, required=True, metavar="DIR", help="Gets report.html, report.json, report.csv.")
@common_options
def report(paths: tuple[Path, ...], output: Path, **_: Any) -> None:
    """Make a page, a JSON and a CSV of finished runs and benches.

    RUN_FOLDER is a run's folder, a folder that holds runs at any depth (such as the --output of `run` or `campaign`),
    or a JSON file of `bench`. Needs the extra `report`.
    """
    try:
        from ..report.run import CSV, JSON, PAGE, make_report
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise  # a fault of the installation, which no extra mends
        raise BadInputError(
            f"report needs {error.name}: pip install 'loadgen-numba[report]', or '.[report]' in a clone"
        ) from error

    made = make_report(paths, output)
    for run in made.runs:
        if run.status != "finished":
            click.echo(f"run {run.number} is {run.status}: {run.why}; {run.folder}")
    click.echo(f"{len(made.runs)} runs, {len(made.benches)} benches: {output / PAGE}, {JSON}, {CSV}")
