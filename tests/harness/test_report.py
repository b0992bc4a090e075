"""The report of runs and benches: its numbers against LoadGen's raw logs and NumPy, its care for files."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_support import Command, write_steady_plugin
from report_support import HOSTILE, OURS, PEER, bench_json, hostile_runs
from submission_support import rewrite_detail

from harness.report import benches, intervals, page, runs
from harness.report.records import Distribution
from harness.report.run import make_report

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")


def report(command: Command, *arguments: object) -> dict[str, Any]:
    """The JSON of a report that must succeed, written to the folder `out`."""
    done = command("report", *arguments, "--output", "out")
    assert done.status == 0, done.stderr
    content: dict[str, Any] = json.loads(Path("out/report.json").read_text())
    return content


def logged(folder: Path) -> dict[str, Any]:
    """The first value of each key of a detail log, read without the harness."""
    found: dict[str, Any] = {}
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        entry = json.loads(line.partition(" ")[2])
        found.setdefault(entry["key"], entry["value"])
    return found


def summary(folder: Path, name: str) -> float:
    """A number of LoadGen's summary."""
    matched = re.search(rf"^{re.escape(name)}\s*: ([0-9.]+)$", (folder / "mlperf_log_summary.txt").read_text(), re.M)
    assert matched is not None, name
    return float(matched[1])


def sorted_edges(folder: Path, histogram: str) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the bucket of every duration, sorted, in ms, as the file's documentation says."""
    content = json.loads((folder / "timings.json").read_text())
    first, counts = content[histogram]["first_bucket"], content[histogram]["counts"]
    high = content["shortest_ns"] * content["growth"] ** np.arange(first, first + len(counts)) / 1e6
    low = np.where(np.arange(first, first + len(counts)) > 0, high / content["growth"], 0)
    return np.repeat(low, counts), np.repeat(high, counts)


def at_most(count: int, share: float, most: int) -> float:
    """Binomial probability of at most so many, by its definition."""
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(most + 1))


@pytest.fixture(scope="module")
def official_report(tmp_path_factory: pytest.TempPathFactory, official_runs: Path) -> Path:
    """The folder of a report of all official runs."""
    output = tmp_path_factory.mktemp("report") / "out"
    make_report([official_runs], output)
    return output


@pytest.fixture(scope="module")
def by_scenario(official_report: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((official_report / "report.json").read_text())["runs"]
    return {run["scenario"]: run for run in found if run["mode"] == "performance"}


def test_numbers_are_those_of_the_logs(by_scenario: dict[str, dict[str, Any]], official_runs: Path) -> None:
    assert by_scenario.keys() == set(SCENARIOS)
    keys = {"SingleStream": "ss", "MultiStream": "ms"}
    for scenario, run in by_scenario.items():
        folder = official_runs / scenario / "performance"
        log = logged(folder)
        assert (run["status"], run["verdict"]) == ("finished", log["result_validity"])
        assert run["official"] is (log["result_validity"] == "VALID")
        if scenario in keys:
            estimate_ms = log[f"early_stopping_latency_{keys[scenario]}"] / 1e6
            assert (run["result"]["value"], run["result"]["unit"]) == (pytest.approx(estimate_ms), "ms")
            assert run["latency"]["early_stopping_ms"] == pytest.approx(estimate_ms)
            share = {"SingleStream": 0.9, "MultiStream": 0.99}[scenario]
            assert run["latency"]["percentile"] == share
            stated_ms = summary(folder, f"{100 * share:.2f} percentile latency (ns)") / 1e6
            assert run["latency"]["percentile_ms"] == run["compared"]["value"] == pytest.approx(stated_ms)
        elif scenario == "Offline":
            assert run["result"]["value"] == pytest.approx(summary(folder, "Samples per second"), rel=1e-4)
            assert run["latency"] is None
        else:
            stated = summary(folder, "Completed samples per second")
            assert run["result"]["value"] == pytest.approx(stated, rel=1e-4)
            assert run["latency"]["late_queries"] == log["result_overlatency_query_count"]
            assert run["latency"]["bound_ms"] == 30_000
            allowed, queries = run["latency"]["allowed_late_queries"], log["result_query_count"]
            assert at_most(queries, 0.01, allowed) < 0.01 <= at_most(queries, 0.01, allowed + 1)


def test_distributions_hold_every_query(by_scenario: dict[str, dict[str, Any]], official_runs: Path) -> None:
    for scenario in ("SingleStream", "MultiStream", "Server"):
        run, log = by_scenario[scenario], logged(official_runs / scenario / "performance")
        assert run["distribution"]["of"] == "query"
        assert sum(run["distribution"]["counts"]) == run["query_count"] == log["result_query_count"]
        assert len(run["distribution"]["edges_ms"]) == len(run["distribution"]["counts"]) + 1
        assert np.all(np.diff(run["distribution"]["edges_ms"]) > 0)
    assert by_scenario["Offline"]["distribution"]["of"] == "batch"


def test_distribution_is_that_of_the_queries(
    command: Command, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of four queries takes 9 ms, the others 3: LoadGen's percentiles and ours are of the same latencies."""
    write_steady_plugin(tmp_path, "uneven", "0.009 if next(self.calls) % 4 == 3 else 0.003")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "any.onnx").write_bytes(b"the plugin reads no model")
    flags = ("--backend", "uneven", "--dataset-path", dataset, "--time", 0.01, "--count", 20, "--model", "any.onnx")
    done = command("run", *flags)
    assert done.status == 0, done.stderr
    assert len(report(command, "reports")["runs"]) == 1
    folder = tmp_path / "reports/runs/resnet50/SingleStream/performance"
    low_ms, high_ms = sorted_edges(folder, "response")
    assert len(low_ms) == 20
    for share in (0.5, 0.9):
        stated_ms = logged(folder)[f"result_{100 * share:.2f}_percentile_latency_ns"] / 1e6
        rank = math.ceil(share * 20) - 1
        near = slice(max(0, rank - 1), rank + 2)  # LoadGen rounds ranks its own way
        assert low_ms[near].min() - 0.02 <= stated_ms <= high_ms[near].max() + 1, "1 ms: of the call on a busy machine"


def test_latency_intervals_are_order_statistics(by_scenario: dict[str, dict[str, Any]], official_runs: Path) -> None:
    """The ranks are the narrowest that each tail allows, by the binomial distribution computed term by term."""
    for scenario, share in (("SingleStream", 0.9), ("Server", 0.99)):
        told = by_scenario[scenario]["distribution"]
        interval = intervals.of_distribution(
            Distribution("query", tuple(told["edges_ms"]), tuple(told["counts"])), share
        )
        assert interval is not None
        shown, value = by_scenario[scenario]["latency"]["interval"], by_scenario[scenario]["latency"]["percentile_ms"]
        agree = interval.low <= value <= interval.high
        assert shown == (asdict(interval) if agree else None), "shown only where LoadGen's percentile lies inside"
        low_ms, high_ms = sorted_edges(official_runs / scenario / "performance", "response")
        count = len(low_ms)
        below = np.cumsum(
            np.exp([math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
                    + k * math.log(share) + (count - k) * math.log1p(-share) for k in range(count + 1)])
        )  # fmt: skip
        low_rank = int(np.flatnonzero(below >= 0.025)[0])
        high_rank = int(np.flatnonzero(below >= 0.975)[0]) + 1
        assert (interval.confidence, interval.method) == (0.95, "order statistics")
        assert interval.low == pytest.approx(low_ms[low_rank - 1])
        assert interval.high == pytest.approx(high_ms[high_rank - 1])


def test_throughput_interval_follows_the_spread_of_batches(
    by_scenario: dict[str, dict[str, Any]], official_runs: Path
) -> None:
    low_ms, high_ms = sorted_edges(official_runs / "Offline/performance", "service")
    times = (low_ms + high_ms) / 2
    share = 1.959964 * np.std(times, ddof=1) / np.sqrt(len(times)) / np.mean(times)
    run = by_scenario["Offline"]
    found, rate = run["compared"]["interval"], run["result"]["value"]
    assert (found["low"], found["high"]) == (pytest.approx(rate / (1 + share)), pytest.approx(rate / (1 - share)))


def test_quantile_intervals_cover() -> None:
    """Of many samples of a skewed distribution, at least 95 % have the true quantile in their interval."""
    random = np.random.default_rng(1)
    for count, share in ((30, 0.5), (300, 0.9)):
        truth = -math.log(1 - share)
        drawn = np.sort(random.exponential(size=(4000, count)), axis=1)
        ranks = intervals.quantile_ranks(count, share, 0.95)
        assert ranks is not None
        held = np.mean((drawn[:, ranks[0] - 1] <= truth) & (truth <= drawn[:, ranks[1] - 1]))
        assert 0.945 <= held <= 0.985
    assert intervals.quantile_ranks(5, 0.5, 0.95) is None
    assert intervals.quantile_ranks(6, 0.5, 0.95) == (1, 6)  # the sign test's tables
    assert intervals.quantile_ranks(9, 0.5, 0.95) == (2, 8)


def test_intervals_of_means_are_the_textbooks() -> None:
    found = intervals.of_geometric_mean([math.exp(1), math.exp(2), math.exp(3)])
    assert found is not None
    assert (math.log(found.low), math.log(found.high)) == (
        pytest.approx(2 - 4.302653 / math.sqrt(3)),
        pytest.approx(2 + 4.302653 / math.sqrt(3)),
    )
    assert intervals.of_geometric_mean([1.0]) is None
    assert intervals.of_geometric_mean([5.0, 5.0]) is None
    ratio = intervals.of_ratio_of_means([1.0, 2.0], [10.0, 20.0])
    assert ratio is not None  # equal spreads: 2 degrees of freedom, t = 4.302653, in logarithms
    half = 4.302653 * math.sqrt(2 * (math.log(2) ** 2 / 2) / 2)
    assert (ratio.low, ratio.high) == (pytest.approx(0.1 * math.exp(-half)), pytest.approx(0.1 * math.exp(half)))
    assert intervals.of_ratio_of_means([2.0, 2.0], [1.0, 1.0]) is None
    assert intervals.of_throughput(10, Distribution("batch", (1.0, 2.0), (1,))) is None


def changed(source: Path, place: Path, log: dict[str, Any] | None = None, **record: Any) -> Path:
    """A copy of a run with other values in its detail log, and in objects of its run.json."""
    shutil.copytree(source, place)
    rewrite_detail(place / "mlperf_log_detail.txt", lambda key, value: (log or {}).get(key, value))
    content = json.loads((place / "run.json").read_text())
    for name, values in record.items():
        content[name] = {**content.get(name, {}), **values}
    (place / "run.json").write_text(json.dumps(content))
    return place


def test_runs_of_a_scenario_are_compared(command: Command, official_runs: Path, tmp_path: Path) -> None:
    source = official_runs / "SingleStream/performance"
    low_ms, high_ms = sorted_edges(source, "response")
    rank = math.ceil(0.9 * len(low_ms)) - 1
    stated = {"result_90.00_percentile_latency_ns": round(1e6 * (low_ms[rank] + high_ms[rank]) / 2)}
    for name, backend in (("a", "null"), ("b", "null"), ("c", "other")):
        changed(source, tmp_path / name, stated, config={"backend": backend})
    (comparison,) = report(command, "a", "b", "c", official_runs / "Offline/performance")["comparisons"]
    assert comparison["scenario"] == "SingleStream"
    assert [(one["run"], one["baseline"], one["ratio"]) for one in comparison["ratios"]] == [(2, 1, 1.0), (3, 1, 1.0)]
    for ratio in comparison["ratios"]:
        assert ratio["interval"]["low"] < 1 < ratio["interval"]["high"], "the same run is no better than itself"
    assert [one["differences"] for one in comparison["ratios"]] == [[], ["backend other, there null"]]
    assert [(one["backend"], one["runs"]) for one in comparison["backends"]] == [("null", [1, 2]), ("other", [3])]
    assert [one["differences"] for one in comparison["backends"]] == [[], ["backend other, there null"]]
    assert comparison["backends"][1]["ratio_interval"] is None
    assert comparison["backends"][0]["mean"]["interval"] is None, "equal values tell nothing of their spread"


def test_only_valid_runs_that_are_no_tuning_are_compared(command: Command, official_runs: Path, tmp_path: Path) -> None:
    source, valid = official_runs / "SingleStream/performance", {"result_validity": "VALID"}
    changed(source, tmp_path / "1", valid)
    changed(source, tmp_path / "2", valid, config={"name": "tuning"})
    changed(source, tmp_path / "3", {"result_validity": "INVALID"})
    changed(source, tmp_path / "4", valid)
    found = report(command, "1", "2", "3", "4")
    assert [run["mode"] for run in found["runs"]] == ["performance", "tuning", "performance", "performance"]
    (comparison,) = found["comparisons"]
    assert [(one["run"], one["baseline"]) for one in comparison["ratios"]] == [(4, 1)]
    assert [(one["run"], one["why"].split()[-1]) for one in found["not_compared"]] == [(2, "load"), (3, "INVALID")]
    text = " ".join(Seen(Path("out/report.html").read_text()).text.split())
    assert "In no comparison: run 2 (a short run, made to tune a load), run 3 (INVALID)." in text


def test_runs_that_differ_are_no_repeats(command: Command, official_runs: Path, tmp_path: Path) -> None:
    """Means are geometric, as their ratios are."""
    source = official_runs / "Offline/performance"
    settings = json.loads((source / "run.json").read_text())["settings"]
    longer = {"effective": {**settings["effective"], "min_duration_ms": 77}}
    for number, (rate, other) in enumerate([(100, {}), (400, {}), (300, longer), (1200, longer)], start=1):
        log = {"result_samples_per_second": rate, "result_validity": "VALID"}
        changed(source, tmp_path / str(number), log, settings=other)
    (comparison,) = report(command, "1", "2", "3", "4")["comparisons"]
    first, second = comparison["backends"]
    assert (first["runs"], second["runs"]) == ([1, 2], [3, 4])
    assert (first["mean"]["value"], second["mean"]["value"]) == (pytest.approx(200), pytest.approx(600))
    assert second["ratio"] == pytest.approx(3)
    assert second["differences"] == [f"min_duration_ms 77, there {settings['effective']['min_duration_ms']}"]


def test_server_is_compared_by_throughput(command: Command, official_runs: Path, tmp_path: Path) -> None:
    """Twice the rate at a higher latency within the bound is the better result."""
    for name, rate, latency_ns in (("1", 1000.0, 2_000_000), ("2", 2000.0, 9_000_000)):
        log = {"result_completed_samples_per_sec": rate, "result_99.00_percentile_latency_ns": latency_ns}
        changed(official_runs / "Server/performance", tmp_path / name, {**log, "result_validity": "VALID"})
    found = report(command, "1", "2")
    ((ratio,),) = [one["ratios"] for one in found["comparisons"]]
    assert (ratio["name"], ratio["better"], ratio["ratio"]) == ("throughput", "higher", 2)
    assert ratio["interval"] is None
    assert [run["latency"]["percentile_ms"] for run in found["runs"]] == [2, 9]


def test_advice_knows_of_a_standstill(command: Command, official_runs: Path, tmp_path: Path) -> None:
    log = {"result_validity": "INVALID", "result_overlatency_query_count": 50}
    changed(official_runs / "Server/performance", tmp_path / "stood", log, standstill={"begin_s": 1, "seconds": 5})
    (run,) = report(command, "stood")["runs"]
    (advice,) = run["advice"]
    assert advice.startswith("nothing was answered for 5.0 s, 1 s into the test, which made the late queries")


def test_texts_like_formulas_are_quoted_in_the_csv(command: Command, official_runs: Path, tmp_path: Path) -> None:
    for number, start in enumerate("=+-@\t\r"):
        place = changed(official_runs / "SingleStream/performance", tmp_path / str(number))
        record = json.loads((place / "run.json").read_text())
        record["config"]["model"] = f"{start}HYPERLINK(1)"
        record["not_submittable"] = [f"{start}1+1"]
        (place / "run.json").write_text(json.dumps(record))
    report(command, *range(6))
    with Path("out/report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [f"'{start}HYPERLINK(1)" for start in "=+-@\t\r"]
    assert [row["deviations"] for row in rows] == [f"'{start}1+1" for start in "=+-@\t\r"]


def test_csv_has_a_row_per_run(official_report: Path) -> None:
    found = json.loads((official_report / "report.json").read_text())["runs"]
    with (official_report / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found) == 16
    for row, run in zip(rows, found, strict=True):
        assert (row["folder"], row["mode"], int(row["run"])) == (run["folder"], run["mode"], run["number"])
        if run["result"] is not None:
            assert float(row["result"]) == run["result"]["value"]
        if run["accuracy"] is not None:
            assert float(row["accuracy_percent"]) == run["accuracy"]["percent"] == 76


def test_a_bench_is_told_with_its_roofline(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench_json(tmp_path)))
    (bench,) = report(command, "bench.json")["benches"]
    (row,) = bench["rows"]
    ours, peer = row["engines"]
    pairs = np.array(OURS) / np.array(PEER)
    assert ours["images_per_s"]["value"] == np.median(OURS)
    assert peer["ratio"] == pytest.approx(np.median(pairs))
    between = np.sort(pairs)[[1, 7]]  # ranks 2 and 8 of 9
    assert [peer["ratio_interval"]["low"], peer["ratio_interval"]["high"]] == pytest.approx(list(between))
    assert row["roofline"]["peak_gflops"] == 150
    assert [layer["total_bytes"] for layer in row["roofline"]["layers"]] == [1100, 600]
    page = Path("out/report.html").read_text()
    assert page.count("<svg") == 2, "ratios and roofline"
    assert "conv_0" in page and "pool_1" in page


@pytest.mark.parametrize(("precision", "unit"), [("int8", "GOP/s"), ("fp32", "GFLOP/s")])
def test_a_bench_has_the_precision_of_our_engine(command: Command, tmp_path: Path, precision: str, unit: str) -> None:
    """Nobody asked for one: the settings of the bench have null."""
    content = bench_json(tmp_path, precision=precision)
    assert content["settings"]["precision"] is None
    (tmp_path / "bench.json").write_text(json.dumps(content))
    (bench,) = report(command, "bench.json")["benches"]
    assert bench["precision"] == precision
    seen = Seen(Path("out/report.html").read_text())
    assert f"net.onnx, {precision}" in seen.text
    assert set(re.findall(r"\bG[A-Z]*OP/s", seen.text)) == {unit}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("rows", 0, "layers", "bandwidth_gb_s"), 0),
        (("rows", 0, "layers", "peak_gflops"), math.inf),
        (("rows", 0, "layers", "layers", 0, "seconds"), 0.0),
        (("rows", 0, "layers", "layers", 0, "seconds"), 10**400),
        (("rows", 0, "layers", "layers"), []),
        (("rows", 0, "engines", "numba", "images_per_s", 3), math.nan),
        (("rows", 0, "engines", "numba", "images_per_s"), []),
        (("rows", 0, "ratios", "onnxruntime"), {}),
        (("rows",), []),
        (("machine",), []),
    ],
)
def test_a_damaged_bench_is_told_in_a_line(
    command: Command, tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    content = bench_json(tmp_path)
    inner: Any = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    (tmp_path / "bench.json").write_text(json.dumps(content))
    done = command("report", "bench.json", "--output", "out")
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: bench.json is damaged: ")


@pytest.mark.parametrize("fault", [AttributeError, KeyError, TypeError, ZeroDivisionError])
def test_a_fault_of_ours_is_not_told_as_a_damaged_file(
    official_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def fails(*_: object) -> None:
        raise fault("ours")

    (tmp_path / "bench.json").write_text(json.dumps(bench_json(tmp_path)))
    monkeypatch.setattr(benches, "of_quantile", fails)
    monkeypatch.setattr(runs, "advise", fails)
    for path in (tmp_path / "bench.json", official_runs / "SingleStream/performance"):
        with pytest.raises(fault, match="ours"):
            make_report([path], tmp_path / "out")


class Seen(HTMLParser):
    """Elements, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {value or "" for name, value in attrs if name in ("href", "src", "xlink:href")}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_and_escapes_everything(command: Command, official_runs: Path, tmp_path: Path) -> None:
    hostile_runs(official_runs / "SingleStream", tmp_path / "runs")
    (tmp_path / "bench.json").write_text(json.dumps({**bench_json(tmp_path, HOSTILE), "model": {"path": HOSTILE}}))
    report(command, "runs", "bench.json")
    seen = Seen(Path("out/report.html").read_text())
    assert not seen.elements & {"script", "img", "iframe", "object", "embed", "base", "form", "b2"}
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert all(address.startswith(("#", "data:,")) for address in seen.addresses), seen.addresses
    assert seen.text.count(HOSTILE) >= 8, "shown as it is"
    json.loads(Path("out/report.json").read_text())


def test_runs_that_did_not_finish_are_shown_with_why(command: Command, official_runs: Path, tmp_path: Path) -> None:
    expected = {"failed": "failed", "interrupted": "interrupted", "running": "unfinished"}
    for status in expected:
        folder = tmp_path / "runs" / status
        folder.mkdir(parents=True)
        record = json.loads((official_runs / "Offline/performance/run.json").read_text())
        record |= {"status": status, "error": f"this one is {status}"}
        del record["result"], record["ended_utc"]
        if status == "interrupted":  # while the engine was being opened
            del record["not_submittable"]
        (folder / "run.json").write_text(json.dumps(record))
    done = command("report", "runs", "--output", "out")
    assert done.status == 0, done.stderr
    found = json.loads(Path("out/report.json").read_text())["runs"]
    assert {run["folder"].rpartition("/")[2]: run["status"] for run in found} == expected
    assert [run["why"] for run in found][:2] == ["this one is failed", "this one is interrupted"]
    assert not any(run["official"] or run["verdict"] or run["result"] for run in found)
    assert "run 1 is failed: this one is failed; runs/failed" in done.stdout


def test_earlier_runs_are_left_out_unless_named(command: Command, official_runs: Path, tmp_path: Path) -> None:
    kept = tmp_path / "runs/performance"
    shutil.copytree(official_runs / "Offline/performance", kept)
    started = json.loads((kept / "run.json").read_text())["started_utc"]
    aside = kept.with_name(f"performance.{re.sub('[^A-Za-z0-9]', '', started)}")
    shutil.copytree(kept, aside)
    found = report(command, "runs")
    assert [run["folder"] for run in found["runs"]] == ["runs/performance"]
    assert found["left_out"] == [f"runs/{aside.name}"]
    found = report(command, "runs", Path("runs") / aside.name, "runs")
    assert [run["folder"] for run in found["runs"]] == ["runs/performance", f"runs/{aside.name}"]
    assert found["left_out"] == []


def test_an_older_run_without_distribution_is_told(command: Command, official_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(official_runs / "SingleStream/performance", tmp_path / "old")
    (tmp_path / "old/timings.json").unlink()
    (run,) = report(command, "old")["runs"]
    assert run["distribution"] is None and run["compared"]["interval"] is None
    assert "kept no distribution" in Path("out/report.html").read_text()


def broken(folder: Path) -> Iterator[tuple[str, str]]:
    """Breaks a run's files one after the other; yields the file that the error has to name, and some of its words."""

    def with_text(name: str, text: str, words: str) -> Iterator[tuple[str, str]]:
        path = folder / name
        before = path.read_bytes()
        path.write_text(text)
        yield name, words
        path.write_bytes(before)

    record = json.loads((folder / "run.json").read_text())
    for name in ("mlperf_log_detail.txt", "mlperf_log_summary.txt"):
        (folder / name).rename(folder / "aside")
        yield name, "is missing"
        (folder / "aside").rename(folder / name)
    detail = (folder / "mlperf_log_detail.txt").read_text()
    yield from with_text("mlperf_log_detail.txt", detail[: len(detail) // 2], "torn record")
    yield from with_text("mlperf_log_detail.txt", "".join(detail.splitlines(True)[:-1]), "cut off")
    strange = ':::MLLOG {"key": "a key", "value": 1, "metadata": null}\n'
    yield from with_text("mlperf_log_detail.txt", strange + detail, "not a LoadGen record")
    latency = '"result_90.00_percentile_latency_ns", "value": '
    no_number = detail.replace(latency, f"{latency}-")
    assert no_number != detail
    yield from with_text("mlperf_log_detail.txt", no_number, "damaged")
    settings = {**record["settings"]["effective"], "single_stream_target_latency_percentile": 0}
    no_share = {**record, "settings": {**record["settings"], "effective": settings}}
    yield from with_text("run.json", json.dumps(no_share), "the percentile of SingleStream is 0")
    yield from with_text("run.json", "{", "damaged")
    yield from with_text("run.json", "[]", "damaged")
    yield from with_text("run.json", json.dumps({**record, "format": 99}), "format 99")
    yield from with_text("run.json", json.dumps({**record, "status": "splendid"}), "damaged")
    yield from with_text("run.json", json.dumps({**record, "config": None}), "damaged")
    yield from with_text("run.json", json.dumps({k: v for k, v in record.items() if k != "settings"}), "damaged")
    yield from with_text("timings.json", "", "damaged")
    yield from with_text("timings.json", '{"format": 7}', "format 7")
    yield from with_text(
        "timings.json",
        '{"format": 1, "shortest_ns": 1, "growth": 1.01, "response": {"first_bucket": 1, "counts": [-1, 9]}}',
        "damaged",
    )


def test_broken_files_are_named_and_nothing_is_written(command: Command, official_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(official_runs / "SingleStream/performance", tmp_path / "run")
    for name, words in broken(tmp_path / "run"):
        done = command("report", "run", "--output", "out")
        assert done.status == 2, (name, words)
        assert f"run/{name}" in done.stderr and words in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert command("report", "run", "--output", "out").status == 0


def test_paths_that_are_no_sources(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "torn.json").write_text(json.dumps(bench_json(tmp_path))[:200])
    for path, words in (
        ("empty", "empty holds no run"),
        ("missing", "missing: no such file"),
        ("other.json", "other.json is no JSON of a bench"),
        ("torn.json", "torn.json is damaged"),
    ):
        done = command("report", path, "--output", "out")
        assert (done.status, done.stderr.count("\n")) == (2, 1) and words in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_output_replaces_only_an_earlier_report(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench_json(tmp_path)))
    report(command, "bench.json")
    (tmp_path / "out/report.csv").write_text("old")
    report(command, "bench.json")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.csv", "report.html", "report.json"]
    assert (tmp_path / "out/report.csv").read_text() != "old"
    (tmp_path / "out/diary.txt").write_text("mine")
    done = command("report", "bench.json", "--output", "out")
    assert done.status == 2 and "diary.txt" in done.stderr
    done = command("report", "bench.json", "--output", "bench.json")
    assert done.status == 2 and "not a folder" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "net.onnx", "out"]


def test_what_ends_it_while_it_writes_takes_nothing_away(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench_json(tmp_path)))
    report(command, "bench.json")
    output = tmp_path / "out"
    before = {path.name: path.read_text() for path in output.iterdir()}
    rename, render = Path.replace, page.render
    renamed: list[Path] = []

    def interrupted(source: Path, target: Path) -> Path:
        renamed.append(Path(target))
        if len(renamed) == 2:
            raise KeyboardInterrupt
        return rename(source, target)

    def beside(made: Any) -> str:
        (output / "diary.txt").write_text("put there meanwhile")
        return render(made)

    monkeypatch.setattr(Path, "replace", interrupted)
    monkeypatch.setattr(page, "render", beside)
    assert command("report", "bench.json", "--output", "out").status == 130
    after = {path.name: path.read_text() for path in output.iterdir()}
    assert after.pop("diary.txt") == "put there meanwhile"
    assert after.keys() == before.keys()
    unchanged = before.keys() - {renamed[0].name}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


def test_only_what_the_extra_brings_is_told_as_missing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench_json(tmp_path)))
    monkeypatch.delitem(sys.modules, "harness.report.run")
    monkeypatch.delitem(sys.modules, "harness.report.page")
    monkeypatch.delattr("harness.report.page")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "jinja2", None)
        done = command("report", "bench.json", "--output", "out")
        assert done.status == 2 and "report needs jinja2: pip install 'loadgen-numba[report]'" in done.stderr
    monkeypatch.setitem(sys.modules, "harness.report.sources", None)
    with pytest.raises(ModuleNotFoundError, match=r"harness\.report\.sources"):
        command("report", "bench.json", "--output", "out")
