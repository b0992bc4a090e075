"""What several commands share: kinds of values, and flags with one meaning everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import click

from ..config import PROFILE_NAMES, SCENARIOS, Precision, RunConfig

PATH: Final = click.Path(path_type=Path)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags that every command has."""
    command = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(command)
    return click.option("--quiet", is_flag=True, help="No progress on standard error.")(command)


precision_option: Final = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="Of values and weights. [default: the model's: int8 if it is quantised, else fp32]",
)

isa_option: Final = click.option(
    "--isa",
    metavar="NAME",
    help="numba: avx512, avx2 or generic; on Arm neon or generic. [default: the best this machine has]",
)

plan_option: Final = click.option(
    "--plan", type=PATH, metavar="FILE.json", help="numba: follow the choices in this file, as `plan --json` wrote it."
)

preprocessed_dir_option: Final = click.option(
    "--preprocessed-dir", type=PATH, metavar="DIR", help="Store of preprocessed images. [default: in the user's cache]"
)


profile_option: Final = click.option(
    "--profile",
    type=click.Choice(PROFILE_NAMES),
    default="resnet50",
    show_default=True,
    help="Preprocessing and meaning of the outputs.",
)


kernels_option: Final = click.option(
    "--kernels",
    type=click.Choice(["auto", "numba", "neon"]),
    default="auto",
    show_default=True,
    help="numba: whose kernels; neon: the C library, on Arm.",
)

machine_option: Final = click.option(
    "--machine", type=PATH, metavar="FILE.toml", help="numba: plan for the machine described in this file."
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What runs of several scenarios share; `run_settings` reads it."""
    options = (
        click.option("--model", type=PATH, metavar="FILE.onnx", help="Model to run."),
        click.option("--dataset-path", type=PATH, metavar="DIR", required=True, help="Images with val_map.txt."),
        preprocessed_dir_option,
        profile_option,
        click.option("--backend", default="numba", show_default=True, help="As in `run`."),
        click.option("--max-batchsize", "max_batch", type=int, metavar="N", help="Most images in one inference."),
        click.option("--threads", type=int, metavar="N", help="Threads of one instance."),
        click.option("--instances", type=int, metavar="N", help="Inference sessions side by side."),
        isa_option,
        precision_option,
        kernels_option,
        machine_option,
        plan_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def shared_run(settings: dict[str, Any], output: Path) -> RunConfig:
    """The record that runs share, from what `engine_options` gave; takes those flags out of `settings`.

    Paths become absolute: they are read again by runs that may begin elsewhere.
    """
    names = (
        "model", "dataset_path", "profile", "backend", "max_batch", "threads", "instances", "isa", "precision",
        "kernels", "machine", "plan",
    )  # fmt: skip
    values = {name: settings.pop(name) for name in names}
    values["store_path"] = settings.pop("preprocessed_dir")
    values = {name: value.absolute() if isinstance(value, Path) else value for name, value in values.items()}
    return RunConfig(
        name=values["profile"], scenario="SingleStream", mode="performance", output=output.absolute(), **values
    )


class ScenarioChoice(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """One of LoadGen's names, with a hint for those who spell it otherwise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Choice` does."""
        meant = next((name for name in SCENARIOS if name.lower() == str(value).lower().replace("-", "")), None)
        if meant not in (None, value):
            self.fail(f"{value!r} is spelt {meant}, as in LoadGen.", param, ctx)
        return super().convert(value, param, ctx)
