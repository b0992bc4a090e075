"""Kernels of integers against their NumPy twin: equal, to the last bit, on every instruction set.

Every run happens in an arena full of leftovers between guards (`plan_runner`). Weights and activations take every value
of their types, so that sums of neighbouring products leave 16 bits often.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_runner import ISA, MACHINE, plan_graph, run_plan, with_extensions
from quantized_nets import LIMITS, QuantizedNet

from backend.graph.ir import (
    Dequantize,
    Graph,
    Pad,
    Pool,
    Quantization,
    Quantize,
    QuantizedAdd,
    QuantizedAverage,
    Reshape,
    Transpose,
    Value,
)
from backend.machine import Machine
from backend.reference import run_reference
from backend.simd.isa import AVX512_VNNI, AVX_VNNI, NEON_DOT, NEON_I8MM, Tile

TILES = [pytest.param(tile, id=str(tile)) for tile in ISA.tiles]
DTYPES = ["uint8", "int8"]
MACHINES = [pytest.param(MACHINE, id="all-extensions")]
if NEON_I8MM in ISA.extensions:
    MACHINES.append(pytest.param(with_extensions(NEON_DOT), id="no-i8mm"))
if {AVX512_VNNI, AVX_VNNI, NEON_DOT} & set(ISA.extensions):
    MACHINES.append(pytest.param(with_extensions(), id="no-extensions"))


def only(tile: Tile, machine: Machine) -> Machine:
    return replace(machine, isa=replace(machine.isa, tiles=(tile,)))


def assert_equal_to_twin(net: QuantizedNet, *outputs: str, images: int = 2, machine: Machine = MACHINE) -> None:
    graph = net.graph(*outputs)
    feeds = net.feeds(images)
    got = run_plan(plan_graph(graph, images, machine), feeds)
    for name, a, b in zip(outputs, got, run_reference(graph, feeds), strict=True):
        assert a.dtype == b.dtype
        differ = int((a.view(np.uint8) != b.view(np.uint8)).sum())
        assert differ == 0, f"{name}: {differ} of {a.size} differ"
        assert b.size < 9 or len(np.unique(b)) > 4, "all results are alike: a test of nothing"


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_tile(machine: Machine, tile: Tile, dtype: str) -> None:
    """Pixels and channels that leave rests; depth that is no multiple of a word; zero points inside the range."""
    zero = 3 if dtype == "int8" else 77
    for pixels in (tile.mr, tile.mr + 1):
        net = QuantizedNet(pixels)
        x = net.input(7, 1, pixels, dtype=dtype, zero_point=zero)
        out_zero = -5 if dtype == "int8" else 9
        y = net.conv(x, 2 * tile.nr * ISA.lanes, x_zero_point=zero, dtype=dtype, zero_point=out_zero)
        assert_equal_to_twin(net, y, machine=only(tile, machine))


def _random_conv(seed: int) -> tuple[QuantizedNet, str]:
    rng = np.random.default_rng(seed)
    net = QuantizedNet(seed)
    dtype, out = rng.choice(DTYPES), rng.choice([*DTYPES, "float32"])
    zero = int(rng.integers(LIMITS[dtype][0], LIMITS[dtype][1] + 1))
    group = int(rng.choice([1, 1, 1, 2]))
    channels, filters = group * int(rng.integers(1, 40)), group * int(rng.integers(1, 70))
    size = (int(rng.integers(5, 15)), int(rng.integers(5, 15)))
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    x = net.input(channels, *size, dtype=dtype, zero_point=zero)
    more: dict[str, Any] = {
        "strides": (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        "pads": tuple(int(pad) for pad in rng.integers(0, 2, 4)),
        "group": group,
    }
    out_zero = 0 if out == "float32" else int(rng.integers(LIMITS[out][0], LIMITS[out][1] + 1))
    first = net.conv(x, filters, kernel, x_zero_point=zero, **more)
    if rng.random() < 0.3:
        return net, first
    more |= {"dtype": out, "zero_point": out_zero, "narrow": bool(rng.integers(2)), "inner": bool(rng.integers(2))}
    second = net.conv(x, filters, kernel, x_zero_point=zero, residual=first, residual_zero_point=4, **more)
    return net, second


@pytest.mark.parametrize("seed", range(24))
def test_random_convolutions(seed: int) -> None:
    net, y = _random_conv(seed)
    assert_equal_to_twin(net, y)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("machine", MACHINES)
def test_depths_around_a_step(machine: Machine, tile: Tile) -> None:
    """Tiles add one word or several at a time, with instructions that differ: the last of each tap may be alone."""
    for channels in (1, 4, 8, 12, 20, 36):
        net = QuantizedNet(channels)
        x = net.input(channels, 4, tile.mr + 2)
        y = net.conv(x, 2 * tile.nr * ISA.lanes - 1, (2, 2), dilations=(2, 2), zero_point=110)
        assert_equal_to_twin(net, y, images=1, machine=only(tile, machine))


@pytest.mark.parametrize("filters", [16, 48])
@pytest.mark.parametrize("machine", MACHINES)
def test_extreme_weights_do_not_saturate(machine: Machine, filters: int) -> None:
    """255 times -128 and 127, four side by side: sums of pairs are far outside 16 bits."""
    net = QuantizedNet()
    x = net.input(64, 3, 5)
    weight = np.where(np.arange(filters)[:, None, None, None] % 2 == 0, -128, 127).astype(np.int8)
    y = net.conv(x, filters, dtype="float32", weight=np.broadcast_to(weight, (filters, 64, 1, 1)))
    graph = net.graph(y)
    feeds = {"input0": np.full((1, 64, 3, 5), 255, np.float32)}
    got, want = run_plan(plan_graph(graph, 1, machine), feeds)[0], run_reference(graph, feeds)[0]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_cuts_of_depth_change_nothing(dtype: str) -> None:
    """Sums wait as integers: in scratch memory, or in y if there is room."""
    net = QuantizedNet()
    y = net.conv(net.input(24, 6, 6), 32, (3, 3), pads=(1, 1, 1, 1), zero_point=20, dtype=dtype)
    graph = net.graph(y)
    plan, feeds = plan_graph(graph, 2), net.feeds(2)
    want = run_reference(graph, feeds)[0]
    (index,) = [i for i, step in enumerate(plan.steps) if plan.kernels[step["kernel"]].name == "conv_gemm"]
    assert (plan.steps["tap_count"][index], plan.steps["depth"][index]) == (3, 72), "a row of the window is one tap"
    for kc_taps, kc_depth in ((2, 72), (1, 72), (1, 24), (1, 8)):
        steps = plan.steps.copy()
        for key, value in (("kc_taps", kc_taps), ("kc_depth", kc_depth), ("panels_outside", 1), ("nc_panels", 1)):
            steps[key][index] = value
        size = 64 * 64 * ISA.lanes
        cut = replace(plan, steps=steps, scratch_size=size)
        cut.steps["scratch_size"][index] = size
        np.testing.assert_array_equal(run_plan(cut, feeds)[0], want)


DEPTHWISE = [
    (channels, size, strides, pads)
    for channels in (4, 16, 24, 32, 64, 96, 144)
    for size, strides, pads in (
        ((7, 7), (1, 1), (1, 1, 1, 1)),
        ((9, 12), (2, 2), (0, 0, 1, 1)),
        ((5, 4), (1, 2), (1, 1, 1, 1)),
    )
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "size", "strides", "pads"), DEPTHWISE)
@pytest.mark.parametrize("machine", MACHINES)
def test_depthwise(machine: Machine, channels: int, size: tuple[int, int], strides: Any, pads: Any, dtype: str) -> None:
    net = QuantizedNet(channels)
    x = net.input(channels, *size, dtype=dtype, zero_point=5)
    fields: dict[str, Any] = {"strides": strides, "pads": pads, "group": channels, "x_zero_point": 5, "dtype": dtype}
    y = net.conv(x, channels, (3, 3), zero_point=1, **fields)
    z = net.conv(x, channels, (3, 3), zero_point=1, narrow=True, inner=True, **fields)
    assert_equal_to_twin(net, y, z, machine=machine)


@pytest.mark.parametrize(("kernel", "dilations", "residual"), [((5, 3), (1, 1), False), ((3, 3), (2, 1), True)])
def test_depthwise_of_other_windows(kernel: Any, dilations: Any, residual: bool) -> None:
    net = QuantizedNet()
    x = net.input(21, 9, 8, zero_point=128)
    fields: dict[str, Any] = {"group": 21, "x_zero_point": 128, "dilations": dilations, "pads": (1, 2, 1, 1)}
    y = net.conv(x, 21, kernel, **fields)
    if residual:
        y = net.conv(x, 21, kernel, **fields, residual=y, residual_zero_point=2, inner=True)
    assert_equal_to_twin(net, y)


@pytest.mark.parametrize("columns", [1, 10, 130])
@pytest.mark.parametrize("dtype", [*DTYPES, "float32"])
def test_dense(columns: int, dtype: str) -> None:
    net = QuantizedNet(columns)
    x = net.input(53, dtype="int8", zero_point=-7)
    assert_equal_to_twin(net, net.dense(x, columns, x_zero_point=-7, dtype=dtype), images=3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_add(dtype: str) -> None:
    net = QuantizedNet()
    a, b = net.input(37, 5, 6, zero_point=9), net.input(37, 5, 6, dtype="int8", zero_point=-3)
    zero = 2
    low, high = (float(bound - zero) for bound in LIMITS[dtype])
    add = QuantizedAdd("add", a, b, "y", float(np.float32(0.4)), 9, float(np.float32(0.9)), -3, dtype, zero, low, high)  # type: ignore[arg-type]
    assert_equal_to_twin(net, net.add(add))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations"),
    [
        ((6, 7), (1, 1), (0, 0, 0, 0), (1, 1)),
        ((3, 2), (2, 1), (1, 0, 1, 1), (1, 1)),
        ((2, 2), (1, 1), (0,) * 4, (2, 3)),
    ],
)
def test_average(kernel: Any, strides: Any, pads: Any, dilations: Any, dtype: str) -> None:
    net = QuantizedNet()
    x = net.input(35, 6, 7, dtype=dtype, zero_point=11)
    factor = float(np.float32(1.7 / (kernel[0] * kernel[1])))
    low, high = (float(bound - 4) for bound in LIMITS[dtype])
    fields = (kernel, strides, pads, dilations, 11, factor, dtype, 4, low, high)
    assert_equal_to_twin(net, net.add(QuantizedAverage("average", x, "y", *fields)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_moves_and_max_pool(dtype: str) -> None:
    """Each of them in front of a padded convolution, whose padding is the zero point."""
    net = QuantizedNet()
    x = net.input(20, 8, 8, dtype=dtype, zero_point=7)
    pooled = net.add(Pool("pool", "max", x, "pooled", (3, 3), (2, 2), (1, 1, 1, 1)))
    padded = net.add(Pad("pad", x, "padded", ((0, 0), (0, 0), (1, 0), (2, -1)), 7.0))
    turned = net.add(Transpose("turn", x, "turned", (0, 1, 3, 2)))
    net.values["shaped"] = Value("shaped", (*net.shape(x)[:1], 40, 8, 4), dtype)  # type: ignore[arg-type]
    shaped = net.add(Reshape("shape", x, "shaped"))
    outputs = [
        net.conv(value, 24, (3, 3), pads=(1, 1, 1, 1), x_zero_point=7) for value in (pooled, padded, turned, shaped)
    ]
    assert_equal_to_twin(net, pooled, padded, turned, shaped, *outputs)


def test_quantize_rounds_halves_to_even_and_saturates() -> None:
    """Ties, values beyond the range, infinities, NaN, at the model's input and in the middle of it."""
    values = np.array(
        [0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, np.inf, -np.inf, np.nan, 254.5, 255.5, 126.5, -128.5, 0, 3]
    )
    x = np.resize(values, (1, 3, 4, 16)).astype(np.float32)
    for dtype, zero_point in (("uint8", 1), ("int8", -1)):
        quantization = Quantization(dtype, (1.0,), (zero_point,))  # type: ignore[arg-type]
        for shared in (False, True):
            names = {"x": (-1, 3, 4, 16), "q": (-1, 3, 4, 16), "r": (-1, 3, 4, 16)}
            types = {"x": "float32", "q": dtype, "r": "float32"}
            graph_values = {name: Value(name, shape, types[name]) for name, shape in names.items()}  # type: ignore[arg-type]
            ops = (Quantize("q", "x", "q", quantization), Dequantize("r", "q", "r", quantization))
            outputs: tuple[str, ...] = ("q", "r")
            if shared:  # two readers of the input: it is not quantised as it is imported
                graph_values["q2"] = Value("q2", names["q"], dtype)  # type: ignore[arg-type]
                ops, outputs = (*ops, Quantize("q2", "x", "q2", quantization)), (*outputs, "q2")  # type: ignore[assignment]
            graph = Graph("test", ("x",), outputs, ops, graph_values)
            got, want = run_plan(plan_graph(graph), {"x": x}), run_reference(graph, {"x": x})
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a, b)
            lowest = np.iinfo(dtype).min
            assert (want[0][np.isnan(x)] == lowest).all()


def test_scales_per_channel() -> None:
    """Of activations, which nothing absorbs."""
    rng = np.random.default_rng(0)
    scale = tuple(float(number) for number in rng.uniform(0.01, 0.1, 5).astype(np.float32))
    quantization = Quantization("uint8", scale, (0, 5, 100, 200, 255), axis=1)
    types = {"x": "float32", "q": "uint8", "y": "float32"}
    values = {name: Value(name, (-1, 5, 6, 7), kind) for name, kind in types.items()}  # type: ignore[arg-type]
    ops = (Quantize("q", "x", "q", quantization), Dequantize("y", "q", "y", quantization))
    graph = Graph("test", ("x",), ("q", "y"), ops, values)
    x = rng.normal(0, 5, (2, 5, 6, 7)).astype(np.float32)
    for a, b in zip(run_plan(plan_graph(graph, 2), {"x": x}), run_reference(graph, {"x": x}), strict=True):
        np.testing.assert_array_equal(a, b)
