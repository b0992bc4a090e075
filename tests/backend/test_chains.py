"""Ops that run band by band give the same bits as ops that run one after the other, whatever the bands.

Independent of the code under test: the unchained plan, whose kernels the other tests hold to the NumPy twin, and
the twin itself. Arena and scratch memory are full of NaN: a row that nobody made, kept or cleared reaches the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_runner import ISA, MACHINE, plan_graph, run_plan
from small_nets import UNIT_ROUNDOFF, Net, oracle, random_inputs

from backend.errors import PlanError
from backend.graph.ir import Graph
from backend.plan.chains import Window, cut_bands
from backend.plan.plan import Plan
from backend.plan.planner import choose_record, make_plan
from backend.plan.record import NamedChain
from backend.plan.segments import Segment
from backend.simd.element import BFLOAT16

C = ISA.lanes


def bottleneck(strides: tuple[int, int], residual: bool) -> Callable[[], Graph]:
    """Expand, depthwise, project, as in MobileNetV2, and an op behind it that needs a halo."""

    def build() -> Graph:
        net = Net()
        x = net.conv(net.input(3, 12, 9), 5, (3, 3), pads=(1, 1, 1, 1), strides=(1, 2))
        y = net.conv(x, 3 * C + 1, low=0.0)
        y = net.conv(y, 3 * C + 1, (3, 3), group=3 * C + 1, pads=(1, 1, 1, 1), strides=strides, low=0.0)
        y = net.conv(y, 5, residual=x if residual else "")
        return net.graph(net.conv(y, 4, (5, 5), pads=(2, 2, 2, 2)))

    return build


def tall_windows() -> Graph:
    """Dilated, asymmetric and strided windows, several panels per layer, depthwise of any size."""
    net = Net()
    x = net.conv(net.input(4, 23, 8), 2 * C + 3, (7, 3), pads=(3, 1, 1, 1), strides=(2, 1))
    x = net.conv(x, 2 * C + 3, (3, 3), pads=(2, 0, 2, 2), dilations=(2, 1))
    x = net.conv(x, 2 * C + 3, (5, 2), group=2 * C + 3, pads=(1, 1, 3, 0), high=0.5)
    x = net.conv(x, 9, (2, 2), strides=(2, 2), pads=(0, 0, 1, 0))
    return net.graph(net.conv(x, 3 * C, (1, 1)))


def strided_without_overlap() -> Graph:
    """Windows that touch nothing twice, and rows that no window reads."""
    net = Net()
    x = net.conv(net.input(3, 17, 6), C + 1, (1, 1))
    x = net.conv(x, 2 * C, (1, 1), strides=(3, 2))
    return net.graph(net.conv(x, 6, (2, 1), strides=(2, 1)))


def joins() -> Graph:
    """Sums of two paths that are the next op's picture and a later op's residual or window, as in ResNet50."""
    net = Net()
    x = net.conv(net.input(3, 13, 7), 2 * C, low=0.0)
    y = net.conv(x, C, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    x = net.conv(y, 2 * C, residual=x, low=0.0)
    y = net.conv(x, C + 3, low=0.0)
    x = net.conv(y, 2 * C, residual=x)
    y = net.conv(x, 5)
    return net.graph(net.conv(x, 5, (3, 3), pads=(1, 1, 1, 1), residual=y))


NETS: dict[str, Callable[[], Graph]] = {
    "joins": joins,
    "bottleneck": bottleneck((1, 1), residual=True),
    "strided bottleneck": bottleneck((2, 2), residual=False),
    "tall windows": tall_windows,
    "strided without overlap": strided_without_overlap,
}


FOLLOWED = {"joins": 60, "bottleneck": 42, "strided bottleneck": 48, "tall windows": 35, "strided without overlap": 16}
"""How many of the chains that are asked for can be followed; the others hold a value that a window reads, and
others read, too, or bands that leave an op without a row."""


def chained(graph: Graph, max_batch: int, first: int, last: int, parts: int, rows: int, chunk: int = 1) -> Plan:
    """The graph's plan with ops[first:last] chained; ops behind them run `chunk` images at a time."""
    segments = [Segment(0, last, 1)]
    if last < len(graph.ops):
        segments.append(Segment(last, len(graph.ops), chunk))
    record = choose_record(graph, MACHINE, max_batch, tuple(segments))
    chain = NamedChain(graph.ops[first].name, graph.ops[last - 1].name, parts, rows)
    return make_plan(graph, MACHINE, max_batch, saved=replace(record, chains=(chain,)))


def unchained(graph: Graph, max_batch: int, last: int, chunk: int = 1) -> Plan:
    segments = [Segment(0, last, 1)]
    if last < len(graph.ops):
        segments.append(Segment(last, len(graph.ops), chunk))
    record = choose_record(graph, MACHINE, max_batch, tuple(segments))
    return make_plan(graph, MACHINE, max_batch, saved=replace(record, chains=()))


@pytest.mark.parametrize("name", NETS)
def test_chains_change_no_bit(name: str) -> None:
    """Every chain of two ops or more, in every number of parts and rows that leaves nobody without work."""
    graph = NETS[name]()
    inputs = random_inputs(graph, 1)
    exact = oracle(graph, inputs)[0]
    checked = 0
    for first in range(len(graph.ops)):
        for last in range(first + 2, len(graph.ops) + 1):
            (expected,) = run_plan(unchained(graph, 1, last), inputs)
            assert np.abs(expected - exact).max() <= 4096 * UNIT_ROUNDOFF * np.abs(exact).max()
            height = graph.values[graph.ops[last - 1].output].shape[2]
            for parts, rows in {(1, height), (1, 3), (2, 2), (min(3, height), 1), (1, 2), (2, height)}:
                if not followable(graph, first, last, parts, rows):
                    continue
                (got,) = run_plan(chained(graph, 1, first, last, parts, rows), inputs)
                np.testing.assert_array_equal(got, expected, err_msg=f"{first}:{last}, {parts} parts, {rows} rows")
                checked += 1
    assert checked == FOLLOWED[name]


def followable(graph: Graph, first: int, last: int, parts: int, rows: int) -> bool:
    """Whether check.py lets the chain through; the test counts on most of them."""
    try:
        chained(graph, 1, first, last, parts, rows)
    except PlanError as error:
        assert "chain" in str(error)
        return False
    return True


def residual_from_before() -> Graph:
    """The chain's residual, and what it writes, are read by a later segment: both hold the whole batch."""
    net = Net()
    x = net.conv(net.input(3, 12, 9), 5, (3, 3), pads=(1, 1, 1, 1))
    y = net.conv(x, 2 * C, low=0.0)
    y = net.conv(y, 2 * C, (3, 3), group=2 * C, pads=(1, 1, 1, 1))
    y = net.conv(y, 5, residual=x)
    return net.graph(net.conv(y, 5, residual=x))


@pytest.mark.parametrize("build", [NETS["bottleneck"], residual_from_before])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_batches_through_a_chain(chunk: int, build: Callable[[], Graph]) -> None:
    """Whole and partial batches, by one thread and two: the chain goes image by image, ops behind it by chunks."""
    graph = build()
    reference, plan = unchained(graph, 3, 4, chunk), chained(graph, 3, 1, 4, 2, 3, chunk)
    for images in (1, 2, 3):
        inputs = random_inputs(graph, images)
        (expected,) = run_plan(reference, inputs)
        for threads in (1, 2):
            np.testing.assert_array_equal(run_plan(plan, inputs, threads)[0], expected)


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_join_is_kept_for_whoever_adds_it_later(chunk: int) -> None:
    """What a chain hands over and a later segment adds holds the whole batch."""
    graph = joins()
    reference, plan = unchained(graph, 3, 4, chunk), chained(graph, 3, 2, 4, 3, 2, chunk)
    for images in (1, 3):
        inputs = random_inputs(graph, images)
        (expected,) = run_plan(reference, inputs)
        for threads in (1, 2):
            np.testing.assert_array_equal(run_plan(plan, inputs, threads)[0], expected)


def test_chains_of_bfloat16_change_no_bit() -> None:
    graph = NETS["strided bottleneck"]()
    inputs = random_inputs(graph, 1)
    record = choose_record(graph, MACHINE, 1, precision="bf16")
    (expected,) = run_plan(make_plan(graph, MACHINE, 1, saved=replace(record, chains=()), precision="bf16"), inputs)
    for parts, rows in ((1, 2), (2, 3), (3, 2)):
        chain = NamedChain(graph.ops[1].name, graph.ops[3].name, parts, rows)
        plan = make_plan(graph, MACHINE, 1, saved=replace(record, chains=(chain,)), precision="bf16")
        assert any(key.operands.x == BFLOAT16 for key in plan.kernels)
        np.testing.assert_array_equal(run_plan(plan, inputs, 2)[0], expected)


def test_a_large_picture_is_chained_and_needs_less_memory() -> None:
    """The planner's own choice: what lies between is in nobody's arena."""
    net = Net()
    x = net.conv(net.input(3, 64, 64), C)
    y = net.conv(x, 6 * C, low=0.0)
    y = net.conv(y, 6 * C, (3, 3), group=6 * C, pads=(1, 1, 1, 1))
    graph = net.graph(net.conv(y, C, residual=x))
    small = replace(MACHINE, l2_bytes=1 << 20)
    plan = plan_graph(graph, 1, small)
    (chain,) = plan.record.chains
    assert (chain.first_node, chain.last_node) == (graph.ops[1].name, graph.ops[3].name)
    assert plan.arena_size + plan.scratch_size < 2 * 6 * C * 64 * 64
    inputs = random_inputs(graph, 1)
    (expected,) = run_plan(make_plan(graph, small, 1, saved=replace(plan.record, chains=())), inputs)
    np.testing.assert_array_equal(run_plan(plan, inputs, 2)[0], expected)
    assert [row.info.node for row in plan.rows() if row.operations] == [op.name for op in graph.ops]
    assert f"chain: {chain.first_node} to {chain.last_node}" in str(plan)


def test_a_sum_is_handed_over_if_l2_cannot_keep_it() -> None:
    """The planner's own choice: a value that is written anyhow is read from L2 without a chain, if it fits there."""
    net = Net()
    x = net.conv(net.input(3, 32, 32), 4 * C)
    x = net.conv(net.conv(x, C, (3, 3), pads=(1, 1, 1, 1)), 4 * C, residual=x, low=0.0)
    graph = net.graph(net.conv(net.conv(x, C), 4 * C, residual=x))
    value_bytes = 4 * C * 32 * 32 * 4
    (chain,) = plan_graph(graph, 1, replace(MACHINE, l2_bytes=value_bytes - 4096)).record.chains
    assert (chain.first_node, chain.last_node) == (graph.ops[2].name, graph.ops[3].name)
    assert not plan_graph(graph, 1, replace(MACHINE, l2_bytes=value_bytes)).record.chains


@pytest.mark.parametrize(
    "heights, windows",
    [
        ((56, 56, 56), (Window(1, 0, 1), Window(1, 1, 3), Window(1, 0, 1))),
        ((112, 56, 56), (Window(1, 0, 1), Window(2, 1, 3), Window(1, 0, 1))),
        ((20, 18, 6), (Window(1, 0, 1), Window(1, 0, 3), Window(3, 0, 2))),
    ],
)
@pytest.mark.parametrize("parts, rows", [(1, 56), (1, 5), (4, 3), (2, 1)])
def test_bands_hold_what_the_next_op_reads(heights: Any, windows: Any, parts: int, rows: int) -> None:
    """By definition of a window: row r of an op needs rows r * stride - pad and on of the one before, made or kept."""
    done: list[int] = []
    for bands in cut_bands(heights, windows, parts, rows):
        present: list[set[int]] = [set() for _ in heights]
        for band in bands:
            for index, own in enumerate(band):
                if index + 1 < len(band):
                    kept = set(range(own.held[0], own.held[0] + own.kept))
                    assert {row for row in kept if 0 <= row < heights[index]} <= present[index]
                    present[index] = kept
                present[index] |= set(range(own.begin, own.end))
                if index:
                    window = windows[index]
                    for row in range(own.begin, own.end):
                        read = range(row * window.stride - window.pad, row * window.stride - window.pad + window.size)
                        assert {r for r in read if 0 <= r < heights[index - 1]} <= present[index - 1]
                        assert band[index - 1].held[0] <= read[0] and read[-1] < band[index - 1].held[1]
            done += range(band[-1].begin, band[-1].end)
    assert done == list(range(heights[-1]))
