"""What several commands share: kinds of values, and flags with one meaning everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from ..config import SCENARIOS

PATH: Final = click.Path(path_type=Path)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags that every command has."""
    command = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(command)
    return click.option("--quiet", is_flag=True, help="No progress on standard error.")(command)


plan_option: Final = click.option(
    "--plan", type=PATH, metavar="FILE.json", help="numba: follow the choices in this file, as `plan --json` wrote it."
)

preprocessed_dir_option: Final = click.option(
    "--preprocessed-dir", type=PATH, metavar="DIR", help="Store of preprocessed images. [default: in the user's cache]"
)


class ScenarioChoice(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """One of LoadGen's names, with a hint for those who spell it otherwise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Choice` does."""
        meant = next((name for name in SCENARIOS if name.lower() == str(value).lower().replace("-", "")), None)
        if meant not in (None, value):
            self.fail(f"{value!r} is spelt {meant}, as in LoadGen.", param, ctx)
        return super().convert(value, param, ctx)
