"""A report as one HTML page that needs nothing else: no script, no font, no request.

Everything that comes from files is escaped by Jinja; only plots, which escape for themselves, are put in as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..figures import figures
from . import plots
from .plots import Plot
from .records import Bench, BenchRow, Interval, Quantity, Report, RunRatio


def render(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figures": figures, "interval": interval, "told": told}
    return environment.get_template("page.html.j2").render(
        report=report,
        summary=_summary(report),
        comparisons=[(one, plots.comparison_plots(one, report.runs)) for one in report.comparisons],
        distributions=[(run, plots.distribution_plots(run)) for run in report.runs if run.latency or run.distribution],
        benches=[
            (bench, list(_ratio_plots(bench, index)), list(_rooflines(bench, index)))
            for index, bench in enumerate(report.benches, start=1)
        ],
    )


def interval(found: Interval) -> str:
    """E.g. `[1.02, 1.08]`."""
    return f"[{figures(found.low)}, {figures(found.high)}]"


def told(ratio: RunRatio) -> str:
    """What a ratio means, as far as its interval allows to say so."""
    if ratio.interval is None:
        return "how sure that is cannot be told"
    if ratio.interval.low <= 1 <= ratio.interval.high:
        return "no difference is shown"
    return "better" if (ratio.ratio < 1) == (ratio.better == "lower") else "worse"


def _summary(report: Report) -> str:
    parts = []
    if report.runs:
        kinds = Counter(
            run.status if run.status != "finished" else run.verdict or "without a verdict" for run in report.runs
        )
        official = sum(run.official for run in report.runs)
        told_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        parts.append(f"{_counted(len(report.runs), 'run')}: {told_kinds}; {official} official.")
    if report.benches:
        parts.append(f"{_counted(len(report.benches), 'bench', 'benches')}.")
    return " ".join(parts)


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _ratio_plots(bench: Bench, index: int) -> Iterator[Plot]:
    """Ours to each peer, by batch and threads."""
    peers = dict.fromkeys(engine.engine for row in bench.rows for engine in row.engines if engine.ratio is not None)
    for number, peer in enumerate(peers):
        rows = [
            (
                f"batch {row.batch}, {_counted(row.threads, 'thread')}",
                Quantity("ratio of images/s, ours to the peer", engine.ratio, "", "higher", engine.ratio_interval),
            )
            for row in bench.rows
            for engine in row.engines
            if engine.engine == peer and engine.ratio is not None
        ]
        yield plots.ratio_plot(f"bench-{index}-ratio-{number}", f"Ours to {peer}", rows)


def _rooflines(bench: Bench, index: int) -> Iterator[tuple[Plot, BenchRow, str]]:
    operations = "GOP/s" if bench.precision == "int8" else "GFLOP/s"
    for number, row in enumerate(bench.rows):
        if row.roofline is not None:
            title = f"Roofline of our engine: batch {row.batch}, {_counted(row.threads, 'thread')}"
            name = f"bench-{index}-roofline-{number}"
            yield plots.roofline_plot(name, title, row.roofline, operations), row, operations
