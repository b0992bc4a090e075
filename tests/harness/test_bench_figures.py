"""Bench's numbers: lists on the command line, statistics, differences of outputs, roofs. Judged by NumPy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from backend import QuantizedEnds
from harness.bench import compare
from harness.bench import layers as roofs
from harness.bench.compare import check_agreement
from harness.bench.config import BenchConfig, parse_counts, parse_peers
from harness.bench.messages import Layers, LayerTime, random_inputs
from harness.bench.statistics import better_peer, paired_ratios, summarize, turn_order
from harness.bench.worker import run_slice
from harness.errors import BadInputError, RunFailedError


@pytest.mark.parametrize(("text", "counts"), [("1", (1,)), ("1,8", (1, 8)), (" 8 , 1 ", (8, 1))])
def test_counts(text: str, counts: tuple[int, ...]) -> None:
    assert parse_counts(text, "--batch") == counts


@pytest.mark.parametrize("text", ["", "0", "-1", "1,", "1;8", "1.5", "two", "1,8,1", "²"])
def test_counts_that_are_none(text: str) -> None:
    with pytest.raises(BadInputError, match=r"^--batch '"):
        parse_counts(text, "--batch")


def test_peers() -> None:
    assert parse_peers("openvino, onnxruntime", "--against") == ("openvino", "onnxruntime")
    assert parse_peers("none", "--against") == ()


@pytest.mark.parametrize("text", ["", "tvm", "none,openvino", "openvino,openvino", "numba"])
def test_peers_that_are_none(text: str) -> None:
    with pytest.raises(BadInputError, match=r"^--against '"):
        parse_peers(text, "--against")


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"rounds": 0}, "--rounds 0"),
        ({"slice_s": 0.0}, "--seconds-per-round 0"),
        ({"slice_s": float("nan")}, "--seconds-per-round nan"),
        ({"model": Path("absent.onnx")}, "--model absent.onnx: no such file"),
    ],
)
def test_settings_that_cannot_be_measured(change: dict[str, object], flag: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.touch()
    settings = {"model": model, "precision": "fp32", "batches": (1,), "threads": (1,), "peers": ()}
    BenchConfig(**settings)
    with pytest.raises(BadInputError, match=f"^{flag}"):
        BenchConfig(**(settings | change))


def test_peer_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    model = tmp_path / "model.onnx"
    model.touch()
    with pytest.raises(
        BadInputError, match="'openvino', which is not installed: 'pip install onnxruntime openvino' installs"
    ):
        BenchConfig(model, "fp32", (1,), (1,), ("onnxruntime", "openvino"))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_summary_is_numpys(count: int) -> None:
    values = np.random.default_rng(count).uniform(10, 20, count)
    summary = summarize(values.tolist())
    expected = np.quantile(values, [0.5, 0, 0.25, 0.75, 1])
    got = [summary.median, summary.minimum, summary.low_quartile, summary.high_quartile, summary.maximum]
    np.testing.assert_allclose(got, expected, rtol=1e-14)
    np.testing.assert_allclose(summary.spread_percent, (expected[3] - expected[2]) / expected[0] * 100, atol=1e-9)


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that slows down twofold in the second round changes both rates and no ratio."""
    assert paired_ratios([120.0, 60.0, 110.0], [100.0, 50.0, 100.0]) == pytest.approx([1.2, 1.2, 1.1])
    with pytest.raises(ValueError):
        paired_ratios([1.0, 2.0], [1.0])


def test_better_peer_is_the_one_we_are_least_ahead_of() -> None:
    ratios = {"onnxruntime": summarize([1.0, 1.3, 1.2]), "openvino": summarize([0.9, 1.1, 1.5])}
    assert better_peer(ratios) == "openvino"
    assert better_peer({}) is None


def test_turns_rotate() -> None:
    turns = np.array([turn_order(3, round_index) for round_index in range(6)])
    assert all(sorted(turn) == [0, 1, 2] for turn in turns.tolist())
    assert all(sorted(set(place)) == [0, 1, 2] for place in turns[:3].T.tolist()), "everyone has every place once"
    assert turns[:3].tolist() == turns[3:].tolist()


def _share(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float | None:
    """By the widest limit."""
    return check_agreement(ours, theirs, "openvino", "any", None).share


@pytest.fixture
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LIMITS", {"any": np.inf})


@pytest.mark.usefixtures("no_limit")
def test_difference_of_floats_is_relative_to_the_largest() -> None:
    theirs = [np.array([[1.0, -4.0]], np.float32), np.array([[10.0]], np.float32)]
    ours = [np.array([[1.5, -4.0]], np.float32), np.array([[10.1]], np.float32)]
    assert _share(ours, theirs) == pytest.approx(0.5 / 4)
    assert _share([np.zeros(2)], [np.zeros(2)]) == 0


@pytest.mark.usefixtures("no_limit")
def test_difference_of_classes_is_the_share_of_those_that_differ() -> None:
    assert _share([np.array([1, 2, 900, 4])], [np.array([1, 2, 3, 4])]) == 0.25


@pytest.mark.parametrize("bad", [[np.array([1.0003])], [np.array([np.nan])], [np.array([np.inf])]])
def test_outputs_that_disagree(bad: list[np.ndarray]) -> None:
    near = check_agreement([np.array([1.00015])], [np.array([1.0])], "openvino", "fp32", None)
    assert (near.share, near.steps) == (pytest.approx(1.5e-4), None)
    with pytest.raises(RunFailedError, match=r"differ from openvino's"):
        check_agreement(bad, [np.array([1.0])], "openvino", "fp32", None)


SCORES = np.array([[0.5, -3.0, 20.0, 4.0]], np.float32)


@pytest.mark.parametrize(
    ("stated", "probabilities", "step", "most"),
    [({"y": 0.25}, (), 0.25, 8), ({}, (), 23 / 255, 8), ({}, ("y",), 1 / 255, 32), ({"y": 0.5}, ("y",), 0.5, 32)],
    ids=["stated", "of the span", "of probabilities", "stated probabilities"],
)
def test_outputs_of_a_quantised_model_are_compared_in_steps(
    stated: dict[str, float], probabilities: tuple[str, ...], step: float, most: int
) -> None:
    """The model's step, else what 255 steps make of the output's span; one step beyond the limit is refused."""
    ends = QuantizedEnds(("class", "y"), {}, stated, frozenset(probabilities))
    classes, others = np.array([2]), np.array([1])  # indices are left out
    near, far = (SCORES + np.float32(steps * step) * (SCORES == 20) for steps in (most, most + 1))
    found = check_agreement([others, near], [classes, SCORES], "openvino", "int8", ends)
    assert found.steps == pytest.approx(most, rel=1e-4)
    assert found.share == pytest.approx(most * step / 20, rel=1e-4)
    for bad in (far, np.full_like(SCORES, np.nan)):
        with pytest.raises(RunFailedError, match=rf"steps of the quantisation of 'y', more than {most}: a bench of"):
            check_agreement([classes, bad], [classes, SCORES], "openvino", "int8", ends)


def test_outputs_of_integers_and_indices_of_a_quantised_model() -> None:
    """Stored numbers have steps of one; indices by themselves say nothing."""
    ends = QuantizedEnds(("q",), {}, {"q": 1.0}, frozenset())
    stored = np.array([250, 3], np.uint8)
    assert check_agreement([stored], [np.array([255, 3], np.uint8)], "openvino", "int8", ends).steps == 5
    alone = QuantizedEnds(("class",), {}, {}, frozenset())
    assert check_agreement([np.array([2])], [np.array([1])], "openvino", "int8", alone).share is None


def test_outputs_of_other_shapes() -> None:
    with pytest.raises(RunFailedError, match=r"\(1, 2\).*\(2, 1\)"):
        check_agreement([np.zeros((1, 2))], [np.zeros((2, 1))], "openvino", "fp32", None)


def test_random_inputs_depend_on_shapes_seed_and_ranges_alone() -> None:
    first = random_inputs({"b": (2, 3), "a": (4,)}, seed=1, ranges={})
    again = random_inputs({"a": (4,), "b": (2, 3)}, seed=1, ranges={})
    assert {name: (x.shape, x.dtype) for name, x in first.items()} == {
        "a": ((4,), np.float32),
        "b": ((2, 3), np.float32),
    }
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["a"], random_inputs({"a": (4,)}, seed=2, ranges={})["a"])
    (spread,) = random_inputs({"a": (1000,)}, seed=1, ranges={"a": (-2.0, 6.0)}).values()
    assert (spread.dtype, -2 <= spread.min() < -1.9, 5.9 < spread.max() <= 6) == (np.float32, True, True)
    assert abs(spread.mean() - 2) < 0.3


def test_slice_counts_what_is_timed_and_not_the_warm_up() -> None:
    calls: list[None] = []
    piece = run_slice(lambda: calls.append(None), batch=8, seconds=0.02)
    inferences = piece.images // 8
    assert piece.images == 8 * inferences
    assert 1 <= inferences < len(calls)
    assert piece.seconds >= 0.02
    assert 0 < piece.inference_s < piece.seconds


def test_roofline() -> None:
    """Peak 100 GFLOP/s, 10 GB/s: the ridge is at 10 operations per byte."""
    heavy = LayerTime("conv", "gemm", "", seconds=2e-3, operations=10**8, weight_bytes=10**6, activation_bytes=0)
    light = LayerTime("dw", "depthwise", "", seconds=1e-3, operations=10**6, weight_bytes=10**6, activation_bytes=10**6)
    copy = LayerTime("pool", "max_pool", "", seconds=1e-3, operations=0, weight_bytes=0, activation_bytes=5 * 10**6)
    measured = Layers((heavy, light, copy), peak_gflops=100.0, bandwidth_gb_s=10.0, profile_rounds=5)
    for layer in (heavy, light):
        roof = min(100.0, roofs.intensity(layer) * 10.0)
        assert roofs.percent_of_roof(layer, measured) == pytest.approx(100 * roofs.gflops(layer) / roof)
    assert roofs.gflops(heavy) == pytest.approx(50)
    assert roofs.percent_of_peak(heavy, measured) == pytest.approx(50)
    assert roofs.percent_of_roof(heavy, measured) == pytest.approx(50)
    assert roofs.intensity(light) == pytest.approx(0.5)
    assert roofs.gb_s(light) == pytest.approx(2)
    assert roofs.percent_of_roof(light, measured) == pytest.approx(20)
    assert roofs.percent_of_roof(copy, measured) == pytest.approx(50), "no operations: bandwidth alone is the roof"
    whole = roofs.total(measured)
    assert (whole.seconds, whole.operations, whole.total_bytes) == pytest.approx((4e-3, 101 * 10**6, 8 * 10**6))
