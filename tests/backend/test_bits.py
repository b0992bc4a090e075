"""What may not change a result, to the last bit: threads, batch size, an image's place and company, earlier runs.

Over a small network with every kind of step, Winograd's and a chain among them, in segments that run one image, two and
all at a time; small pictures (images tiled together) and larger ones. Which plans may be exchanged for one another is
what `test_random_plans.py` is about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from plan_runner import ISA, MACHINE, run_plan
from small_nets import Net, oracle, random_inputs

from backend.graph.ir import Graph
from backend.plan.choices import WinogradChoice
from backend.plan.plan import Plan
from backend.plan.planner import choose_record, make_plan
from backend.plan.precision import Precision
from backend.plan.record import NamedChain
from backend.plan.segments import Segment

_IMAGES = 7

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


CHAINED, BY_PATCHES, LATE = 4, 7, 10
"""Where in `network` its inverted residual begins, which op behind it Winograd's algorithm computes, and from which one
on all images run at a time."""

NARROW = next(tile for tile in ISA.tiles if tile.nr == 1)


def network(height: int, width: int) -> Graph:
    """Convolutions of every kind, pools, arithmetic, layout changes, softmax."""
    net = Net(seed=height)
    x = net.input(3, height, width)
    stem = net.conv(x, 24, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1), low=0.0, high=6.0)
    deep = net.conv(stem, 24, (3, 3), pads=(1, 1, 1, 1), group=24, low=0.0)
    grouped = net.conv(deep, 18, (3, 3), pads=(1, 1, 1, 1), group=3)
    joined = net.conv(grouped, 24, residual=stem, low=0.0)
    expanded = net.conv(joined, 40, low=0.0, high=6.0)
    bent = net.conv(expanded, 40, (3, 3), pads=(1, 1, 1, 1), group=40, low=0.0, high=6.0)
    block = net.conv(bent, 24, residual=joined)
    by_patches = net.conv(block, 24, (3, 3), pads=(1, 1, 1, 1), residual=joined, low=0.0)
    averaged = net.pool("average", by_patches, (2, 2), strides=(1, 1), pads=(0, 0, 1, 1))
    pooled = net.pool("max", net.binary("mul", averaged, deep), (2, 2), strides=(2, 2))
    normed = net.clip(net.batch_norm(net.transpose(pooled, 0, 1, 3, 2)), -3.0, 3.0)
    channels, h, w = net.shape(normed)[1:]
    flat = net.reshape(normed, -1, channels * h * w)
    logits = net.dense(flat, 37)
    return net.graph(pooled, net.mean(pooled, (2, 3)), logits, net.softmax(logits, 1), net.argmax(logits, 1))


GRAPHS = [pytest.param(network(6, 7), id="small-pictures"), pytest.param(network(31, 37), id="larger-pictures")]


def planned(graph: Graph, max_batch: int, precision: Precision = "fp32") -> Plan:
    """By the planner, but for its cuts, the chain and Winograd's layer: small networks are worth none of them."""
    chunks = (1, min(2, max_batch), max_batch)
    bounds = (0, BY_PATCHES, LATE, len(graph.ops))
    segments = tuple(Segment(*span, chunk) for *span, chunk in zip(bounds, bounds[1:], chunks, strict=False))
    record = choose_record(graph, MACHINE, max_batch, segments, precision)
    assert not record.chains
    names = [op.name for op in graph.ops]
    record = replace(
        record,
        chains=(NamedChain(names[CHAINED], names[BY_PATCHES - 1], parts=2, rows=2),),
        nodes=record.nodes | {names[BY_PATCHES]: WinogradChoice(NARROW, chunks[1], 1)},
    )
    plan = make_plan(graph, MACHINE, max_batch, saved=record, precision=precision)
    assert {"conv_gemm", "conv_winograd", "depthwise_3x3"} <= {key.name for key in plan.kernels}
    assert [info.op for info in plan.infos].count("Chain") == 1
    assert {int(chunk) for chunk in plan.steps["chunk"][: plan.walked]} == set(chunks)
    return plan


def images_of(inputs: dict[str, np.ndarray], index: list[int]) -> dict[str, np.ndarray]:
    return {name: array[index] for name, array in inputs.items()}


def assert_same_bits(got: list[np.ndarray], expected: list[np.ndarray], index: list[int], case: str) -> None:
    for a, b in zip(got, expected, strict=True):
        bits = f"u{a.itemsize}"
        np.testing.assert_array_equal(a.view(bits), b[index].view(bits), err_msg=case)


def alone(graph: Graph, inputs: dict[str, np.ndarray], precision: Precision = "fp32") -> list[np.ndarray]:
    """Every image by itself, by a plan made for one image and one thread."""
    plan = planned(graph, 1, precision)
    runs = [run_plan(plan, images_of(inputs, [image])) for image in range(_IMAGES)]
    return [np.concatenate(arrays) for arrays in zip(*runs, strict=True)]


@pytest.mark.parametrize("graph", GRAPHS)
def test_results_are_right(graph: Graph) -> None:
    """The yardstick of this file against the NumPy twins in float64, relative to the largest of each output."""
    inputs = random_inputs(graph, _IMAGES)
    for got, want in zip(alone(graph, inputs), oracle(graph, inputs), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.skipif(MACHINE.cores < 2, reason="one CPU"))])
def test_batch_and_threads_change_no_bit(graph: Graph, threads: int, precision: Precision) -> None:
    """Any largest batch, any part of it filled, images in any order and any company, repeated ones too."""
    inputs = random_inputs(graph, _IMAGES)
    expected = alone(graph, inputs, precision)
    rng = np.random.default_rng(5)
    for max_batch in (1, 2, 3, _IMAGES, 16):
        plan = planned(graph, max_batch, precision)
        for count in sorted({1, max(1, max_batch - 1), max_batch}):
            index = [int(image) for image in rng.integers(0, _IMAGES, count)]
            got = run_plan(plan, images_of(inputs, index), threads)
            assert_same_bits(got, expected, index, f"max_batch {max_batch}, images {index}, {threads} threads")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_nan_image_spoils_no_other(graph: Graph, precision: Precision) -> None:
    """Not even where bf16's dot products of pairs end on an odd element: what lies behind is not multiplied by zero."""
    inputs = random_inputs(graph, 5)
    plan = planned(graph, 5, precision)
    clean = run_plan(plan, inputs)
    inputs["input0"][2] = np.nan
    spoilt = run_plan(plan, inputs)
    others = [0, 1, 3, 4]
    assert_same_bits([array[others] for array in spoilt], clean, others, "images beside a NaN image")
    assert all(np.isnan(array[2]).all() for array in spoilt[:4]), "a NaN got lost"


@pytest.mark.skipif(MACHINE.cores < 2, reason="one CPU")
def test_a_hundred_parallel_runs_agree() -> None:
    """Which thread computes what differs from run to run; nothing else does."""
    graph = network(11, 9)
    inputs = random_inputs(graph, 3)
    plan = planned(graph, 3)
    expected = run_plan(plan, inputs)
    for turn in range(100):
        assert_same_bits(run_plan(plan, inputs, threads=2), expected, [0, 1, 2], f"run {turn}")
