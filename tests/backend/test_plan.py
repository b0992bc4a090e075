"""Tiles, blocks, segments, packing and memory of plans: pure functions judged by what they promise."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from plan_runner import MACHINE, plan_graph, run_plan
from quantized_nets import QuantizedNet
from small_nets import Net, oracle, random_inputs

from backend.errors import InputError
from backend.graph.ir import Graph
from backend.pixels import PixelInput
from backend.plan.blocking import choose_blocks, choose_tiles
from backend.plan.memory import Lifetime, assign_offsets
from backend.plan.pack import Buffers, pack_panels
from backend.plan.plan import Plan
from backend.plan.planner import choose_record, make_plan
from backend.plan.problem import GemmProblem
from backend.plan.segments import Segment
from backend.simd.element import FLOAT32
from backend.simd.isa import AVX512, ISAS, Isa, Tile

REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32, "generic": 16}


def problem(
    pixels: int, vectors: int, taps: int, depth: int, images: int = 1, x_bytes: int | None = None
) -> GemmProblem:
    """In float32. x_bytes: None for every pixel with its taps."""
    x_bytes = 4 * pixels * taps * depth if x_bytes is None else x_bytes
    return GemmProblem(images, pixels, vectors, taps, depth, FLOAT32, x_bytes, FLOAT32)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_tiles_fit_the_registers_and_cover_any_width(isa: Isa) -> None:
    """MR * NR accumulators + NR weights + 1 broadcast are all in registers; every channel count has exactly one place.

    A tile of one row uses each weight vector once, straight from memory.
    """
    for tile in isa.tiles:
        weights = tile.nr if tile.mr > 1 else 0
        assert tile.mr * tile.nr + weights + 1 <= REGISTERS[isa.name], f"{tile} spills"
    for pixels, vectors, depth in itertools.product((1, 7, 49, 3136), range(1, 40), (1, 27, 4608)):
        runs = choose_tiles(replace(MACHINE, isa=isa), problem(pixels, vectors, 1, depth))
        assert sum(isa.tiles[index].nr * panels for index, panels in runs) == vectors
        assert all(panels >= 1 for _, panels in runs)


@pytest.mark.parametrize("l2_bytes", [1 << 10, 32 << 10, 512 << 10, 2 << 20])
def test_blocks_are_whole_tiles_and_fit_half_of_l2(l2_bytes: int) -> None:
    """What conv_gemm takes for granted (BLIS: MC is a multiple of MR), and what the formula promises of L2."""
    problems = itertools.product(ISAS, (1, 49, 784), (1, 3, 70), (1, 9, 49), (1, 64, 512), (1, 5))
    for isa, pixels, panels, taps, depth, images in problems:
        machine = replace(MACHINE, isa=isa, l2_bytes=l2_bytes)
        for tile in isa.tiles:
            blocks = choose_blocks(machine, tile, panels, problem(pixels, panels * tile.nr, taps, depth, images))
            case = f"{tile} {pixels=} {panels=} {taps=} {depth=} {images=}: {blocks}"
            assert blocks.mc % tile.mr == 0 and blocks.mc >= tile.mr, case
            assert 1 <= blocks.nc_panels <= panels, case
            assert 1 <= blocks.kc_taps <= taps and 1 <= blocks.kc_depth <= depth, case
            assert blocks.kc_depth == depth or blocks.kc_taps == 1, case
            row_bytes = tile.nr * isa.lanes * 4
            if blocks.panels_outside:
                assert blocks.kc_taps * blocks.kc_depth * row_bytes <= max(l2_bytes // 4, row_bytes), case
            else:
                assert (blocks.kc_taps, blocks.kc_depth) == (taps, depth), case
                assert panels * taps * depth * row_bytes <= l2_bytes // 2, case


def test_groups_of_pixels_that_stay_in_l2_are_read_by_several_panels_at_once() -> None:
    """14 pixels, 256 to 1024 channels: two images fill 0.4 of 1 MiB; no layer is left with fewer than 16 units."""
    machine = replace(MACHINE, isa=AVX512, l2_bytes=1 << 20)
    for images, nc_panels in ((2, 1), (4, 2), (8, 4), (32, 16), (200, 16)):
        blocks = choose_blocks(machine, Tile(6, 4), 16, problem(196, 64, 1, 256, images))
        assert (blocks.nc_panels, blocks.mc) == (nc_panels, 396)
    assert choose_blocks(machine, Tile(6, 4), 16, problem(196, 64, 4, 256, 8)).nc_panels == 1


def test_few_panels_share_out_their_pixels() -> None:
    """Of 14 pixels, 33 tiles of six: eight units, unless a panel is cut along K, which each unit would read again."""
    machine = replace(MACHINE, isa=AVX512, l2_bytes=1 << 20)
    for panels, taps, mc in ((4, 1, 102), (8, 1, 198), (64, 1, 198), (4, 4, 198)):
        blocks = choose_blocks(machine, Tile(6, 4), panels, problem(196, 4 * panels, taps, 1024))
        assert (blocks.panels_outside, blocks.mc) == (True, mc)


def test_narrow_panels_are_for_pictures_that_stay_in_l2() -> None:
    """49 pixels fit five tiles of ten; sums over a picture that each panel fetches again go by four vectors."""
    machine = replace(MACHINE, isa=AVX512, l2_bytes=1 << 20)
    ((index, panels),) = choose_tiles(machine, problem(49, 32, 9, 512, x_bytes=100352))
    assert (AVX512.tiles[index], panels) == (Tile(10, 2), 16)
    ((index, panels),) = choose_tiles(machine, problem(1568, 16, 9, 256, x_bytes=1605632))
    assert (AVX512.tiles[index], panels) == (Tile(6, 4), 4)


def test_panels_hold_every_weight_once_and_zeros_elsewhere() -> None:
    weights = np.random.default_rng(0).standard_normal((3, 5, 21)).astype(np.float32)
    packed = pack_panels(weights, 4, 3, 8)
    assert packed.shape == (3, 3, 5, 8)
    for panel, tap, depth, lane in np.ndindex(*packed.shape):
        channel = 4 + panel * 8 + lane
        assert packed[panel, tap, depth, lane] == (weights[tap, depth, channel] if channel < 21 else 0)


def test_buffers_align_weights_and_share_equal_tables() -> None:
    buffers = Buffers()
    offsets = [buffers.add_weights(np.full(size, size, np.float32)) for size in (1, 16, 17)]
    tables = [buffers.add_table(np.array(entries)) for entries in ([1, 2], [3], [1, 2])]
    weights = buffers.weights()
    assert weights.ctypes.data % 64 == 0 and all(offset % 16 == 0 for offset in offsets)
    for offset, size in zip(offsets, (1, 16, 17), strict=True):
        assert (weights[offset : offset + size] == size).all()
    assert tables[0] == tables[2] != tables[1]
    assert buffers.tables()[tables[1]] == 3


def test_values_alive_together_lie_apart() -> None:
    """Random lifetimes: no overlap in time and place, aligned, never below the largest sum alive at one step."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        values = []
        for index in range(20):
            first, last = sorted(int(step) for step in rng.integers(0, 12, 2))
            values.append(Lifetime(f"v{index}", int(rng.integers(1, 300)), first, last))
        offsets, total = assign_offsets(values)
        assert all(offset % 16 == 0 for offset in offsets.values())
        assert total >= max(offsets[v.name] + v.size for v in values)
        for a, b in itertools.combinations(values, 2):
            together = a.first <= b.last and b.first <= a.last
            apart = offsets[a.name] + a.size <= offsets[b.name] or offsets[b.name] + b.size <= offsets[a.name]
            assert apart or not together, f"{a} at {offsets[a.name]} and {b} at {offsets[b.name]}"
        alive = [sum(-(-v.size // 16) * 16 for v in values if v.first <= step <= v.last) for step in range(12)]
        assert total >= max(alive)
    assert assign_offsets([]) == ({}, 0)


def block_net() -> Graph:
    """Two residual blocks, a head, and an output from the middle: values that live short, long and across a cut."""
    net = Net()
    x = net.conv(net.input(3, 9, 8), 10, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2), low=0.0)
    for _ in range(2):
        inner = net.conv(x, 20, (3, 3), pads=(1, 1, 1, 1), low=0.0)
        x = net.conv(inner, 10, residual=x, low=0.0)
    middle = net.pool("max", x, (2, 2))
    flat = net.reshape(net.mean(middle, (2, 3)), -1, 10)
    logits = net.dense(flat, 7)
    return net.graph(middle, net.softmax(logits, 1), net.argmax(logits, 1, keepdims=False))


def cut_plan(graph: Graph, max_batch: int, *segments: Segment) -> Plan:
    return make_plan(graph, MACHINE, max_batch, saved=choose_record(graph, MACHINE, max_batch, segments))


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_no_cut_into_segments_changes_a_bit(max_batch: int) -> None:
    """Every cut, chunks of one and two images before it, for every batch up to the largest."""
    graph = block_net()
    count = len(graph.ops)
    inputs = random_inputs(graph, max_batch)
    whole = cut_plan(graph, max_batch, Segment(0, count, max_batch))
    expected = run_plan(whole, inputs)
    for got, want in zip(expected, oracle(graph, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    for cut, chunk in itertools.product(range(1, count + 1), {1, min(2, max_batch)}):
        rest = [Segment(cut, count, max_batch)] if cut < count else []
        plan = cut_plan(graph, max_batch, Segment(0, cut, chunk), *rest)
        for images in range(1, max_batch + 1):
            got = run_plan(plan, {name: array[:images] for name, array in inputs.items()})
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, b[:images], err_msg=f"cut {cut}, chunk {chunk}, {images} images")


def test_many_segments_change_no_bit() -> None:
    """Values that cross several cuts, read by segments that run in chunks themselves, smaller and larger ones."""
    graph, max_batch = block_net(), 5
    count = len(graph.ops)
    inputs = random_inputs(graph, max_batch)
    expected = run_plan(cut_plan(graph, max_batch, Segment(0, count, max_batch)), inputs)
    for chunks in ((1, 2, 2), (2, 3, 1), (3, 1, 5)):
        for cuts in itertools.combinations(range(1, count), 2):
            bounds = itertools.pairwise((0, *cuts, count))
            segments = [Segment(*ends, chunk) for ends, chunk in zip(bounds, chunks, strict=True)]
            got = run_plan(cut_plan(graph, max_batch, *segments), inputs)
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{segments}")


@pytest.mark.parametrize("max_batch, chunks", [(9, (1, 8)), (5, (2, 3)), (7, (3, 1))])
def test_values_hold_every_image_that_a_chunk_may_touch(max_batch: int, chunks: tuple[int, int]) -> None:
    """Tiles of a short last chunk address images beyond the batch: their memory must be the value's own."""
    net = Net()
    pooled = net.pool("max", net.input(16, 7, 7), (7, 7))
    graph = net.graph(net.conv(pooled, 16))
    plan = cut_plan(graph, max_batch, Segment(0, 1, chunks[0]), Segment(1, 2, chunks[1]))
    for step in plan.steps:
        if plan.kernels[step["kernel"]].name == "conv_gemm":
            assert step["x"] + step["chunk"] * step["x_image"] <= plan.arena_size


def test_equal_arguments_give_equal_plans() -> None:
    first, second = (plan_graph(block_net(), 4) for _ in range(2))
    assert first.steps.tobytes() == second.steps.tobytes()
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.tables.tobytes() == second.tables.tobytes()
    assert (first.arena_size, first.kernels, first.infos) == (second.arena_size, second.kernels, second.infos)


def test_step_costs_are_those_of_the_textbook() -> None:
    """Multiply-adds: pixels x filters x window for convolutions, rows x columns for dense layers; padding is free."""
    net = Net()
    x = net.conv(net.input(3, 8, 6), 10, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    x = net.conv(x, 10, (3, 3), group=10, pads=(1, 1, 1, 1))
    graph = net.graph(net.dense(net.reshape(net.mean(x, (2, 3)), -1, 10), 7))
    plan = plan_graph(graph, 2)
    macs: dict[str, int] = {}
    for info in plan.infos:
        macs[info.node] = macs.get(info.node, 0) + info.macs
    assert [count for count in macs.values() if count] == [4 * 3 * 10 * 27, 4 * 3 * 10 * 9, 10 * 7]
    assert set(plan.info_of_step) == set(range(len(plan.infos)))


def test_costs_of_bytes_are_those_of_the_textbook_too() -> None:
    """A 7x7 layer of three channels: rows of 21 bytes run as six words of four, which counts only as what is executed.

    A layer of 10 channels runs through 12 of them.
    """
    net = QuantizedNet()
    wide = net.conv(net.input(3, 14, 14), 64, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3))
    deep = net.conv(wide, 10)
    x = net.conv(deep, 10, (3, 3), group=10, pads=(1, 1, 1, 1))
    plan = plan_graph(net.graph(net.conv(x, 16)))
    costs: dict[str, tuple[int, int]] = {}
    for info in plan.infos:
        if info.macs:
            macs, executed = costs.get(info.node, (0, 0))
            costs[info.node] = (macs + info.macs, executed + info.executed_macs)
    pixels = 7 * 7
    assert [macs for macs, _ in costs.values()] == [
        pixels * 64 * 147, pixels * 10 * 64, pixels * 10 * 9, pixels * 16 * 10,
    ]  # fmt: skip
    executed = [count for _, count in costs.values()]
    assert executed[0] == pixels * 64 * 7 * 24
    assert executed[3] == pixels * 16 * 12


def test_pixels_are_as_long_as_their_channels_need() -> None:
    """Whole vectors and no more; behind the last group of a grouped convolution as far as its vectors reach."""
    lanes = MACHINE.isa.lanes
    for channels, group, stored in (
        (2 * lanes, 1, 2 * lanes),
        (2 * lanes + 1, 1, 3 * lanes),
        (2 * lanes, 2 * lanes, 2 * lanes),
        (2 * lanes, 2, 2 * lanes),
        (lanes, 2, 2 * lanes),
    ):
        net = Net()
        graph = net.graph(net.conv(net.input(channels, 4, 4), channels, (3, 3), pads=(1, 1, 1, 1), group=group))
        convolution = plan_graph(graph).steps[-2]
        assert convolution["y_pixel"] == stored, f"{channels} channels in {group} groups"


def test_a_batch_for_fixed_shapes_is_refused() -> None:
    net = Net()
    graph = net.graph(net.clip(net.input(3, batch=4), 0, 1))
    with pytest.raises(InputError, match=r"max_batch=2, but the model's shapes are fixed: .*\(4, 3\).*use max_batch=1"):
        plan_graph(graph, 2)


@pytest.mark.parametrize("shape", [(4, 5, 5), (3, 5)])
def test_pixels_for_another_input_are_refused(shape: tuple[int, ...]) -> None:
    net = Net()
    graph = net.graph(net.clip(net.input(*shape), 0, 1))
    with pytest.raises(InputError, match="pixels have 3 channels, but input 'input0' has shape"):
        make_plan(graph, MACHINE, 1, PixelInput.affine((0.0, 0.0, 0.0)))


@pytest.mark.parametrize("shape", [(256,), (3, 255), (1, 3, 256)])
def test_pixel_tables_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"a pixel table has shape .*\[channels, 256\] is needed"):
        PixelInput(np.zeros(shape, np.float32))
