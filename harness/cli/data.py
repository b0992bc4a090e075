"""Commands that bring what a benchmark needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import PROFILE_NAMES, ProfileName
from .options import PATH, common_options


@click.command()
@click.argument("profile", type=click.Choice(PROFILE_NAMES))
@click.option("--output", type=PATH, default=Path("models"), show_default=True, metavar="DIR", help="Where it goes.")
@click.option("--url", metavar="URL", help="A mirror of the same file. [default: where it was published]")
@common_options
def get_model(profile: ProfileName, output: Path, url: str | None, quiet: bool, **_: Any) -> None:
    """Download the benchmark's published model, resuming if interrupted, and check it."""
    from ..data.model import get_model as fetch
    from ..progress import open_progress

    with open_progress(quiet) as progress:
        path = fetch(profile, output, progress, url=url)
    click.echo(f"model: {path}")


@click.command()
@click.option(
    "--images", type=PATH, required=True, metavar="PATH", help="ILSVRC2012_img_val.tar, or a folder of JPEGs."
)
@click.option("--devkit", type=PATH, metavar="FILE", help="ILSVRC2012_devkit_t12.tar.gz, whose ground truth is used.")
@click.option("--val-map", type=PATH, metavar="FILE", help="In its place: file names and classes 0..999.")
@click.option("--output", type=PATH, metavar="DIR", help="Dataset folder. [default: the folder of --images]")
@common_options
def prepare_imagenet(
    images: Path, devkit: Path | None, val_map: Path | None, output: Path | None, quiet: bool, **_: Any
) -> None:
    """Unpack and verify ImageNet's 50,000 validation images and write their val_map.txt."""
    from ..data.imagenet import prepare
    from ..progress import open_progress

    with open_progress(quiet) as progress:
        folder = prepare(images, output, progress, devkit=devkit, val_map=val_map)
    click.echo(f"images: {folder}")
