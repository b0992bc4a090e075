"""bf16 plans kernel by kernel, by its instructions if the CPU has them or emulated, against the twins in float64.

Operands are rounded to bfloat16 beforehand, by ml_dtypes, so that a kernel has nothing to round but its result. A
graph's outputs are float32; where the rounded result is to be seen, a convolution by the identity follows.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from plan_runner import ISA, MACHINE, plan_graph, run_plan, with_extensions
from small_nets import Net, oracle, random_inputs, sum_of_products_bound
from winograd_bound import BFLOAT16, gamma, magnitude

from backend.graph.ir import Conv, Dense, Graph
from backend.kernels.gemm_tile import UNROLL
from backend.machine import Machine
from backend.pixels import PixelInput
from backend.plan import winograd
from backend.plan.plan import Plan
from backend.plan.planner import make_plan
from backend.simd.element import to_bfloat16
from backend.simd.isa import AVX512_BF16, NEON_BF16, Tile

ROUNDOFF = 2.0**-8
"""Unit in the last place of bfloat16, twice its unit roundoff: as far as a rounded sum may be from an exact one."""

TILES = [pytest.param(tile, id=str(tile)) for tile in ISA.tiles]
MACHINES = [pytest.param(MACHINE, id="all-extensions")]
if {AVX512_BF16, NEON_BF16} & set(ISA.extensions):
    MACHINES.append(pytest.param(with_extensions(), id="emulated"))
every_machine = pytest.mark.parametrize("machine", MACHINES)


def rounded(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # what rounds to an infinity, NaNs
        return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def rounded_graph(graph: Graph) -> Graph:
    return replace(graph, constants={name: rounded(array) for name, array in graph.constants.items()})


def rounded_inputs(graph: Graph, images: int) -> dict[str, np.ndarray]:
    return {name: rounded(array) for name, array in random_inputs(graph, images).items()}


def plan(graph: Graph, max_batch: int = 1, machine: Machine = MACHINE) -> Plan:
    return plan_graph(graph, max_batch, machine, "bf16")


def only(tile: Tile, machine: Machine = MACHINE) -> Machine:
    return replace(machine, isa=replace(machine.isa, tiles=(tile,)))


def conv_graph(channels: int, picture: tuple[int, int], filters: int, kernel: tuple[int, int], **fields: Any) -> Graph:
    net = Net()
    return rounded_graph(net.graph(net.conv(net.input(channels, *picture), filters, kernel, **fields)))


def identity(net: Net, x: str) -> str:
    """A convolution that reads x, which is therefore bfloat16, and passes it on."""
    channels = net.shape(x)[1]
    return net.conv(x, channels, bias=False, weight=np.eye(channels, dtype=np.float32)[:, :, None, None])


def paired_roundings(graph: Graph) -> int:
    """BFDOT's roundings on the way of one product, in units of roundoff to nearest: its pair's sum, then the sum's for
    every pair, each to odd and so up to twice as far; half a pair counts as one."""
    (op,) = graph.ops
    assert isinstance(op, (Conv, Dense))
    shape = graph.constants[op.weight].shape
    pairs = -(-shape[0] // 2) if isinstance(op, Dense) else shape[2] * shape[3] * -(-shape[1] // 2)
    return 2 * (pairs + 1)


def assert_products_summed(
    graph: Graph, inputs: dict[str, np.ndarray], got: np.ndarray, terms: int, machine: Machine = MACHINE
) -> None:
    roundings = max(terms, paired_roundings(graph)) if NEON_BF16 in machine.isa.extensions else terms
    error, bound = np.abs(got - oracle(graph, inputs)[0]), sum_of_products_bound(graph, inputs, roundings)
    assert (error <= bound).all(), f"off by {(error / bound).max():.3g} times the bound"


def assert_rounded(got: np.ndarray, exact: np.ndarray, error: float = 1e-6) -> None:
    """Every element is what rounds from somewhere within a float32 error, relative to the largest, of the exact one."""
    slack = error * np.abs(exact).max()
    assert (got >= rounded((exact - slack).astype(np.float32))).all()
    assert (got <= rounded((exact + slack).astype(np.float32))).all()


# Rounding


def patterns() -> np.ndarray:
    """Every upper half of a float32 that is a number, with lower halves around the ties."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper[:, None] | lower[None, :]).ravel().view(np.float32)


def test_numpys_rounding_is_that_of_ml_dtypes() -> None:
    """All patterns: infinities, signs, NaNs that stay NaNs. Denormals become zeros of their sign, as on x86."""
    values = patterns()
    got = to_bfloat16(values).view(ml_dtypes.bfloat16)
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    nan, denormal = np.isnan(values), np.abs(values) < np.finfo(np.float32).tiny
    assert np.isnan(got[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(got[denormal].view(np.uint16), np.signbit(values[denormal]) * np.uint16(0x8000))
    plain = ~nan & ~denormal
    np.testing.assert_array_equal(got[plain].view(np.uint16), expected[plain].view(np.uint16))


@every_machine
@pytest.mark.parametrize("channels", [1, 3, 4, ISA.lanes], ids=["runs", "planes", "elements", "vectors"])
def test_the_kernels_rounding_is_numpys(channels: int, machine: Machine) -> None:
    """Inputs as a convolution by the identity sees them: written as runs, planes or elements, by whole vectors too.

    Infinities are left out where 0 * inf from another channel would be added.
    """
    values = patterns()
    values = values[np.isfinite(rounded(values)) if channels > 1 else ~np.isnan(values)]
    width = 256
    values = values[: len(values) // (channels * width) * channels * width]
    net = Net()
    x = net.input(channels, len(values) // (channels * width), width)
    y = net.clip(x, -np.inf, np.inf) if channels == ISA.lanes else x
    graph = net.graph(identity(net, y))
    picture = values.reshape(1, -1, width, channels).transpose(0, 3, 1, 2)
    (got,) = run_plan(plan(graph, machine=machine), {"input0": picture})
    expected = (to_bfloat16(picture).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(got, expected)


def test_pixels_come_through_a_rounded_table() -> None:
    net = Net()
    graph = net.graph(identity(net, net.input(3, 16, 48)))
    pixels = PixelInput.affine((123.68, 116.78, 103.94), 1 / 57)
    made = make_plan(graph, MACHINE, 1, pixels, precision="bf16")
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 48, 3), np.uint8)
    (got,) = run_plan(replace(made, steps=made.pixel_steps), {"input0": images})
    expected = np.stack([rounded(pixels.table)[c][images[..., c]] for c in range(3)], axis=1)
    np.testing.assert_array_equal(got, expected)


# GEMM


@every_machine
@pytest.mark.parametrize("tile", TILES)
def test_every_tile_at_every_edge(tile: Tile, machine: Machine) -> None:
    """M and N around the tile, K around pairs and the unrolled loop: results within the bound of float32 sums."""
    width = tile.nr * ISA.lanes
    pixels = sorted({1, max(1, tile.mr - 1), tile.mr + 1, 23})
    depths = [1, 2, 3, 2 * UNROLL - 1, 2 * UNROLL, 2 * UNROLL + 1, 27]
    for m, n, k in itertools.product(pixels, (width, 2 * width - 3), depths):
        graph = conv_graph(k, (1, m), n, (1, 1))
        inputs = rounded_inputs(graph, 1)
        got = run_plan(plan(graph, 1, only(tile, machine)), inputs)[0]
        assert_products_summed(graph, inputs, got, k, machine)


GEOMETRIES: dict[str, tuple[int, tuple[int, int], int, tuple[int, int], dict[str, Any]]] = {
    "3x3-same": (5, (6, 9), 20, (3, 3), {"pads": (1, 1, 1, 1)}),
    "odd-rows-strided": (3, (8, 9), 20, (3, 3), {"strides": (2, 2)}),
    "7x7-stem": (3, (23, 21), 64, (7, 7), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
    "dilated": (4, (9, 11), 16, (3, 2), {"dilations": (2, 3), "pads": (2, 2, 2, 2)}),
    "groups": (9, (5, 6), 12, (3, 3), {"group": 3, "pads": (1, 1, 1, 1), "low": -0.5, "high": 1.0}),
    "512-channels": (512, (3, 2), 17, (1, 1), {}),
    "1024-channels": (1024, (3, 2), 17, (1, 1), {}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name: str) -> None:
    channels, picture, filters, kernel, fields = GEOMETRIES[name]
    terms = channels // fields.get("group", 1) * kernel[0] * kernel[1]
    graph = conv_graph(channels, picture, filters, kernel, **fields)
    inputs = rounded_inputs(graph, 2)
    direct = run_plan(plan(graph, 3), inputs)[0]
    assert_products_summed(graph, inputs, direct, terms)
    net = Net()  # of the same seed, hence the same weights; the input has padding lanes full of NaN, and pitches
    behind = rounded_graph(net.graph(net.conv(identity(net, net.input(channels, *picture)), filters, kernel, **fields)))
    assert_products_summed(graph, inputs, run_plan(plan(behind, 3), inputs)[0], terms)


def test_results_are_rounded_once() -> None:
    """Convolution, residual and clip in float32, then one rounding."""
    net = Net()
    x = net.input(24, 6, 5)
    graph = rounded_graph(net.graph(net.conv(x, 24, (3, 3), pads=(1, 1, 1, 1), residual=x, low=-0.25, high=2.0)))
    net = Net()
    x = net.input(24, 6, 5)
    y = net.conv(x, 24, (3, 3), pads=(1, 1, 1, 1), residual=x, low=-0.25, high=2.0)
    stored = rounded_graph(net.graph(identity(net, y)))
    inputs = rounded_inputs(graph, 2)
    assert_rounded(run_plan(plan(stored, 2), inputs)[0], oracle(graph, inputs)[0])


def gemm_step(made: Plan) -> int:
    return next(i for i, step in enumerate(made.steps) if made.kernels[step["kernel"]].name == "conv_gemm")


@pytest.mark.parametrize("tile", TILES)
def test_tiny_caches_change_no_bit(tile: Tile) -> None:
    """K is cut, and sums of float32 wait for the next block outside of a bfloat16 y: what comes out stays."""
    net = Net()
    filters = 2 * tile.nr * ISA.lanes
    dilated = net.conv(net.input(20, 9, 8), filters, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), low=0.0)
    graph = net.graph(identity(net, dilated))
    inputs = random_inputs(graph, 3)
    expected = run_plan(plan(graph, 3), inputs)[0]
    for l2_bytes in (256, 4 << 10):
        machine = replace(only(tile), l2_bytes=l2_bytes, l1d_bytes=l2_bytes // 4, l3_bytes=2 * l2_bytes)
        made = plan(graph, 3, machine)
        step = made.steps[gemm_step(made)]
        assert step["kc_taps"] * step["kc_depth"] < step["tap_count"] * step["depth"], "nothing is tested"
        for threads in {1, min(2, MACHINE.cores)}:
            assert run_plan(made, inputs, threads)[0].tobytes() == expected.tobytes(), f"L2 of {l2_bytes} bytes"


# Other kernels


OPS: dict[str, Any] = {
    "depthwise-3x3": lambda net, x: net.conv(x, 20, (3, 3), pads=(1, 1, 1, 1), group=20, residual=x, low=0.0),
    "depthwise-5x5": lambda net, x: net.conv(x, 20, (5, 5), strides=(2, 1), pads=(2, 2, 2, 2), group=20),
    "average-pool": lambda net, x: net.pool("average", x, (3, 2), strides=(2, 1), pads=(1, 0, 1, 1)),
    "global-average": lambda net, x: net.mean(x, (2, 3)),
    "batch-norm": lambda net, x: net.batch_norm(x),
    "add": lambda net, x: net.binary("add", x, net.pool("max", x, (3, 3), pads=(1, 1, 1, 1)), low=0.0),
    "multiply-by-constant": lambda net, x: net.binary("mul", x, net.constant(net.random(20, 1, 1))),
    "softmax": lambda net, x: net.softmax(x, 1),
    "mean-over-channels": lambda net, x: net.mean(x, (1,)),
    "transpose": lambda net, x: net.transpose(x, 0, 2, 3, 1),
    "pad": lambda net, x: net.pad(x, (0, 0), (0, 0), (1, 2), (0, 1), value=0.5),
    "reshape": lambda net, x: net.reshape(x, -1, 10, 18, 7),
}


@pytest.mark.parametrize("name", OPS)
def test_ops_between_convolutions(name: str) -> None:
    """What lies between is read and written as bfloat16: float32 arithmetic, one rounding (depthwise filters and
    other constants are float32)."""
    net = Net()
    graph = net.graph(OPS[name](net, net.input(20, 9, 7)))
    net = Net()  # of the same seed, hence the same constants
    between = net.graph(identity(net, OPS[name](net, net.input(20, 9, 7))))
    inputs = rounded_inputs(graph, 3)
    assert_rounded(run_plan(plan(between, 3), inputs)[0], oracle(graph, inputs)[0])


def test_max_pool_is_exact() -> None:
    net = Net()
    x = net.input(20, 9, 7)
    pooled = net.pool("max", x, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    graph = net.graph(identity(net, pooled))
    inputs = rounded_inputs(graph, 2)
    np.testing.assert_array_equal(run_plan(plan(graph, 2), inputs)[0], oracle(graph, inputs)[0])


def test_what_no_layer_reads_stays_float32() -> None:
    """Logits and all behind them: not one of 100 logits has only eight bits by chance. Indices beyond 256 are right."""
    net = Net()
    logits = net.dense(net.mean(net.input(8, 3, 3), (2, 3), keepdims=False), 1000)
    graph = net.graph(logits, net.softmax(logits, 1), net.argmax(logits, 1))
    inputs = random_inputs(graph, 5)
    got = run_plan(plan(graph, 5), inputs)
    assert np.mean(got[0] == rounded(got[0])) < 0.05
    np.testing.assert_array_equal(got[2].ravel(), got[0].argmax(axis=1))
    shifted = np.exp(got[0].astype(np.float64) - got[0].max(axis=1, keepdims=True))
    np.testing.assert_allclose(got[1], shifted / shifted.sum(axis=1, keepdims=True), rtol=1e-5)


# Winograd


def winograd_graph(channels: int, size: int, filters: int, behind: bool) -> Graph:
    net = Net()
    y = net.conv(net.input(channels, size, size), filters, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    return rounded_graph(net.graph(identity(net, y) if behind else y))


@every_machine
@pytest.mark.parametrize("channels, size, filters", [(ISA.lanes, 9, 37), (4 * ISA.lanes, 14, 64), (256, 14, 32)])
def test_winograd_is_within_its_bound_and_near_the_direct_sum(
    channels: int, size: int, filters: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound: U and W are off by a relative 2^-9 each, all else is float32 arithmetic.

    Results are rounded to bfloat16 in either case, so the rounding inside is to be no more than a few times that.
    """
    alone, stored = (winograd_graph(channels, size, filters, behind) for behind in (False, True))
    inputs = rounded_inputs(alone, 1)
    exact = oracle(alone, inputs)[0]
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    direct = run_plan(plan(stored, machine=machine), inputs)[0]
    monkeypatch.setattr(winograd, "pays", lambda *_: True)
    made = plan(alone, machine=machine)
    assert {key.name for key in made.kernels} >= {"conv_winograd"}
    error = np.abs(run_plan(made, inputs)[0] - exact)
    bound = magnitude(alone, inputs, BFLOAT16) * (gamma(channels, in_a_line=7) + 2 * 2.0**-9 + 2.0**-18)
    assert (error <= bound).all(), f"off by {(error / bound).max():.3g} times the bound"

    def off(got: np.ndarray) -> float:
        return float(np.sqrt(np.mean((got - exact) ** 2) / np.mean(exact**2)))

    assert off(direct) <= ROUNDOFF / 2
    assert off(run_plan(plan(stored, machine=machine), inputs)[0]) <= 6 * off(direct)


@pytest.mark.parametrize("tile", [TILES[0], TILES[-1]])
def test_winograds_tiles_and_units_change_no_bit(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "pays", lambda *_: True)
    filters = 2 * int(np.lcm.reduce([tile.nr for tile in ISA.tiles])) * ISA.lanes
    graph = winograd_graph(ISA.lanes, 9, filters, behind=True)
    inputs = random_inputs(graph, 2)
    expected = run_plan(plan(graph, 2), inputs)[0]
    machine = replace(only(tile), l2_bytes=1 << 10)
    for threads in {1, min(2, MACHINE.cores)}:
        assert run_plan(plan(graph, 2, machine), inputs, threads)[0].tobytes() == expected.tobytes()
