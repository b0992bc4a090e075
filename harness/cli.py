"""The command line, and the only place that reads arguments: arguments -> records, errors -> exit statuses.

Every heavy import happens inside the command that needs it, so that --help is immediate.
Exit statuses: 0 done (LoadGen's verdict, VALID or INVALID, is printed), 1 a run failed, 2 bad input, 128 + n ended
by signal n.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from .config import DEFAULT_OUTPUT, PROFILE_NAMES, SCENARIOS, ProfileName, RunConfig
from .errors import BadInputError, HarnessError, RunInterruptedError

_PATH: Final = click.Path(path_type=Path)


def _one_spelling(name: str) -> str:
    """A dash and an underscore in a flag are the same flag."""
    return name.replace("_", "-")


_CONTEXT: Final = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": _one_spelling,
    "max_content_width": 120,
}


_EPILOG: Final = "Exit status: 0 done, LoadGen's verdict is printed; 1 a run failed; 2 bad input; 130 after Ctrl-C."


@click.group(context_settings=_CONTEXT, epilog=_EPILOG)
@click.version_option(package_name="loadgen-numba")
def cli() -> None:
    """MLPerf Inference on CPUs: the official LoadGen over Numba-compiled kernels."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(command)
    return click.option("--quiet", is_flag=True, help="No progress on standard error.")(command)


_plan: Final = click.option(
    "--plan", type=_PATH, metavar="FILE.json", help="numba: follow the choices in this file, as `plan --json` wrote it."
)

_preprocessed_dir: Final = click.option(
    "--preprocessed-dir", type=_PATH, metavar="DIR", help="Store of preprocessed images. [default: in the user's cache]"
)


class _ScenarioChoice(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """One of LoadGen's names, with a hint for those who spell it otherwise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `click.Choice` does."""
        meant = next((name for name in SCENARIOS if name.lower() == str(value).lower().replace("-", "")), None)
        if meant not in (None, value):
            self.fail(f"{value!r} is spelt {meant}, as in LoadGen.", param, ctx)
        return super().convert(value, param, ctx)


@cli.command()
@click.option("--scenario", type=_ScenarioChoice(SCENARIOS), help="[default: SingleStream]")
@click.option("--accuracy", is_flag=True, help="Answer every image once and score it, instead of measuring speed.")
@click.option("--find-peak-performance", is_flag=True, help="Server only: search the greatest rate; needs --qps.")
@click.option("--model", type=_PATH, metavar="FILE.onnx", help="Model to run.")
@click.option("--dataset-path", type=_PATH, metavar="DIR", help="Folder of images with val_map.txt.")
@_preprocessed_dir
@click.option(
    "--profile", type=click.Choice(PROFILE_NAMES), help="Preprocessing and meaning of the outputs. [default: resnet50]"
)
@click.option(
    "--output",
    type=_PATH,
    default=DEFAULT_OUTPUT,
    show_default=True,
    metavar="DIR",
    help="Logs go to DIR/<profile>/<scenario>/<performance|accuracy>; an earlier run there is moved aside.",
)
@click.option("--backend", default="numba", show_default=True, help="numba, onnxruntime, openvino, null, or a plugin.")
@click.option(
    "--count", type=int, metavar="N", help="Use the first N images, and in performance runs exactly N queries."
)
@click.option("--time", "time_s", type=float, metavar="SECONDS", help="Least duration of a performance run, seconds.")
@click.option("--qps", type=float, metavar="RATE", help="Server: queries/s issued. Offline: samples/s expected.")
@click.option(
    "--max-latency",
    "max_latency_s",
    type=float,
    metavar="SECONDS",
    help="Server: bound on the 99th percentile, seconds. Streams: expected latency of a query, seconds.",
)
@click.option("--max-batchsize", type=int, metavar="N", help="Most images in one inference.")
@click.option("--threads", type=int, metavar="N", help="Threads (each on its own core) of one instance.")
@click.option("--instances", type=int, metavar="N", help="Inference sessions side by side.")
@click.option("--samples-per-query", type=int, metavar="N", help="MultiStream: samples in a query.")
@click.option("--performance-sample-count", type=int, metavar="N", help="Samples in RAM during a performance run.")
@click.option("--user-conf", type=_PATH, metavar="FILE", help="LoadGen settings. [default: the package's user.conf]")
@click.option("--audit-conf", type=_PATH, metavar="FILE", help="Settings of a compliance test. [default: none]")
@click.option("--isa", metavar="NAME", help="numba: avx512, avx2 or generic. [default: the best this machine has]")
@_plan
@_common
def run(**flags: Any) -> None:
    """Run LoadGen tests.

    Without --model and --dataset-path: the built-in demo, all scenarios in both modes (or the one that --scenario and
    --accuracy name), on a model and images made on this machine. With them: one test.
    """
    if flags["model"] is None and flags["dataset_path"] is None:
        _run_demo(flags)
        return
    config = _run_config(flags)

    from . import report
    from .progress import open_progress
    from .run import run as run_test

    with open_progress(flags["quiet"]) as progress:
        outcome = run_test(config, progress)
    report.print_outcome(outcome)


_DEMO_FLAGS: Final = frozenset(
    ["scenario", "accuracy", "output", "backend", "max_batchsize", "threads", "instances", "isa", "quiet", "debug"]
)
"""What `run` takes without a model; everything else is the demo's own choice."""


def _run_demo(flags: dict[str, Any]) -> None:
    context = click.get_current_context()
    for name in flags:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _DEMO_FLAGS:
            flag = "--" + name.removesuffix("_s").replace("_", "-")
            raise BadInputError(f"{flag} needs --model and --dataset-path: the demo chooses its own settings")

    from . import report
    from .demo_campaign import DemoRuns, demo_config, make_demo, run_demo
    from .progress import open_progress

    runs = DemoRuns(
        scenarios=(flags["scenario"],) if flags["scenario"] else SCENARIOS,
        modes=("accuracy",) if flags["accuracy"] else ("performance", "accuracy"),
    )
    with open_progress(flags["quiet"]) as progress:
        config = replace(
            demo_config(make_demo(progress, flags["isa"]), flags["backend"], flags["output"]),
            max_batch=flags["max_batchsize"],
            instances=flags["instances"],
            threads=flags["threads"],
            isa=flags["isa"],
        )
        outcomes = list(run_demo(config, runs, progress))
    report.print_campaign(outcomes, flags["output"])


def _run_config(flags: dict[str, Any]) -> RunConfig:
    profile: ProfileName = flags["profile"] or "resnet50"
    if flags["accuracy"] and flags["find_peak_performance"]:
        raise BadInputError("--accuracy and --find-peak-performance exclude each other: choose one")
    if flags["dataset_path"] is None:
        raise BadInputError("--model is given but no images: add --dataset-path DIR")
    mode = "accuracy" if flags["accuracy"] else "find_peak" if flags["find_peak_performance"] else "performance"
    return RunConfig(
        name=profile,
        profile=profile,
        scenario=flags["scenario"] or "SingleStream",
        mode=mode,  # type: ignore[arg-type]
        backend=flags["backend"],
        model=flags["model"],
        dataset_path=flags["dataset_path"],
        output=flags["output"],
        store_path=flags["preprocessed_dir"],
        sample_count=flags["count"],
        query_count=None if flags["accuracy"] else flags["count"],
        min_duration_s=flags["time_s"],
        target_qps=flags["qps"],
        max_latency_s=flags["max_latency_s"],
        samples_per_query=flags["samples_per_query"],
        performance_sample_count=flags["performance_sample_count"],
        max_batch=flags["max_batchsize"],
        instances=flags["instances"],
        threads=flags["threads"],
        user_conf=flags["user_conf"],
        audit_conf=flags["audit_conf"],
        isa=flags["isa"],
        plan=flags["plan"],
    )


@cli.command()
@click.option("--dataset-path", type=_PATH, metavar="DIR", required=True, help="Folder of images with val_map.txt.")
@_preprocessed_dir
@click.option("--profile", type=click.Choice(PROFILE_NAMES), default="resnet50", show_default=True, help="The recipe.")
@click.option("--count", type=int, metavar="N", help="The first N images. [default: all]")
@click.option("--threads", type=int, metavar="N", help="Images at a time. [default: as many as CPUs]")
@_common
def preprocess(
    dataset_path: Path,
    preprocessed_dir: Path | None,
    profile: ProfileName,
    count: int | None,
    threads: int | None,
    quiet: bool,
    **_: Any,
) -> None:
    """Decode, resize and crop all images once, into a store that `run` opens. Resumes after any interruption."""
    from .dataset import open_dataset
    from .profiles import PROFILES
    from .progress import open_progress

    with open_progress(quiet) as progress:
        spec = PROFILES[profile].spec
        dataset = open_dataset(dataset_path, spec, count, progress, store_path=preprocessed_dir, workers=threads)
    for warning in dataset.warnings:
        click.echo(f"warning: {warning}")
    click.echo(f"{dataset.sample_count} images, recipe {spec.name}: {dataset.store_path}")


@cli.command()
@click.option("--isa", metavar="NAME", help="avx512, avx2 or generic. [default: the best this machine has]")
@_common
def demo(isa: str | None, quiet: bool, **_: Any) -> None:
    """Make the demo's model and images, or find them, and say where they are."""
    from .demo_campaign import make_demo
    from .progress import open_progress

    with open_progress(quiet) as progress:
        assets = make_demo(progress, isa)
    click.echo(f"model: {assets.model_path}")
    click.echo(f"images: {assets.dataset_path}")


@cli.command()
@click.argument("run_dir", type=_PATH)
@click.option("--dataset-path", type=_PATH, metavar="DIR", help="Where val_map.txt is, if the dataset was moved.")
@_common
def accuracy(run_dir: Path, dataset_path: Path | None, **_: Any) -> None:
    """Score the accuracy run in RUN_DIR by MLCommons' rule and write accuracy.txt beside its log."""
    from .accuracy import score_run

    click.echo(score_run(run_dir, dataset_path).line)


@cli.command()
@click.option("--model", type=_PATH, metavar="FILE.onnx", required=True, help="Model to measure.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Of all engines; int8 takes a quantised model.",
)
@click.option("--batch", default="1", show_default=True, metavar="N,N", help="Images in one inference: a row for each.")
@click.option("--threads", default="1", show_default=True, metavar="N,N", help="Threads, each on a CPU of its own.")
@click.option(
    "--against",
    default="onnxruntime,openvino",
    show_default=True,
    metavar="NAME,NAME",
    help="Peers that take turns with our engine: onnxruntime, openvino, or none.",
)
@click.option("--rounds", type=int, default=9, show_default=True, metavar="N", help="Turns of each engine per row.")
@click.option(
    "--seconds-per-round",
    "slice_s",
    type=float,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Length of one engine's turn, seconds.",
)
@click.option("--layers", is_flag=True, help="Also each layer of our engine, against this machine's measured roofs.")
@click.option("--json", "json_path", type=_PATH, metavar="FILE", help="[default: a dated file in reports/bench]")
@click.option("--isa", metavar="NAME", help="Of our engine: avx512, avx2 or generic. [default: the best there is]")
@_plan
@_common
def bench(batch: str, threads: str, against: str, quiet: bool, debug: bool, **settings: Any) -> None:
    """Measure images/s of our engine and its peers, taking turns on the same CPUs, and their ratios."""
    del debug  # read by `main`
    from .bench.config import BenchConfig, parse_counts, parse_peers

    config = BenchConfig(
        batches=parse_counts(batch, "--batch"),
        threads=parse_counts(threads, "--threads"),
        peers=parse_peers(against, "--against"),
        **settings,
    )

    from .bench.report import print_bench
    from .bench.run import run_bench
    from .progress import open_progress

    with open_progress(quiet) as progress:
        result, path = run_bench(config, progress)
    print_bench(result, path)


@cli.command()
@click.argument("model", type=_PATH, metavar="MODEL.onnx")
@click.option("--max-batchsize", "max_batch", type=int, default=1, show_default=True, metavar="N", help="Most images.")
@click.option("--threads", type=int, metavar="N", help="Threads of one session. [default: as many as CPUs]")
@click.option("--isa", metavar="NAME", help="avx512, avx2 or generic. [default: the best this machine has]")
@_plan
@click.option("--json", "json_path", type=_PATH, metavar="FILE", help="Write the plan there, for --plan to read.")
@_common
def plan(quiet: bool, debug: bool, **settings: Any) -> None:
    """Show what our engine would run: kernels, tiles, cache blocks, bytes, operations, expected time, memory."""
    del debug  # read by `main`
    from .plan import PlanConfig, describe_plan
    from .progress import open_progress

    with open_progress(quiet) as progress:
        text = describe_plan(PlanConfig(**settings), progress)
    click.echo(text)


@cli.command()
@click.option("--model", type=_PATH, metavar="FILE.onnx", required=True, help="Model in float32.")
@click.option("--dataset-path", type=_PATH, metavar="DIR", required=True, help="Folder of images.")
@click.option(
    "--output", type=_PATH, metavar="FILE.onnx", required=True, help="Quantised model; a report goes beside it."
)
@click.option(
    "--calibration-list", type=_PATH, metavar="FILE", help="Images to use, a name per line. [default: a sample]"
)
@click.option("--count", type=int, metavar="N", help="How many images. [default: the whole list, or 100]")
@click.option("--profile", type=click.Choice(PROFILE_NAMES), default="resnet50", show_default=True, help="The recipe.")
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    default="minmax",
    show_default=True,
    help="How ranges of activations are chosen.",
)
@click.option("--per-tensor", is_flag=True, help="One scale for all weights of a layer, in place of one per channel.")
@click.option("--keep-float", metavar="first,last", help="Layers to keep in float32.")
@_common
def quantize(keep_float: str | None, quiet: bool, debug: bool, **settings: Any) -> None:
    """Quantise a model to int8: an ONNX file with QuantizeLinear and DequantizeLinear, and a report of what it cost."""
    del debug  # read by `main`
    from .quantize.config import QuantizeConfig, parse_kept

    config = QuantizeConfig(keep_float=parse_kept(keep_float, "--keep-float"), **settings)

    from .progress import open_progress
    from .quantize.report import report_lines
    from .quantize.run import run_quantize

    with open_progress(quiet) as progress:
        outcome = run_quantize(config, progress)
    for line in report_lines(outcome):
        click.echo(line)


@cli.command("get-calibration-list")
@click.option("--option", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Which official list.")
@click.option("--output", type=_PATH, metavar="FILE", help="[default: the list's own name, here]")
@_common
def get_calibration_list(option: str, output: Path | None, **_: Any) -> None:
    """Download one of MLCommons' two lists of 500 calibration images, checked by its sha256."""
    from .quantize.images import OFFICIAL_LISTS, download_list

    output = output or Path(OFFICIAL_LISTS[int(option)].url.rsplit("/", 1)[1])
    count = download_list(int(option), output)
    click.echo(f"{count} images: {output}")


def main() -> None:
    """Console script."""
    sys.exit(exit_status(sys.argv[1:]))


def exit_status(arguments: list[str]) -> int:
    """Run a command line to its end; everything the user is told has then been printed."""
    debug = "--debug" in arguments
    try:
        cli.main(arguments, prog_name="loadgen-numba", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted by SIGINT", 128 + signal.SIGINT, debug)
    except RunInterruptedError as error:
        return _fail(str(error), 128 + error.signal_number, debug)
    except BadInputError as error:
        return _fail(str(error), 2, debug)
    except HarnessError as error:
        return _fail(str(error), 1, debug)
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1, debug)
    return 0


def _fail(text: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"error: {text}", err=True)
    return status
