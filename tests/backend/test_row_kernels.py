"""Depthwise convolution, pooling, global average, affine map and clip against the NumPy twin, in an arena of NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_runner import ISA, MACHINE, plan_graph, run_plan
from small_nets import UNIT_ROUNDOFF, Net, oracle, random_inputs, sum_of_products_bound

from backend.graph.ir import Graph

CHANNELS = [2, ISA.lanes - 1, ISA.lanes, 2 * ISA.lanes + 1]


def kernels_of(graph: Graph) -> set[str]:
    return {key.name for key in plan_graph(graph, 3).kernels}


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(
    "picture, kernel, fields",
    [
        ((5, 7), (3, 3), {"pads": (1, 1, 1, 1)}),
        ((6, 8), (3, 3), {"pads": (0, 0, 1, 1), "strides": (2, 2)}),
        ((9, 11), (3, 2), {"dilations": (2, 3), "pads": (2, 0, 0, 3)}),
        ((4, 4), (4, 4), {}),
        ((3, 9), (1, 1), {"strides": (1, 2)}),
        ((7, 6), (5, 1), {"pads": (2, 0, 2, 0), "strides": (3, 1)}),
        *[((2, width), (2, 2), {}) for width in (2, 4, 5)],
        *[((3, width + 2), (3, 3), {}) for width in (1, 3, 4, 5, 9)],
    ],
)
def test_depthwise(channels: int, picture: tuple[int, int], kernel: tuple[int, int], fields: dict[str, Any]) -> None:
    """One filter per channel, clipped; widths below, at and above what goes together."""
    net = Net()
    x = net.input(channels, *picture)
    graph = net.graph(net.conv(x, channels, kernel, group=channels, low=-0.5, high=1.0, **fields))
    assert ("depthwise_3x3" if kernel == (3, 3) else "depthwise") in kernels_of(graph)
    inputs = random_inputs(graph, 2)
    (got,) = run_plan(plan_graph(graph, 3), inputs)
    error = np.abs(got - oracle(graph, inputs)[0])
    assert (error <= sum_of_products_bound(graph, inputs, kernel[0] * kernel[1])).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_depthwise_channels_and_rows_change_no_bit(stride: int) -> None:
    """Two vectors of channels at a time, of five; units that end inside a picture and span two; two threads."""
    net = Net()
    x = net.input(5 * ISA.lanes, 10 * stride, 9 * stride)
    graph = net.graph(net.conv(x, 5 * ISA.lanes, (3, 3), group=5 * ISA.lanes, pads=(1,) * 4, strides=(stride, stride)))
    inputs = random_inputs(graph, 3)
    wide, narrow = (plan_graph(graph, 3, replace(MACHINE, l1d_bytes=size)) for size in (1 << 20, 1 << 10))
    (index,) = [i for i, step in enumerate(wide.steps) if wide.kernels[step["kernel"]].name == "depthwise_3x3"]
    assert (wide.steps[index]["nc_panels"], narrow.steps[index]["nc_panels"]) == (5, 2)
    (expected,), (got,) = run_plan(wide, inputs), run_plan(narrow, inputs, 2)
    np.testing.assert_array_equal(got, expected)
    assert (np.abs(got - oracle(graph, inputs)[0]) <= sum_of_products_bound(graph, inputs, 9)).all()


def test_depthwise_identity_is_exact() -> None:
    weight = np.zeros((5, 1, 3, 3), np.float32)
    weight[:, 0, 1, 1] = 1
    net = Net()
    graph = net.graph(net.conv(net.input(5, 4, 7), 5, (3, 3), pads=(1,) * 4, group=5, bias=False, weight=weight))
    inputs = random_inputs(graph, 2)
    np.testing.assert_array_equal(run_plan(plan_graph(graph, 2), inputs)[0], inputs["input0"])


def test_depthwise_with_a_residual() -> None:
    """An add that was fused into a depthwise convolution."""
    net = Net()
    x = net.input(6, 5, 4)
    graph = net.graph(net.conv(x, 6, (3, 3), pads=(1,) * 4, group=6, residual=x, low=0.0))
    inputs = random_inputs(graph, 2)
    (got,) = run_plan(plan_graph(graph, 3), inputs)
    assert (np.abs(got - oracle(graph, inputs)[0]) <= sum_of_products_bound(graph, inputs, 9)).all()


WINDOWS: dict[str, tuple[tuple[int, int], tuple[int, int], dict[str, Any]]] = {
    "2x2": ((6, 8), (2, 2), {"strides": (2, 2)}),
    "3x3-padded": ((7, 9), (3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
    "3x3-dilated": ((9, 11), (3, 3), {"dilations": (2, 3), "strides": (1, 2), "pads": (2, 1, 1, 3)}),
    "3x3-narrow": ((7, 2), (3, 3), {"pads": (0, 1, 1, 1)}),
    "asymmetric": ((7, 9), (3, 2), {"pads": (0, 1, 2, 0)}),
    "dilated": ((9, 8), (3, 2), {"dilations": (2, 3), "pads": (1, 2, 3, 1)}),
    "dilated-strided": ((9, 8), (2, 3), {"dilations": (3, 2), "strides": (1, 3), "pads": (2, 1, 1, 2)}),
    "whole-picture": ((5, 4), (5, 4), {}),
    "one-pixel": ((3, 5), (1, 1), {"strides": (2, 2)}),
}


@pytest.mark.parametrize("inner", [False, True], ids=["input", "inner"])
@pytest.mark.parametrize("name", WINDOWS)
def test_max_pool_is_exact(name: str, inner: bool) -> None:
    """The largest of what a window meets, to the bit; behind a convolution and in front of a padded one."""
    picture, kernel, fields = WINDOWS[name]
    net = Net()
    x = net.input(ISA.lanes + 3, *picture)
    pooled = net.pool("max", x, kernel, **fields)
    outputs = (pooled, net.conv(pooled, 3, (3, 3), pads=(1, 2, 3, 4))) if inner else (pooled,)
    graph = net.graph(*outputs)
    inputs = random_inputs(graph, 2)
    got, expected = run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs)
    np.testing.assert_array_equal(got[0], expected[0])
    if inner:
        assert np.abs(got[1] - expected[1]).max() <= 9 * (ISA.lanes + 6) * UNIT_ROUNDOFF * np.abs(expected[1]).max()


def test_max_pool_over_padding_alone() -> None:
    """A window without a pixel gives -inf, as the twin does, and reads nothing."""
    net = Net()
    graph = net.graph(net.pool("max", net.input(3, 2, 3), (2, 2), pads=(3, 2, 2, 4)))
    inputs = random_inputs(graph, 2)
    np.testing.assert_array_equal(run_plan(plan_graph(graph, 3), inputs)[0], oracle(graph, inputs)[0])


@pytest.mark.parametrize("kernel", [(3, 2), (3, 3)])
def test_max_pool_keeps_every_nan(kernel: tuple[int, int]) -> None:
    """Wherever in the window the NaN stands."""
    net = Net()
    graph = net.graph(net.pool("max", net.input(2, 5, 6), kernel, pads=(1, 0, 1, 1)))
    for row, column in np.ndindex(5, 6):
        inputs = random_inputs(graph, 1)
        inputs["input0"][0, 1, row, column] = np.nan
        np.testing.assert_array_equal(run_plan(plan_graph(graph), inputs)[0], oracle(graph, inputs)[0])


@pytest.mark.parametrize("counted", [None, (1, 1, 1, 1), (0, 1, 2, 0)])
@pytest.mark.parametrize("name", WINDOWS)
def test_average_pool(name: str, counted: tuple[int, int, int, int] | None) -> None:
    """Sum by divisor; the divisor counts pixels inside the picture, or inside the pads that the model counts."""
    picture, kernel, fields = WINDOWS[name]
    counting: dict[str, Any] = {} if counted is None else {"count_include_pad": True, "counted_pads": counted}
    net = Net()
    graph = net.graph(net.pool("average", net.input(ISA.lanes + 3, *picture), kernel, **fields, **counting))
    inputs = random_inputs(graph, 2)
    (got,), (expected,) = run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs)
    largest = np.abs(inputs["input0"]).max()
    assert np.abs(got - expected).max() <= (kernel[0] * kernel[1] + 3) * UNIT_ROUNDOFF * largest


@pytest.mark.parametrize("keepdims", [True, False])
def test_global_average(keepdims: bool) -> None:
    net = Net()
    graph = net.graph(net.mean(net.input(ISA.lanes + 5, 9, 7), (2, 3), keepdims))
    assert "global_average" in kernels_of(graph)
    inputs = random_inputs(graph, 2)
    (got,), (expected,) = run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= (63 + 3) * UNIT_ROUNDOFF * np.abs(inputs["input0"]).max()


@pytest.mark.parametrize("shape", [(ISA.lanes + 3,), (ISA.lanes + 3, 4, 5)])
@pytest.mark.parametrize("build", [Net.batch_norm, lambda net, x: net.clip(x, -0.25, 0.5)], ids=["affine", "clip"])
def test_affine_and_clip(shape: tuple[int, ...], build: Callable[[Net, str], str]) -> None:
    net = Net()
    graph = net.graph(build(net, net.input(*shape)))
    inputs = random_inputs(graph, 2)
    (got,), (expected,) = run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs)
    largest = max(np.abs(array).max() for array in (*inputs.values(), *graph.constants.values()))
    assert np.abs(got - expected).max() <= 3 * UNIT_ROUNDOFF * (largest * largest + largest)


def test_clip_keeps_nan_and_meets_its_bounds() -> None:
    net = Net()
    graph = net.graph(net.clip(net.input(3, 2, 2), 0.0, 6.0))
    inputs = random_inputs(graph, 2)
    inputs["input0"][0, 0] = [[np.nan, np.inf], [-np.inf, 7.0]]
    (got,) = run_plan(plan_graph(graph, 2), inputs)
    np.testing.assert_array_equal(got[0, 0], np.array([[np.nan, 6.0], [0.0, 6.0]], np.float32))
    np.testing.assert_array_equal(got, oracle(graph, inputs)[0].astype(np.float32))
