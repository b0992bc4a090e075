"""Plots as SVG that becomes part of the page, drawn by Matplotlib.

Matplotlib, because its SVG is the whole plot: no script, no canvas, no font to load, some tens of kilobytes each, where
Vega, Plotly and Bokeh bring half a megabyte to four of JavaScript. Its text stays text, its colours become the page's
own (light and dark) and every point says what it is when pointed at. Labels in plots are numbers and words of ours;
names from files appear in the page and in such titles only, where they are escaped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..figures import figures
from .records import Comparison, Distribution, Latency, Layer, Quantity, Roofline, Run

SERIES: Final = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6")
"""Names of the page's colours for what is compared, in this order, then from the first again."""
_COLOURS: Final[Mapping[str, str]] = {
    "ink": "#010203",
    "muted": "#010204",
    "grid": "#010205",
    "paper": "#010206",
    **{name: f"#01021{number}" for number, name in enumerate(SERIES)},
}
"""The page's name of a colour -> what stands for it in Matplotlib's output."""
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "loadgen-numba",
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _COLOURS["muted"],
    "axes.labelcolor": _COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _COLOURS["ink"],
    "xtick.color": _COLOURS["muted"],
    "ytick.color": _COLOURS["muted"],
    "xtick.labelcolor": _COLOURS["ink"],
    "ytick.labelcolor": _COLOURS["ink"],
    "axes.grid": True,
    "grid.color": _COLOURS["grid"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
}
_SIZE_INCHES: Final = (5.0, 2.9)
_ROW_INCHES: Final = 0.3
_FEWEST_BARS, _MOST_BARS = 10, 60
_MOST_TICKS: Final = 5
"""Of a linear axis: numbers of seven characters still have room between them."""
_LINEAR_SPAN: Final = 3.0
_WITHIN: Final = 30.0
"""A latency bound so many times beyond the slowest query is told in words, not drawn."""
_SVG: Final = "{http://www.w3.org/2000/svg}"
_MOST_SERIES: Final = len(SERIES)
_POINT_AREA: Final = 220.0
_LEAST_POINT_AREA: Final = 12.0


@dataclass(frozen=True)
class Key:
    """What a colour means. line: of a line rather than of an area."""

    colour: str
    text: str
    line: bool = True


@dataclass(frozen=True)
class Plot:
    """svg: an element for the page, already escaped. title, description: in words; keys: for a legend beneath."""

    name: str
    title: str
    description: str
    keys: tuple[Key, ...]
    svg: str


def distribution_plots(run: Run) -> tuple[Plot, ...]:
    """Histogram and cumulative distribution of a run's times, with what LoadGen says of them; none without times."""
    times = run.distribution
    if times is None:
        return ()
    marks = [] if run.latency is None else list(_marks(run.latency, times))
    keys = tuple(Key(mark.colour, mark.text) for mark in marks)
    what = f"{'latency of a query' if times.of == 'query' else 'time of a batch'}, ms"
    low_ms, high_ms = times.edges_ms[0], times.edges_ms[-1]
    said = (
        f"{sum(times.counts)} {'queries' if times.of == 'query' else 'batches'} from {figures(low_ms)} to "
        f"{figures(high_ms)} ms. " + " ".join(f"{mark.text}." for mark in marks)
    )
    with _axes(f"run-{run.number}-histogram") as drawn:
        axes = drawn.axes
        edges_ms, shares = _bars(times)
        axes.stairs(100 * shares, edges_ms, fill=True, color=_COLOURS["series-1"], linewidth=0.3)
        axes.set_ylabel("% of all")
        _finish_times(axes, what, [times], marks)
    title = f"Run {run.number}: histogram"
    histogram = drawn.plot(title, f"Histogram of the {what}: {said}", (Key("series-1", "share", line=False), *keys))
    with _axes(f"run-{run.number}-cdf") as drawn:
        axes = drawn.axes
        _draw_cdf(axes, times, "series-1")
        if run.latency is not None:
            axes.axhline(100 * run.latency.percentile, color=_COLOURS["muted"], linewidth=0.9, linestyle=":")
        axes.set_ylabel("% at most so long")
        _finish_times(axes, what, [times], marks)
    cdf = drawn.plot(
        f"Run {run.number}: cumulative distribution",
        f"Cumulative distribution of the {what}: {said}",
        (Key("series-1", "share of all"), *keys),
    )
    return histogram, cdf


def comparison_plots(comparison: Comparison, runs: Sequence[Run]) -> tuple[Plot, ...]:
    """What runs are compared by, with intervals; and their distributions over each other."""
    chosen = _compared_runs(comparison, runs)
    values = [run.compared for run in chosen if run.compared is not None]
    rows = [(f"run {run.number}", value) for run, value in zip(chosen, values, strict=True)]
    plots = [
        _interval_plot(f"compare-{comparison.scenario}", f"{comparison.scenario}: {values[0].name} of each run", rows)
    ]
    with_times = [run for run in chosen if run.distribution is not None][:_MOST_SERIES]
    if len(with_times) > 1:
        with _axes(f"compare-{comparison.scenario}-cdf") as drawn:
            for run, colour in zip(with_times, SERIES, strict=False):
                assert run.distribution is not None
                _draw_cdf(drawn.axes, run.distribution, colour)
            drawn.axes.set_ylabel("% at most so long")
            of = "time of a batch" if comparison.scenario == "Offline" else "latency of a query"
            shown = [run.distribution for run in with_times if run.distribution is not None]
            _finish_times(drawn.axes, f"{of}, ms", shown)
        more = (
            f" (the first {_MOST_SERIES} runs)"
            if len(with_times) < sum(r.distribution is not None for r in chosen)
            else ""
        )
        plots.append(
            drawn.plot(
                f"{comparison.scenario}: cumulative distributions{more}",
                f"Cumulative distributions of the {of} of runs {', '.join(str(run.number) for run in with_times)}.",
                tuple(
                    Key(colour, f"run {run.number}: {run.backend}")
                    for run, colour in zip(with_times, SERIES, strict=False)
                ),
            )
        )
    return tuple(plots)


def ratio_plot(name: str, title: str, rows: Sequence[tuple[str, Quantity]]) -> Plot:
    """Ratios with their intervals, and a line where both are equal."""
    return _interval_plot(name, title, rows, equal_at=1.0)


def roofline_plot(name: str, title: str, roofline: Roofline, operations: str) -> Plot:
    """Layers as points of an area that grows with their time, under min(peak, intensity * bandwidth)."""
    computing = [layer for layer in roofline.layers if layer.operations > 0 and layer.total_bytes > 0]
    families = sorted({_family(layer) for layer in computing}, key=lambda family: -_seconds(computing, family))
    colours = {family: SERIES[min(index, _MOST_SERIES - 1)] for index, family in enumerate(families)}
    whole_s = sum(layer.seconds for layer in roofline.layers)
    with _axes(name) as drawn:
        axes = drawn.axes
        ridge = roofline.peak_gflops / roofline.bandwidth_gb_s
        reached = [layer.intensity for layer in computing] or [ridge]
        low, high = min(*reached, ridge) / 2, max(*reached, ridge) * 2
        axes.plot(
            [low, ridge, high],
            [low * roofline.bandwidth_gb_s, roofline.peak_gflops, roofline.peak_gflops],
            color=_COLOURS["ink"],
        )
        for index, layer in enumerate(computing):
            share = layer.seconds / whole_s
            point = axes.scatter(
                [layer.intensity],
                [layer.gflops],
                s=_LEAST_POINT_AREA + _POINT_AREA * share,
                color=_COLOURS[colours[_family(layer)]],
                edgecolor=_COLOURS["paper"],
                linewidth=0.5,
                alpha=0.85,
                zorder=3,
            )
            drawn.name(
                point,
                f"layer-{index}",
                f"{layer.node}, {layer.kernel} {layer.shape}: {layer.gflops:.1f} {operations}, "
                f"{layer.intensity:.2f} operations/byte, {layer.percent_of_roof:.0f} % of the roof, "
                f"{1e6 * layer.seconds:.0f} us ({100 * share:.1f} %)",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations per byte")
        axes.set_ylabel(operations)
        _label_log(axes.xaxis, low, high)
        _label_log(axes.yaxis, *axes.get_ylim())
    return drawn.plot(
        title,
        f"Roofline of {len(computing)} layers: peak {figures(roofline.peak_gflops)} {operations}, bandwidth "
        f"{figures(roofline.bandwidth_gb_s)} GB/s. The table beneath has every layer.",
        (
            Key("ink", f"roof: {figures(roofline.peak_gflops)} {operations}, {figures(roofline.bandwidth_gb_s)} GB/s"),
            *(Key(colours[family], family, line=False) for family in families[:_MOST_SERIES]),
        ),
    )


@dataclass(frozen=True)
class _Mark:
    at_ms: float
    colour: str
    text: str
    drawn: bool


def _marks(latency: Latency, times: Distribution) -> Iterator[_Mark]:
    of = f"{100 * latency.percentile:g}th percentile"
    if latency.percentile_ms is not None:
        yield _Mark(latency.percentile_ms, "series-2", f"{of}, LoadGen: {figures(latency.percentile_ms)} ms", True)
    if latency.early_stopping_ms is not None:
        text = f"{of}, early stopping's estimate: {figures(latency.early_stopping_ms)} ms"
        yield _Mark(latency.early_stopping_ms, "series-3", text, True)
    if latency.bound_ms is not None:
        drawn = latency.bound_ms < _WITHIN * times.edges_ms[-1]
        beyond = "" if drawn else " (beyond this plot)"
        yield _Mark(latency.bound_ms, "series-4", f"bound: {figures(latency.bound_ms)} ms{beyond}", drawn)


def _bars(times: Distribution) -> tuple[list[float], npt.NDArray[np.float64]]:
    """Buckets put together to as many bars as Rice's rule has for so many values: their edges, ms, and their shares."""
    bars = min(max(_FEWEST_BARS, round(2 * sum(times.counts) ** (1 / 3))), _MOST_BARS)
    together = -(-len(times.counts) // bars)
    counts = np.add.reduceat(times.counts, np.arange(0, len(times.counts), together))
    return [*times.edges_ms[:-1:together], times.edges_ms[-1]], counts / counts.sum()


def _draw_cdf(axes: Axes, times: Distribution, colour: str) -> None:
    shares = 100 * np.cumsum(times.counts) / sum(times.counts)
    axes.plot(times.edges_ms, [0.0, *shares], color=_COLOURS[colour])
    axes.set_ylim(0, 103)


def _finish_times(axes: Axes, label: str, times: Sequence[Distribution], marks: Sequence[_Mark] = ()) -> None:
    """Marks, and an axis that shows all of them; logarithmic where it spans much."""
    styles = {"series-2": "-", "series-3": "--", "series-4": "-."}
    drawn = [mark for mark in marks if mark.drawn]
    for mark in drawn:
        axes.axvline(mark.at_ms, color=_COLOURS[mark.colour], linewidth=1.3, linestyle=styles[mark.colour])
    axes.set_xlabel(label)
    places = [*(mark.at_ms for mark in drawn), *(one.edges_ms[-1] for one in times)]
    low = min(*places, *(one.edges_ms[0] or 0.9 * one.edges_ms[1] for one in times))  # never 0
    high = max(places)
    if high / low > _LINEAR_SPAN:
        room = (high / low) ** 0.03
        axes.set_xscale("log")
        axes.set_xlim(low / room, high * room)
        _label_log(axes.xaxis, low, high)
    else:
        room = 0.03 * (high - low)
        axes.set_xlim(low - room, high + room)


def _interval_plot(name: str, title: str, rows: Sequence[tuple[str, Quantity]], equal_at: float | None = None) -> Plot:
    with _axes(name, height=0.75 + _ROW_INCHES * len(rows)) as drawn:
        axes = drawn.axes
        for place, (label, value) in enumerate(rows):
            if value.interval is not None:
                axes.plot(
                    [value.interval.low, value.interval.high], [place, place], color=_COLOURS["series-1"], linewidth=4,
                    alpha=0.45, solid_capstyle="butt",
                )  # fmt: skip
            point = axes.plot([value.value], [place], "o", color=_COLOURS["series-1"], markersize=5)[0]
            drawn.name(point, f"row-{place}", f"{label}: {_told(value)}")
        if equal_at is not None:
            axes.axvline(equal_at, color=_COLOURS["muted"], linewidth=0.9, linestyle=":")
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
        unit = f", {rows[0][1].unit}" if rows[0][1].unit else ""
        axes.set_xlabel(f"{rows[0][1].name}{unit} ({rows[0][1].better} is better)")
    return drawn.plot(
        title,
        "; ".join(f"{label}: {_told(value)}" for label, value in rows) + ".",
        (Key("series-1", "value, with its interval where there is one", line=False),),
    )


def _told(value: Quantity) -> str:
    interval = value.interval
    between = "" if interval is None else f" ({figures(interval.low)} to {figures(interval.high)})"
    return f"{figures(value.value)} {value.unit}".strip() + between


def _label_log(axis: mpl.axis.Axis, low: float, high: float) -> None:
    """Plain numbers: decades if there are many, 1 2 5 otherwise."""
    subs = (1.0,) if high / low > 3000 else (1.0, 2.0, 5.0) if high / low > 8 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _compared_runs(comparison: Comparison, runs: Sequence[Run]) -> list[Run]:
    numbers = {comparison.ratios[0].baseline, *(ratio.run for ratio in comparison.ratios)}
    return [run for run in runs if run.number in numbers]


def _family(layer: Layer) -> str:
    """A kernel, or several in one pass, without tiles: conv_gemm of conv_gemm_12x2, conv_gemm_u8 of ..._12x2_u8."""
    return " + ".join(re.sub(r"_\d+x\d+(?=(_[a-z]+\d+)?$)", "", one) for one in layer.kernel.split(" + "))


def _seconds(layers: Sequence[Layer], family: str) -> float:
    return sum(layer.seconds for layer in layers if _family(layer) == family)


class _Drawing:
    """A figure with one pair of axes, and what its parts are called."""

    def __init__(self, name: str, height: float) -> None:
        self._name = name
        self._figure = Figure(figsize=(_SIZE_INCHES[0], height), layout="constrained")
        self._titles: dict[str, str] = {}
        self._svg = ""
        self.axes: Axes = self._figure.add_subplot()

    def name(self, artist: mpl.artist.Artist, identity: str, title: str) -> None:
        """Show a text when somebody points at an artist."""
        artist.set_gid(identity)
        self._titles[identity] = title

    def draw(self) -> None:
        """Once, when everything is on the axes."""
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self._figure.savefig(written, format="svg", metadata=nothing)
        self._svg = written.getvalue()

    def plot(self, title: str, description: str, keys: tuple[Key, ...]) -> Plot:
        """title, description: also for those who cannot see it."""
        return Plot(
            self._name, title, description, keys, _for_page(self._svg, self._name, title, description, self._titles)
        )


@contextmanager
def _axes(name: str, height: float = _SIZE_INCHES[1]) -> Iterator[_Drawing]:
    """Axes to draw on, in the style of the page. name: of the plot, unlike that of any other on the page."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        drawing = _Drawing(name, height)
        yield drawing
        drawing.draw()


def _for_page(svg: str, name: str, title: str, description: str, titles: Mapping[str, str]) -> str:
    """Matplotlib's file as an element of a page: own ids, the page's colours and size, told to screen readers."""
    ElementTree.register_namespace("", _SVG.strip("{}"))
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}style", f"{_SVG}metadata"):
                parent.remove(child)  # the style would hold for the whole page
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                if value in titles:
                    ElementTree.SubElement(element, f"{_SVG}title").text = titles[value]
                value = f"{name}-{value}"
            elif key.endswith("href") and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            else:
                value = _coloured(value.replace("url(#", f"url(#{name}-"))
            element.set(key, value)
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("class", "plot")
    root.set("role", "img")
    root.set("aria-label", f"{title}. {description}")  # a title element would pop up wherever one points
    return ElementTree.tostring(root, encoding="unicode")


def _coloured(value: str) -> str:
    for name, stand_in in _COLOURS.items():
        value = value.replace(stand_in, f"var(--{name})")
    return value
