"""conv_gemm, tile by tile and block by block, against the NumPy twin; what may not change a bit is held to the bit.

Every run happens in an arena full of NaN between guards (`plan_runner`), so each of these tests also shows that the
kernel reads nothing that was not written and writes nothing outside its picture.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_runner import ISA, MACHINE, plan_graph, run_plan
from small_nets import Net, oracle, random_inputs, sum_of_products_bound

from backend.graph.ir import Graph
from backend.kernels.gemm_tile import UNROLL
from backend.machine import Machine
from backend.plan.plan import Plan
from backend.simd.isa import Tile

TILES = [pytest.param(tile, id=str(tile)) for tile in ISA.tiles]


def only(tile: Tile) -> Machine:
    """This machine with one register tile to choose from; it covers channel counts that fill its panels."""
    return replace(MACHINE, isa=replace(ISA, tiles=(tile,)))


def conv_graph(channels: int, picture: tuple[int, int], filters: int, kernel: tuple[int, int], **fields: Any) -> Graph:
    net = Net()
    return net.graph(net.conv(net.input(channels, *picture), filters, kernel, **fields))


def gemm_steps(plan: Plan) -> list[int]:
    return [i for i, step in enumerate(plan.steps) if plan.kernels[step["kernel"]].name == "conv_gemm"]


def with_blocks(plan: Plan, index: int, blocks: dict[str, int]) -> Plan:
    """The plan with the cache blocks of one step overridden: they are numbers in its record."""
    steps = plan.steps.copy()
    for key, value in blocks.items():
        steps[key][index] = value
    return replace(plan, steps=steps)


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return [x.tobytes() for x in a] == [y.tobytes() for y in b]


def assert_near_oracle(graph: Graph, inputs: dict[str, np.ndarray], got: list[np.ndarray], terms: int) -> None:
    error = np.abs(got[0] - oracle(graph, inputs)[0])
    bound = sum_of_products_bound(graph, inputs, terms)
    worst = np.unravel_index(np.argmax(error - bound), error.shape)
    assert (error <= bound).all(), f"off by {error[worst]:.3g} at {worst}, where {bound[worst]:.3g} is the bound"


@pytest.mark.parametrize("tile", TILES)
def test_every_tile_at_every_edge(tile: Tile) -> None:
    """M and N below, at and above the tile, K around the unrolled loop: each element within its error bound."""
    width = tile.nr * ISA.lanes
    pixels = sorted({1, max(1, tile.mr - 1), tile.mr, tile.mr + 1, 2 * tile.mr, 23})
    channels = [width, width - 1, width - ISA.lanes + 1, 2 * width - 3]
    depths = [1, UNROLL - 1, UNROLL, UNROLL + 1, 13]
    failures = []
    cases = list(itertools.product(pixels, channels, depths))
    for m, n, k in cases:
        graph = conv_graph(k, (1, m), n, (1, 1))
        inputs = random_inputs(graph, 1)
        got = run_plan(plan_graph(graph, 1, only(tile)), inputs)
        try:
            assert_near_oracle(graph, inputs, got, k)
        except AssertionError as error:
            failures.append(f"M={m} N={n} K={k}: {error}")
    assert not failures, "\n".join([*failures[:3], f"{len(failures)} of {len(cases)} failed"])


@pytest.mark.parametrize("tile", TILES)
def test_identity_weights_copy_exactly(tile: Tile) -> None:
    """1 * x is x and adding zeros changes nothing, so packing and channel order show without rounding."""
    width = tile.nr * ISA.lanes
    net = Net()
    x = net.input(width, 3, 5)
    graph = net.graph(net.conv(x, width, bias=False, weight=np.eye(width).reshape(width, width, 1, 1)))
    inputs = random_inputs(graph, 2)
    assert same_bits(run_plan(plan_graph(graph, 2, only(tile)), inputs), [inputs["input0"]])


def test_identity_tap_shifts_the_picture_and_pads_with_zeros() -> None:
    """A 3x3 filter with a single one moves the picture; what comes in from outside is zero."""
    for r, s in itertools.product(range(3), repeat=2):
        weight = np.zeros((5, 5, 3, 3), np.float32)
        weight[np.arange(5), np.arange(5), r, s] = 1
        net = Net()
        graph = net.graph(net.conv(net.input(5, 6, 7), 5, (3, 3), pads=(1, 1, 1, 1), bias=False, weight=weight))
        inputs = random_inputs(graph, 2)
        padded = np.pad(inputs["input0"], ((0, 0), (0, 0), (1, 1), (1, 1)))
        (got,) = run_plan(plan_graph(graph, 2), inputs)
        np.testing.assert_array_equal(got, padded[:, :, r : r + 6, s : s + 7], err_msg=f"tap {r}, {s}")


def test_all_tiles_give_the_same_bits() -> None:
    """Each output element is one chain of multiply-adds in one order, whatever the tile."""
    filters = int(np.lcm.reduce([tile.nr for tile in ISA.tiles])) * ISA.lanes
    graph = conv_graph(6, (5, 7), filters, (3, 3), pads=(1, 1, 1, 1), low=-0.5, high=1.0)
    inputs = random_inputs(graph, 2)
    results = [run_plan(plan_graph(graph, 2, only(tile)), inputs) for tile in ISA.tiles]
    differing = [
        str(tile) for tile, result in zip(ISA.tiles, results, strict=True) if not same_bits(result, results[0])
    ]
    assert not differing, f"tiles {differing} differ from {ISA.tiles[0]}"


def blockings(mr: int, taps: int, depth: int) -> list[dict[str, int]]:
    """Every kind of cut: M and N in either loop order, K by taps and by depth where panels are outside."""
    units = [{"mc": mc * mr, "nc_panels": nc} for mc in (1, 2, 1000) for nc in (1, 2, 1000)]
    cuts = [{"kc_taps": t, "kc_depth": depth} for t in range(1, taps + 1)]
    cuts += [{"kc_taps": 1, "kc_depth": k} for k in (1, 2, UNROLL, depth - 1) if 0 < k < depth]
    inside = [{**unit, "kc_taps": taps, "kc_depth": depth, "panels_outside": 0} for unit in units]
    return inside + [{**unit, **cut, "panels_outside": 1} for unit in units for cut in cuts]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("packed", [True, False], ids=["row-taps", "pixel-taps"])
def test_no_blocking_changes_a_bit(tile: Tile, packed: bool) -> None:
    """Every cut, over three panels and a ragged last tile, with residual and clip, for two images of three.

    row-taps: a filter row is contiguous in the unpadded input and makes one tap; pixel-taps: each pixel makes one.
    """
    filters = 3 * tile.nr * ISA.lanes - 1
    net = Net()
    x = net.input(7, 3, 6)
    source = x if packed else net.conv(x, tile.nr * ISA.lanes - 1)
    residual = net.conv(x, filters)
    y = net.conv(source, filters, (2, 3), pads=(1, 1, 0, 1), residual=residual, low=0.0, high=1.5)
    graph = net.graph(y)
    inputs = random_inputs(graph, 2)
    plan = plan_graph(graph, 3, only(tile))
    index = gemm_steps(plan)[-1]
    expected = run_plan(plan, inputs)
    cases = blockings(tile.mr, int(plan.steps["tap_count"][index]), int(plan.steps["depth"][index]))
    assert int(plan.steps["tap_count"][index]) == (2 if packed else 6)
    failures = [
        blocks for blocks in cases if not same_bits(run_plan(with_blocks(plan, index, blocks), inputs), expected)
    ]
    assert not failures, f"{failures[:3]}: {len(failures)} of {len(cases)} differ"


def test_tiny_caches_change_no_bit() -> None:
    """Blocks chosen for a machine with next to no cache cut every loop; results stay."""
    net = Net()
    x = net.input(20, 9, 8)
    dilated = net.conv(x, 150, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), low=0.0)  # not a layer for Winograd
    graph = net.graph(net.conv(dilated, 70, (3, 3), strides=(2, 2)))
    inputs = random_inputs(graph, 3)
    expected = run_plan(plan_graph(graph, 3), inputs)
    for l2_bytes in (256, 4 << 10, 64 << 10):
        plan = plan_graph(graph, 3, replace(MACHINE, l2_bytes=l2_bytes, l1d_bytes=l2_bytes // 4, l3_bytes=2 * l2_bytes))
        assert any(plan.steps["panels_outside"]), f"{l2_bytes} bytes of L2 hold all weights: nothing is tested"
        assert same_bits(run_plan(plan, inputs), expected), f"L2 of {l2_bytes} bytes"


GEOMETRIES: dict[str, tuple[int, tuple[int, int], int, tuple[int, int], dict[str, Any]]] = {
    "1x1": (19, (5, 7), 33, (1, 1), {}),
    "1x1-strided": (19, (5, 7), 33, (1, 1), {"strides": (2, 3)}),
    "3x3-same": (5, (6, 9), 20, (3, 3), {"pads": (1, 1, 1, 1)}),
    "3x3-valid-strided": (5, (8, 9), 20, (3, 3), {"strides": (2, 2)}),
    "asymmetric-pads": (4, (7, 8), 18, (3, 3), {"pads": (0, 2, 1, 0), "strides": (2, 1)}),
    "pads-beyond-the-kernel": (3, (2, 3), 17, (2, 2), {"pads": (3, 2, 4, 5)}),
    "dilated": (4, (9, 11), 16, (3, 2), {"dilations": (2, 3), "pads": (2, 2, 2, 2)}),
    "dilated-rows": (4, (9, 11), 16, (3, 2), {"dilations": (3, 1), "strides": (1, 2)}),
    "7x7-stem": (3, (23, 21), 64, (7, 7), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
    "10x4-stem": (1, (17, 10), 24, (10, 4), {"strides": (2, 2), "pads": (4, 1, 5, 1)}),
    "one-channel": (1, (4, 5), 1, (3, 3), {"pads": (1, 1, 1, 1)}),
    "many-channels": (67, (3, 3), 131, (3, 3), {"pads": (1, 1, 1, 1)}),
    "1x1-picture": (33, (1, 1), 17, (1, 1), {}),
    "groups": (12, (5, 6), 10, (3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    "groups-of-whole-vectors": (8, (5, 6), 4 * ISA.lanes, (3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    "multiplier": (5, (5, 6), 15, (3, 3), {"group": 5, "pads": (1, 1, 1, 1), "strides": (2, 1)}),
    "groups-dilated": (6, (7, 8), 9, (2, 2), {"group": 3, "dilations": (2, 2)}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name: str) -> None:
    """Windows, pads, strides, dilations and groups, reading the model's input or a value with padded channels.

    The latter comes from a convolution that copies: its picture has padding lanes, and a halo that this kernel clears.
    """
    channels, picture, filters, kernel, fields = GEOMETRIES[name]
    terms = channels // fields.get("group", 1) * kernel[0] * kernel[1]
    graph = conv_graph(channels, picture, filters, kernel, **fields)
    inputs = random_inputs(graph, 2)
    direct = run_plan(plan_graph(graph, 3), inputs)
    assert_near_oracle(graph, inputs, direct, terms)
    net = Net()  # of the same seed, hence the same weights
    copied = net.conv(net.input(channels, *picture), channels, bias=False, weight=np.eye(channels)[:, :, None, None])
    behind = net.graph(net.conv(copied, filters, kernel, **fields))
    assert same_bits(run_plan(plan_graph(behind, 3), inputs), direct), "the order of summation depends on the layout"


@pytest.mark.parametrize("group", [1, 3])
def test_residual_and_clip(group: int) -> None:
    """clip(convolution + residual): the residual may be the input itself, padded otherwise than the output."""
    net = Net()
    x = net.input(9, 6, 5)
    graph = net.graph(net.conv(x, 9, (3, 3), pads=(1, 1, 1, 1), group=group, residual=x, low=-0.25, high=0.5))
    inputs = random_inputs(graph, 2)
    got = run_plan(plan_graph(graph, 3), inputs)
    assert_near_oracle(graph, inputs, got, 9 * 9 // group)
    assert got[0].min() == np.float32(-0.25) and got[0].max() == np.float32(0.5)


@pytest.mark.parametrize("low, high", [(0.0, np.inf), (0.0, 6.0), (-np.inf, np.inf)])
def test_nan_and_infinity_pass_the_clip_as_they_should(low: float, high: float) -> None:
    """A NaN stays a NaN through ReLU and ReLU6, infinities meet the bounds, and neither touches other pixels. A cut of
    K changes no bit of either."""
    net = Net()
    graph = net.graph(net.conv(net.input(4, 3, 5), 20, low=low, high=high))
    inputs = random_inputs(graph, 2)
    clean = run_plan(plan_graph(graph, 2), inputs)[0]
    inputs["input0"][0, 1, 2, 3] = np.nan
    inputs["input0"][1, 2, 0, 0] = np.inf
    inputs["input0"][1, 3, 1, 1] = -np.inf
    plan = plan_graph(graph, 2)
    got = run_plan(plan, inputs)[0]
    expected = oracle(graph, inputs)[0]
    for depth in (1, 2, 3):
        cut = with_blocks(plan, gemm_steps(plan)[-1], {"panels_outside": 1, "kc_taps": 1, "kc_depth": depth})
        assert same_bits(run_plan(cut, inputs), [got]), f"kc_depth {depth}"
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    for value in (low, high):
        np.testing.assert_array_equal(got == value, expected == value)
    touched = np.zeros(clean.shape, bool)
    for image, row, column in ((0, 2, 3), (1, 0, 0), (1, 1, 1)):
        touched[image, :, row, column] = True
    assert np.isnan(got[0, :, 2, 3]).all()
    np.testing.assert_array_equal(got[~touched], clean[~touched])


def test_dense_on_matrices_and_stacks() -> None:
    """Dense over [N, K] and [N, A, K], fixed shapes too, with residual and clip."""
    for shape, batch in (((37,), -1), ((4, 37), -1), ((37,), 5), ((3, 37), 2)):
        net = Net()
        x = net.input(*shape, batch=batch)
        residual = net.input(*shape[:-1], 21, batch=batch)
        graph = net.graph(net.dense(x, 21, residual=residual, low=-1.0, high=2.0))
        inputs = random_inputs(graph, 2)
        plan = plan_graph(graph, 3 if batch == -1 else 1)
        assert_near_oracle(graph, inputs, run_plan(plan, inputs), 37)


def test_dense_identity_is_exact() -> None:
    net = Net()
    graph = net.graph(net.dense(net.input(50), 50, bias=False, weight=np.eye(50)))
    inputs = random_inputs(graph, 3)
    assert same_bits(run_plan(plan_graph(graph, 3), inputs), [inputs["input0"]])


def test_one_long_sum_stays_in_its_bound() -> None:
    """K = 6151, a prime beyond every block: the error grows as the bound says."""
    net = Net()
    graph = net.graph(net.dense(net.input(6151), 18))
    inputs = random_inputs(graph, 1)
    assert_near_oracle(graph, inputs, run_plan(plan_graph(graph, 1), inputs), 6151)


@pytest.mark.parametrize("channels", [512, 1024])
def test_wide_pictures_whose_pixels_are_spread(channels: int) -> None:
    """Through every kind of reader: 1x1, 3x3, residual, pooling, reshape, and as an output, for several images."""
    net = Net()
    wide = net.conv(net.input(6, 3, 5), channels, low=0.0)
    inner = net.conv(net.conv(wide, 8, (3, 3), pads=(1, 1, 1, 1)), channels, residual=wide)
    pooled = net.pool("max", inner, (2, 2))
    flat = net.reshape(net.mean(pooled, (2, 3)), -1, channels)
    graph = net.graph(inner, pooled, net.dense(flat, 5), net.reshape(pooled, -1, channels * 2 * 4))
    inputs = random_inputs(graph, 3)
    for got, want in zip(run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())
