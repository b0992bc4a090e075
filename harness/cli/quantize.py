"""The commands that make a quantised model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import PATH, common_options, profile_option


@click.command()
@click.option("--model", type=PATH, metavar="FILE.onnx", required=True, help="Model in float32.")
@click.option("--dataset-path", type=PATH, metavar="DIR", required=True, help="Folder of images.")
@click.option(
    "--output", type=PATH, metavar="FILE.onnx", required=True, help="Quantised model; a report goes beside it."
)
@click.option(
    "--calibration-list", type=PATH, metavar="FILE", help="Images to use, a name per line. [default: a sample]"
)
@click.option("--count", type=int, metavar="N", help="How many images. [default: the whole list, or 100]")
@profile_option
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How ranges of activations are chosen.",
)
@click.option("--per-tensor", is_flag=True, help="One scale for all weights of a layer, in place of one per channel.")
@click.option("--keep-float", metavar="first,last", help="Layers to keep in float32.")
@common_options
def quantize(keep_float: str | None, quiet: bool, debug: bool, **settings: Any) -> None:
    """Quantise a model to int8: an ONNX file with QuantizeLinear and DequantizeLinear, and a report of what it cost."""
    del debug  # read by `main`
    from ..quantize.config import QuantizeConfig, parse_kept

    config = QuantizeConfig(keep_float=parse_kept(keep_float, "--keep-float"), **settings)

    from ..progress import open_progress
    from ..quantize.report import report_lines
    from ..quantize.run import run_quantize

    with open_progress(quiet) as progress:
        outcome = run_quantize(config, progress)
    for line in report_lines(outcome):
        click.echo(line)


@click.command("get-calibration-list")
@click.option("--option", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Which official list.")
@click.option("--output", type=PATH, metavar="FILE", help="[default: the list's own name, here]")
@common_options
def get_calibration_list(option: str, output: Path | None, **_: Any) -> None:
    """Download one of MLCommons' two lists of 500 calibration images, checked by its sha256."""
    from ..quantize.images import OFFICIAL_LISTS, download_list

    output = output or Path(OFFICIAL_LISTS[int(option)].url.rsplit("/", 1)[1])
    count = download_list(int(option), output)
    click.echo(f"{count} images: {output}")
