"""The page of a report as a browser shows it: headless Chromium, as wide as a desk's and a pocket's, light and dark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from report_support import HOSTILE, bench_json, hostile_runs

from harness.report.run import make_report

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install '.[test]'")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "headless_shell")
WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(_BROWSERS)}) is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, official_runs: Path) -> Path:
    """Runs of all scenarios, one of them twice, runs with hostile names, and benches with layers."""
    folder = tmp_path_factory.mktemp("page")
    hostile_runs(official_runs / "SingleStream", folder / "hostile")
    (folder / "bench.json").write_text(json.dumps(bench_json(folder, HOSTILE)))
    alone = bench_json(folder, precision="int8")
    alone["rows"][0]["ratios"]["onnxruntime"]["ours_to_peer"] = [0.01931]  # long numbers at the ticks around it
    (folder / "alone.json").write_text(json.dumps(alone))
    make_report([official_runs, *(folder / name for name in ("hostile", "bench.json", "alone.json"))], folder / "out")
    return folder / "out/report.html"


@dataclass
class Shown:
    """A page that a browser has loaded, and what it said and asked for."""

    page: Any
    width: int
    scheme: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module", params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=str)
def shown(request: pytest.FixtureRequest, browser: Any, page: Path) -> Iterator[Shown]:
    """Loaded once for all tests."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown = Shown(context.new_page(), width, scheme)
    shown.page.on("console", lambda message: shown.console.append(message.text))
    shown.page.on("pageerror", lambda error: shown.console.append(str(error)))
    shown.page.on("dialog", lambda dialog: (shown.console.append(dialog.message), dialog.dismiss()))
    shown.page.on("request", lambda request: shown.requests.append(request.url))
    shown.page.goto(page.as_uri())
    yield shown
    context.close()


def test_it_renders(shown: Shown, page: Path, official_runs: Path) -> None:
    assert shown.console == []
    assert [url for url in shown.requests if not url.startswith("data:")] == [page.as_uri()]
    boxes = shown.page.eval_on_selector_all(
        "svg.plot", "all => all.map(one => [one.getBoundingClientRect().width, one.getBoundingClientRect().height])"
    )
    valid = [
        log
        for log in official_runs.glob("*/performance/mlperf_log_detail.txt")
        if '"key": "result_validity", "value": "VALID"' in log.read_text()
    ]
    # Two of each performance run (three in each scenario, and three with hostile names), two of the comparison of each
    # scenario whose runs are VALID, ratios and roofline of each bench.
    assert len(boxes) == 2 * 15 + 2 * len(valid) + 2 * 2
    assert all(250 < box_width <= shown.width and box_height > 60 for box_width, box_height in boxes)
    root = "document.documentElement"
    assert shown.page.evaluate(f"{root}.scrollWidth") <= shown.width, "nothing sticks out at the side"
    assert HOSTILE in shown.page.inner_text("main")


def test_no_text_of_a_plot_is_cut_off_or_tiny(shown: Shown) -> None:
    outside = shown.page.evaluate(
        """() => [...document.querySelectorAll("svg.plot text")].filter(text => {
            const box = text.getBoundingClientRect(), plot = text.closest("svg").getBoundingClientRect();
            return box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1
                || box.top < plot.top - 1 || box.height < 9;
        }).map(text => text.textContent)"""
    )
    assert outside == []


def test_no_texts_of_an_axis_overlap(shown: Shown) -> None:
    overlapping = shown.page.evaluate(
        """() => [...document.querySelectorAll("svg.plot g[id$='axis_1']")].flatMap(axis => {
            const boxes = [...axis.querySelectorAll("g[id*=xtick] text")]
                .map(text => [text.getBoundingClientRect(), text.textContent]).sort((a, b) => a[0].left - b[0].left);
            return boxes.slice(1).filter(([box], index) => box.left < boxes[index][0].right).map(([, text]) => text);
        })"""
    )
    assert overlapping == []


def test_text_stands_out_from_its_background(shown: Shown) -> None:
    """WCAG 2.1: a contrast of at least 4.5 for text, 3 for the lines of plots."""
    style = "getComputedStyle(document.documentElement)"
    names = ["ink", "muted", "link", *(f"series-{number}" for number in range(1, 7))]
    colours = {name: shown.page.evaluate(f"{style}.getPropertyValue('--{name}').trim()") for name in [*names, "paper"]}
    for name in names:
        assert contrast(colours[name], colours["paper"]) >= (3 if name.startswith("series") else 4.5), name
    drawn = shown.page.evaluate(
        "[...new Set([...document.querySelectorAll('svg.plot text')].map(text => getComputedStyle(text).fill))]"
    )
    assert drawn == [f"rgb({', '.join(str(channel) for channel in channels(colours['ink']))})"]
    background = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == f"rgb({', '.join(str(channel) for channel in channels(colours['paper']))})"


def channels(colour: str) -> list[int]:
    """Of #rrggbb."""
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio."""

    def luminance(colour: str) -> float:
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in channels(colour))
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
