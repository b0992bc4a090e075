"""What a bench prints on standard output: tables drawn on a terminal, plain columns otherwise."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import provenance
from .compare import Difference
from .config import OURS
from .layers import gb_s, gflops, intensity, percent_of_peak, percent_of_roof, total
from .messages import Layers, LayerTime
from .record import Bench, ratio_summaries, thread_environment
from .rounds import Row
from .statistics import better_peer, summarize

_PLAIN_WIDTH: Final = 220
"""Of output that is no terminal: wide enough that nothing wraps."""

_WIDTH_WITH_SHAPES: Final = 130

_FEW_CPU: Final = 0.95
"""One thread that got less than this of its CPU was disturbed by other work."""


def print_bench(bench: Bench, path: Path, console: Console | None = None) -> None:
    """Machine, settings, a row per (batch, threads), layers if they were measured, and where the JSON is."""
    console = console or _standard_console()
    for line in _heading(bench):
        _print_line(console, line)
    console.print(_rate_table(bench, console))
    for row in bench.rows:
        for line in _remarks(row):
            _print_line(console, line)
    for row in bench.rows:
        if row.layers is not None:
            _print_layers(row, row.layers, console)
    _print_line(console, f"JSON: {path}")


def _standard_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _print_line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _titled_table(console: Console, title: str) -> Table:
    drawn = console.is_terminal
    _print_line(console, title)
    return Table(box=box.SIMPLE_HEAD if drawn else None, pad_edge=False, collapse_padding=True)


def _heading(bench: Bench) -> list[str]:
    config, machine = bench.config, bench.machine
    revision = bench.revision
    commit = f", commit {revision['commit']}" if revision["commit"] else ""
    changed = " with uncommitted changes" if revision["uncommitted_changes"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    environment = ", ".join(f"{name}={value}" for name, value in thread_environment().items()) or "none set"
    precision = bench.rows[0].engines[OURS].settings["precision"]
    lines = [
        f"model: {config.model}, {precision}; {config.rounds} rounds of {config.slice_s:g} s per engine",
        f"machine: {machine.cpu}, {machine.cores} CPUs, {machine.isa.name}, "
        f"L1d {machine.l1d_bytes >> 10} KiB, L2 {machine.l2_bytes >> 10} KiB, L3 {machine.l3_bytes >> 10} KiB",
        f"software: {versions}{commit}{changed}",
        f"environment (OMP, NUMBA): {environment}",
        f"load average at start: {', '.join(f'{load:.2f}' for load in bench.load_average)}",
    ]
    for name, engine in bench.rows[0].engines.items():
        settings = ", ".join(f"{key}={value}" for key, value in engine.settings.items())
        lines.append(f"{name}: {settings}")
    if len(bench.rows) > 1:
        lines[-1] += "\n(settings of the first row; batch and threads follow the row, all are in the JSON)"
    return lines


def _rate_table(bench: Bench, console: Console) -> Table:
    table = _titled_table(
        console, "images/s: median over rounds (distance of the quartiles); ratios: median, least to greatest"
    )
    peers = bench.config.peers
    for column in ("batch", "threads", "CPUs", *bench.config.engines):
        table.add_column(column, justify="right")
    for peer in peers:
        table.add_column(f"{OURS} / {peer}", justify="right")
    if len(peers) > 1:
        table.add_column("better peer")
    for row in bench.rows:
        rates = [summarize(engine.rates) for engine in row.engines.values()]
        ratios = ratio_summaries(row)
        cells = [
            str(row.batch),
            str(row.threads),
            ",".join(str(cpu) for cpu in row.cpus),
            *(f"{_figures(rate.median)} ({rate.spread_percent:.0f}%)" for rate in rates),
            *(f"{ratio.median:.3f} ({ratio.minimum:.2f} to {ratio.maximum:.2f})" for ratio in ratios.values()),
        ]
        best = better_peer(ratios)
        if len(peers) > 1 and best is not None:
            cells.append(f"{best} {ratios[best].median:.3f}")
        table.add_row(*cells)
    return table


def _remarks(row: Row) -> list[str]:
    """How far this row can be trusted."""
    title = f"batch {row.batch}, threads {row.threads}:"
    times = ", ".join(f"{name} {1e3 * median(engine.inference_s):.3f}" for name, engine in row.engines.items())
    lines = [f"{title} median inference in ms: {times}"]
    peers = {name: engine.difference for name, engine in row.engines.items() if engine.difference is not None}
    if peers:
        differences = ", ".join(f"{name} {_difference_text(difference)}" for name, difference in peers.items())
        lines.append(
            f"{title} outputs differ from ours by (of the largest) {differences}; engines that waited took at most "
            f"{100 * max(row.idle_shares):.0f} % of one CPU"
        )
    disturbed = {name: median(engine.cpu_shares) for name, engine in row.engines.items() if row.threads == 1}
    starved = [f"{name} {100 * share:.0f} %" for name, share in disturbed.items() if share < _FEW_CPU]
    if starved:
        lines.append(f"{title} the machine was busy with other work: of their CPU they got {', '.join(starved)}")
    return lines


def _difference_text(difference: Difference) -> str:
    if difference.share is None:
        return "an unknown share: indices of a quantised model are not compared"
    steps = "" if difference.steps is None else f" = {difference.steps:.1f} steps"
    return f"{difference.share:.1e}{steps}"


def _print_layers(row: Row, layers: Layers, console: Console) -> None:
    table = _titled_table(
        console,
        f"layers, batch {row.batch}, threads {row.threads}: measured peak {layers.peak_gflops:.0f} GFLOP/s, "
        f"bandwidth {layers.bandwidth_gb_s:.1f} GB/s; medians of {layers.profile_rounds} rounds",
    )
    with_shapes = console.width >= _WIDTH_WITH_SHAPES
    for column in ("node", "kernel", "shape") if with_shapes else ("node", "kernel"):
        table.add_column(column, overflow="ellipsis")
    for column in ("us", "% time", "GFLOP/s", "% peak", "kB", "GB/s", "FLOP/byte", "% roof"):
        table.add_column(column, justify="right", no_wrap=True)
    whole = total(layers)
    for layer in (*layers.layers, whole):
        names = [escape(layer.node), layer.kernel, *([layer.shape] if with_shapes else [])]
        table.add_row(*names, *_layer_figures(layer, whole.seconds, layers))
    console.print(table)
    inference_us = 1e6 * median(row.engines[OURS].inference_s)
    _print_line(
        console,
        f"sum of layers {1e6 * whole.seconds:.0f} us, each with some us of being called by itself; an inference as a "
        f"whole {inference_us:.0f} us. % roof: of min(peak, FLOP/byte * bandwidth), beyond 100 if data was cached.",
    )


def _layer_figures(layer: LayerTime, whole_s: float, layers: Layers) -> list[str]:
    return [
        f"{1e6 * layer.seconds:.1f}",
        f"{100 * layer.seconds / whole_s:.1f}",
        f"{gflops(layer):.1f}",
        f"{percent_of_peak(layer, layers):.1f}",
        f"{1e-3 * layer.total_bytes:.1f}",
        f"{gb_s(layer):.2f}",
        f"{intensity(layer):.2f}",
        f"{percent_of_roof(layer, layers):.0f}",
    ]


def _figures(rate: float) -> str:
    return f"{rate:.1f}" if rate >= 100 else f"{rate:.2f}"
