"""conv_winograd against the NumPy twin, within the error bound of the algorithm, which exceeds a direct sum's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_runner import ISA, MACHINE, plan_graph, run_plan
from small_nets import Net, oracle, random_inputs
from winograd_bound import BFLOAT16, LAVIN_AND_GRAY, Matrices, gamma, magnitude

from backend.graph.ir import Graph
from backend.machine import Machine
from backend.plan import winograd
from backend.plan.choices import WinogradChoice
from backend.plan.planner import make_plan
from backend.simd.isa import Tile

TILES = [pytest.param(tile, id=str(tile)) for tile in (ISA.tiles[0], *ISA.tiles[-2:])]


def error_bound(graph: Graph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """How far float32 may be from the exact result, element by element."""
    (op,) = graph.ops
    return gamma(graph.values[op.x].shape[1]) * magnitude(graph, inputs, LAVIN_AND_GRAY)


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd wherever it can be done, also where the estimate says that it does not pay."""
    monkeypatch.setattr(winograd, "pays", lambda *_: True)


def planned(graph: Graph, max_batch: int, machine: Machine = MACHINE) -> Any:
    plan = plan_graph(graph, max_batch, machine)
    assert "conv_winograd" in {key.name for key in plan.kernels}
    return plan


def conv(channels: int, picture: tuple[int, int], filters: int, **fields: Any) -> Graph:
    """A convolution of a value with padded channels; residual: the model's input of the output's shape, if asked."""
    net = Net()
    x = net.input(channels, *picture)
    if fields.pop("residual", False):
        fields["residual"] = net.input(filters, *picture)
    return net.graph(net.conv(x, filters, (3, 3), **{"pads": (1, 1, 1, 1)} | fields))


def assert_within_bound(graph: Graph, inputs: dict[str, np.ndarray], got: list[np.ndarray]) -> None:
    error, bound = np.abs(got[0] - oracle(graph, inputs)[0]), error_bound(graph, inputs)
    assert (error <= bound).all(), f"off by {(error / bound).max():.3g} times the bound"


@pytest.mark.parametrize("matrices", [LAVIN_AND_GRAY, BFLOAT16], ids=["f32", "bf16"])
def test_the_identity_of_the_algorithm(matrices: Matrices) -> None:
    """A' [(G g G') * (B' d B)] A is the correlation of d and g: the matrices that the bound uses are the right ones."""
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
    expected = [[np.sum(d[i : i + 3, j : j + 3] * g) for j in range(4)] for i in range(4)]
    m = (matrices.g @ g @ matrices.g.T) * (matrices.b.T @ d @ matrices.b)
    np.testing.assert_allclose(matrices.a.T @ m @ matrices.a, expected, atol=1e-12)


CASES: dict[str, tuple[int, tuple[int, int], int, dict[str, Any]]] = {
    "one-patch": (16, (4, 4), 16, {}),
    "odd-channels": (2 * ISA.lanes, (8, 12), 37, {}),
    "one-filter": (ISA.lanes, (4, 8), 1, {}),
    "clipped": (ISA.lanes, (8, 8), 20, {"low": -0.5, "high": 0.75}),
    "residual": (ISA.lanes, (8, 4), 21, {"residual": True, "low": 0.0}),
    "no-padding": (ISA.lanes, (10, 6), 18, {"pads": (0, 0, 0, 0)}),
    "one-sided": (ISA.lanes, (4, 10), 18, {"pads": (2, 0, 0, 0)}),
    "wide-padding": (ISA.lanes, (3, 4), 18, {"pads": (3, 2, 4, 4)}),
    "no-bias": (ISA.lanes, (8, 8), 18, {"bias": False}),
    "overhang": (ISA.lanes, (7, 14), 18, {"residual": True, "low": 0.0}),
    "overhang-without-padding": (ISA.lanes, (11, 5), 18, {"pads": (0, 0, 0, 0)}),
    "smaller-than-a-patch": (ISA.lanes, (1, 3), 16, {}),
    "deep": (20 * ISA.lanes, (8, 8), 2 * ISA.lanes, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_winograd_within_its_error_bound(name: str) -> None:
    channels, picture, filters, fields = CASES[name]
    graph = conv(channels, picture, filters, **fields)
    inputs = random_inputs(graph, 2)
    assert_within_bound(graph, inputs, run_plan(planned(graph, 3), inputs))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("l2_bytes", [1 << 10, 256 << 10])
def test_tiles_and_units_change_no_bit(tile: Tile, l2_bytes: int) -> None:
    """One patch per unit or many, each register tile, two threads: the bits of the plan that would be chosen."""
    filters = 2 * int(np.lcm.reduce([tile.nr for tile in ISA.tiles])) * ISA.lanes
    graph = conv(ISA.lanes, (7, 12), filters, residual=True, low=0.0)
    inputs = random_inputs(graph, 2)
    expected = run_plan(planned(graph, 3), inputs)
    machine = replace(MACHINE, isa=replace(ISA, tiles=(tile,)), l2_bytes=l2_bytes)
    for threads in {1, min(2, MACHINE.cores)}:
        got = run_plan(planned(graph, 3, machine), inputs, threads)
        assert got[0].tobytes() == expected[0].tobytes(), f"{threads} threads"


@pytest.mark.parametrize("mc, nc_panels", [(1, 1), (5, 2), (18, 3), (18, 4), (7, 5)])
def test_every_cut_into_units_changes_no_bit(mc: int, nc_panels: int) -> None:
    """Five panels of one vector, by blocks of patches and of panels that divide neither; halo and residual included."""
    narrow = next(tile for tile in ISA.tiles if tile.nr == 1)
    net = Net()
    x = net.input(ISA.lanes, 11, 12)
    y = net.conv(x, 5 * ISA.lanes, (3, 3), pads=(1, 1, 1, 1), residual=net.conv(x, 5 * ISA.lanes), low=0.0)
    graph = net.graph(net.conv(y, 3, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2)))
    record, name = planned(graph, 2).record, graph.ops[1].name
    inputs = random_inputs(graph, 2)
    results = []
    for choice in (WinogradChoice(narrow, 18, 5), WinogradChoice(narrow, mc, nc_panels)):
        saved = replace(record, nodes=record.nodes | {name: choice})
        results.append(run_plan(make_plan(graph, MACHINE, 2, saved=saved), inputs, 2)[0].tobytes())
    assert results[0] == results[1]


def test_padding_lanes_and_halo_of_the_input_do_not_leak() -> None:
    """An input with padding lanes (full of NaN here), and a padded convolution behind: both halos are zeros."""
    net = Net()
    first = net.conv(net.input(5, 8, 8), 7, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    second = net.conv(first, 6, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    graph = net.graph(net.conv(second, 4, (3, 3), pads=(2, 1, 1, 2), strides=(2, 2)))
    inputs = random_inputs(graph, 2)
    (got,), (expected,) = run_plan(planned(graph, 2), inputs), oracle(graph, inputs)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_batch_and_place_change_no_bit() -> None:
    graph = conv(ISA.lanes, (4, 8), 24)
    inputs = random_inputs(graph, 5)
    expected = run_plan(planned(graph, 5), inputs)[0]
    for max_batch in (1, 2, 4):
        plan = planned(graph, max_batch)
        for start in range(0, 5, max_batch):
            part = slice(start, start + max_batch)
            got = run_plan(plan, {name: array[part] for name, array in inputs.items()})[0]
            assert got.tobytes() == expected[part].tobytes(), f"max_batch {max_batch}, images from {start}"


@pytest.mark.parametrize(
    "picture, kernel, fields",
    [
        ((8, 8), (3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        ((8, 8), (3, 3), {"dilations": (2, 2), "pads": (2, 2, 2, 2)}),
        ((8, 8), (3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
        ((8, 8), (1, 1), {}),
    ],
    ids=["strided", "dilated", "grouped", "1x1"],
)
def test_what_winograd_cannot_do_is_left_to_others(
    picture: tuple[int, int], kernel: tuple[int, int], fields: Any
) -> None:
    net = Net()
    graph = net.graph(net.conv(net.input(2 * ISA.lanes, *picture), 16, kernel, **fields))
    assert "conv_winograd" not in {key.name for key in plan_graph(graph, 1).kernels}


def test_padding_by_other_values_than_zero_in_front() -> None:
    """What a Pad writes around its picture is no zero that overhanging patches may read: 5x5 pixels run direct."""
    net = Net()
    padded = net.pad(net.input(ISA.lanes, 5, 5), (0, 0), (0, 0), (1, 1), (1, 1), value=1.0)
    graph = net.graph(net.conv(padded, 16, (3, 3)))
    inputs = random_inputs(graph, 2)
    (got,), (expected,) = run_plan(plan_graph(graph, 2), inputs), oracle(graph, inputs)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
