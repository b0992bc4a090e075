"""The caller's arrays into the arena and out again, to the bit: every kernel that moves them, in an arena of NaN.

What comes out is compared with what went in; the layout between is that of the op that reads the input.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from plan_runner import ISA, plan_graph, run_plan
from small_nets import Net, oracle, random_inputs

from backend.graph.ir import Graph


def moves_of(graph: Graph) -> set[str]:
    """The kernels of a plan that move the caller's arrays."""
    return {key.name for key in plan_graph(graph, 3).kernels if key.name.startswith(("import", "export"))}


def awkward(array: np.ndarray) -> np.ndarray:
    """The array with a NaN of its own payload, a negative zero, an infinity and a denormal number among its values."""
    bits = np.array([0x7FC12345, 0x80000000, 0xFF800000, 0x00000007], np.uint32)
    array.reshape(-1)[: min(4, array.size)] = bits[: array.size].view(np.float32)
    return array


def same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(
    "shape, moves",
    [
        ((640,), {"import_runs", "export_runs"}),
        ((8,), {"import_runs", "export_runs"}),
        ((7,), {"import_f32", "export"}),
        ((1,), {"import_f32", "export"}),
        ((5, 33), {"import_runs", "export_runs"}),
        ((9, 1), {"import_f32", "export_runs"}),
        ((1, 6, 10), {"import_f32", "export_runs"}),
        ((1, 6, 5), {"import_f32", "export"}),
        ((5, 6, 10), {"import_f32", "export"}),
        ((512, 1, 1), {"import_runs", "export_runs"}),
        ((512, 1, 2), {"import_f32", "export"}),
    ],
)
def test_what_goes_in_comes_out(shape: tuple[int, ...], moves: set[str]) -> None:
    """A reshape to the same shape, which pads channels on its way: neighbours go as runs, others one by one."""
    net = Net()
    graph = net.graph(net.reshape(net.input(*shape), -1, *shape))
    assert moves_of(graph) == moves
    inputs = {name: awkward(array) for name, array in random_inputs(graph, 3).items()}
    same_bits(run_plan(plan_graph(graph, 3), inputs)[0], inputs["input0"])


@pytest.mark.parametrize("width", [1, 2, ISA.lanes - 1, ISA.lanes, ISA.lanes + 1, 3 * ISA.lanes + 2])
def test_three_planes_become_pixels(width: int) -> None:
    """Widths below, at and above whole vectors; the convolution behind reads pixels of three channels and a halo."""
    picks = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        picks[channel, channel, 1, 1] = 1
    net = Net()
    x = net.input(3, 5, width)
    graph = net.graph(net.conv(x, 3, (3, 3), pads=(1, 1, 1, 1), bias=False, weight=picks))
    assert "import_planes_3" in moves_of(graph)
    inputs = random_inputs(graph, 3)
    np.testing.assert_array_equal(run_plan(plan_graph(graph, 3), inputs)[0], inputs["input0"])


@pytest.mark.parametrize(
    "build",
    [
        lambda net: net.conv(net.input(1, 12, 9), 4, (3, 3), pads=(1, 0, 2, 1)),
        lambda net: net.conv(net.input(3, 12, 2 * ISA.lanes + 5), 4, (3, 3), pads=(1, 0, 2, 1)),
        lambda net: net.conv(net.input(3, 40, 40), 4, (2, 2), strides=(2, 2)),
        lambda net: net.dense(net.input(19), 21),
    ],
    ids=["one-channel", "three-channels", "several-units", "dense"],
)
def test_before_what_computes(build: Callable[[Net], str]) -> None:
    """Fast moves in front of convolutions with padding and dense layers, one image and several."""
    net = Net()
    graph = net.graph(build(net))
    assert moves_of(graph) & {"import_runs", "import_planes_3"}
    for images in (1, 3):
        inputs = random_inputs(graph, images)
        (got,), (expected,) = run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_integers_go_out_one_by_one() -> None:
    """Indices are float32 in the arena and int64 outside."""
    net = Net()
    graph = net.graph(net.argmax(net.input(5, 9), 1, keepdims=False))
    inputs = random_inputs(graph, 2)
    (got,) = run_plan(plan_graph(graph, 2), inputs)
    assert got.dtype == np.int64 and "export" in moves_of(graph)
    np.testing.assert_array_equal(got, inputs["input0"].argmax(axis=1))
