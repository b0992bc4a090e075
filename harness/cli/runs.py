"""Commands that run something: tests, preprocessing, the demo, scoring, the engine's own bench and plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from ..config import DEFAULT_OUTPUT, PROFILE_NAMES, SCENARIOS, ProfileName, RunConfig
from ..errors import BadInputError
from .options import (
    PATH,
    ScenarioChoice,
    common_options,
    isa_option,
    kernels_option,
    machine_option,
    plan_option,
    precision_option,
    preprocessed_dir_option,
)


@click.command()
@click.option("--scenario", type=ScenarioChoice(SCENARIOS), help="[default: SingleStream]")
@click.option("--accuracy", is_flag=True, help="Answer every image once and score it, instead of measuring speed.")
@click.option("--find-peak-performance", is_flag=True, help="Server only: search the greatest rate; needs --qps.")
@click.option("--model", type=PATH, metavar="FILE.onnx", help="Model to run.")
@click.option("--dataset-path", type=PATH, metavar="DIR", help="Folder of images with val_map.txt.")
@preprocessed_dir_option
@click.option(
    "--profile", type=click.Choice(PROFILE_NAMES), help="Preprocessing and meaning of the outputs. [default: resnet50]"
)
@click.option(
    "--output",
    type=PATH,
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
@click.option("--user-conf", type=PATH, metavar="FILE", help="LoadGen settings. [default: the package's user.conf]")
@click.option("--audit-conf", type=PATH, metavar="FILE", help="Settings of a compliance test. [default: none]")
@isa_option
@kernels_option
@machine_option
@precision_option
@plan_option
@common_options
def run(**flags: Any) -> None:
    """Run LoadGen tests.

    Without --model and --dataset-path: the built-in demo, all scenarios in both modes (or the one that --scenario and
    --accuracy name), on a model and images made on this machine. With them: one test.
    """
    if flags["model"] is None and flags["dataset_path"] is None:
        _run_demo(flags)
        return
    config = _run_config(flags)

    from .. import console
    from ..progress import open_progress
    from ..run import run as run_test

    with open_progress(flags["quiet"]) as progress:
        outcome = run_test(config, progress)
    console.print_outcome(outcome)


_DEMO_FLAGS: Final = frozenset(
    [
        "scenario",
        "accuracy",
        "output",
        "backend",
        "max_batchsize",
        "threads",
        "instances",
        "isa",
        "kernels",
        "precision",
        "quiet",
        "debug",
    ]
)
"""What `run` takes without a model; everything else is the demo's own choice."""


def _run_demo(flags: dict[str, Any]) -> None:
    context = click.get_current_context()
    for name in flags:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _DEMO_FLAGS:
            flag = "--" + name.removesuffix("_s").replace("_", "-")
            raise BadInputError(f"{flag} needs --model and --dataset-path: the demo chooses its own settings")

    from .. import console
    from ..demo_campaign import DemoRuns, demo_config, make_demo, run_demo
    from ..progress import open_progress
    from ..run import engine_machine

    engine_machine(flags["backend"], precision=flags["precision"], kernels=flags["kernels"], isa=flags["isa"])
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
            kernels=flags["kernels"],
            precision=flags["precision"],
        )
        outcomes = list(run_demo(config, runs, progress))
    console.print_campaign(outcomes, flags["output"])


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
        precision=flags["precision"],
        plan=flags["plan"],
        kernels=flags["kernels"],
        machine=flags["machine"],
    )


@click.command()
@click.option("--dataset-path", type=PATH, metavar="DIR", required=True, help="Folder of images with val_map.txt.")
@preprocessed_dir_option
@click.option("--profile", type=click.Choice(PROFILE_NAMES), default="resnet50", show_default=True, help="The recipe.")
@click.option("--count", type=int, metavar="N", help="The first N images. [default: all]")
@click.option("--threads", type=int, metavar="N", help="Images at a time. [default: as many as CPUs]")
@common_options
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
    from ..dataset import open_dataset
    from ..profiles import PROFILES
    from ..progress import open_progress

    with open_progress(quiet) as progress:
        spec = PROFILES[profile].spec
        dataset = open_dataset(dataset_path, spec, count, progress, store_path=preprocessed_dir, workers=threads)
    for warning in dataset.warnings:
        click.echo(f"warning: {warning}")
    click.echo(f"{dataset.sample_count} images, recipe {spec.name}: {dataset.store_path}")


@click.command()
@isa_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Images, of 65 KB each. [default: 240]")
@common_options
def demo(isa: str | None, count: int | None, quiet: bool, **_: Any) -> None:
    """Make the demo's model and images, or find them, and say where they are.

    With --count 50000 they can rehearse a whole campaign.
    """
    from ..demo_campaign import make_demo
    from ..progress import open_progress

    with open_progress(quiet) as progress:
        assets = make_demo(progress, isa, count)
    click.echo(f"model: {assets.model_path}")
    click.echo(f"images: {assets.dataset_path}")


@click.command()
@click.argument("run_dir", type=PATH)
@click.option("--dataset-path", type=PATH, metavar="DIR", help="Where val_map.txt is, if the dataset was moved.")
@common_options
def accuracy(run_dir: Path, dataset_path: Path | None, **_: Any) -> None:
    """Score the accuracy run in RUN_DIR by MLCommons' rule and write accuracy.txt beside its log."""
    from ..accuracy import score_run

    click.echo(score_run(run_dir, dataset_path).line)


@click.command()
@click.option("--model", type=PATH, metavar="FILE.onnx", required=True, help="Model to measure.")
@precision_option
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
@click.option("--json", "json_path", type=PATH, metavar="FILE", help="[default: a dated file in reports/bench]")
@isa_option
@plan_option
@common_options
def bench(batch: str, threads: str, against: str, quiet: bool, debug: bool, **settings: Any) -> None:
    """Measure images/s of our engine and its peers, taking turns on the same CPUs, and their ratios."""
    del debug  # read by `main`
    from ..bench.config import BenchConfig, parse_counts, parse_peers

    config = BenchConfig(
        batches=parse_counts(batch, "--batch"),
        threads=parse_counts(threads, "--threads"),
        peers=parse_peers(against, "--against"),
        **settings,
    )

    from ..bench.console import print_bench
    from ..bench.run import run_bench
    from ..progress import open_progress

    with open_progress(quiet) as progress:
        result, path = run_bench(config, progress)
    print_bench(result, path)


@click.command()
@click.argument("model", type=PATH, metavar="MODEL.onnx")
@click.option("--max-batchsize", "max_batch", type=int, default=1, show_default=True, metavar="N", help="Most images.")
@click.option("--threads", type=int, metavar="N", help="Threads of one session. [default: as many as CPUs]")
@isa_option
@precision_option
@plan_option
@click.option("--json", "json_path", type=PATH, metavar="FILE", help="Write the plan there, for --plan to read.")
@common_options
def plan(quiet: bool, debug: bool, **settings: Any) -> None:
    """Show what our engine would run: kernels, tiles, cache blocks, bytes, operations, expected time, memory."""
    del debug  # read by `main`
    from ..plan import PlanConfig, describe_plan
    from ..progress import open_progress

    with open_progress(quiet) as progress:
        text = describe_plan(PlanConfig(**settings), progress)
    click.echo(text)
