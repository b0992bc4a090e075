"""Machine x problem -> choices: which algorithm, tile, blocks, cut of the batch and chains. Pure.

`blocking.py`, `winograd.py`, `segments.py` and `chains.py` hold the formulas; here they meet the ops of a graph. What a
saved plan holds is decided here once, or by whatever else writes plan files; nothing behind it asks for caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..graph.ir import Conv, Dense, Op
from ..simd.element import Element
from . import winograd
from .blocking import choose_blocks, choose_depthwise, choose_tiles
from .chains import ROW_BY_ROW, Chain, choose_bands, hands_over, read_once
from .choices import Choices, ConvChoice, DepthwiseChoice, GemmChoice, PanelRun, WinogradChoice, node_key
from .lower.chain import chain_windows, convolutions
from .lower.conv import is_depthwise, is_depthwise_3x3, row_is_one_tap
from .pack import whole_words, words_of
from .planning import Planning
from .segments import Segment, choose_segments

_GROUP_PIXELS: Final = 512
"""Small pictures are tiled together, up to about this many pixels, so that the last tile's waste is shared: of 512
pixels it is at most 2 %. More only lengthens the tables of rows."""


@dataclass(frozen=True)
class GemmProblem:
    """What conv_gemm is to compute, per group of a convolution: K = taps x depth, N = vectors x lanes.

    images: most that a step works on at once. pixels: of one output picture. depth: in elements of type
    `element`. x_bytes: of one input picture, as far as it is read.
    """

    images: int
    pixels: int
    vectors: int
    taps: int
    depth: int
    element: Element
    x_bytes: int


def choose(planning: Planning, max_batch: int, segments: tuple[Segment, ...] | None = None) -> Choices:
    """All choices for a graph whose values have been laid out. segments: in place of `choose_segments`."""
    graph = planning.graph
    segments = segments or choose_segments(graph, planning.layouts, planning.machine, max_batch)
    nodes: dict[str, ConvChoice] = {}
    for op, chunk in ops_to_choose(planning, segments):
        nodes[node_key(op, planning.keys)] = (
            _choose_depthwise(planning, op)
            or _choose_winograd(planning, op, chunk)
            or choose_gemm(planning, gemm_problem(planning, op, chunk))
        )
    return Choices(segments, _choose_chains(planning, segments, nodes), nodes)


def _choose_chains(
    planning: Planning, segments: tuple[Segment, ...], nodes: Mapping[str, ConvChoice]
) -> tuple[Chain, ...]:
    """From the first op on, the longest runs that can be chained, with values between them that crowd L2."""
    chains = []
    for segment in segments:
        first = segment.first
        while first < segment.last:
            end = first + 1
            while end < segment.last and can_link(planning, nodes, segment, first, end) and _crowds(planning, end):
                end += 1
            options = (_chain(planning, first, last) for last in range(end, first + 1, -1))
            chain = next((option for option in options if option is not None), None)
            chains += [] if chain is None else [chain]
            first = first + 1 if chain is None else chain.last
    return tuple(chains)


def _chain(planning: Planning, first: int, last: int) -> Chain | None:
    ops = convolutions(planning.graph.ops[first:last])
    layouts = [planning.layout(op.output) for op in ops]
    bands = choose_bands(
        [layout.h for layout in layouts],
        [layout.element.bytes * layout.row for layout in layouts],
        chain_windows(planning, ops),
        sum(planning.array(op.weight).size * planning.layout(op.x).element.bytes for op in ops),
        planning.machine.l2_bytes,
    )
    return None if bands is None else Chain(first, last, *bands)


def can_link(planning: Planning, nodes: Mapping[str, ConvChoice], segment: Segment, first: int, index: int) -> bool:
    """Whether a chain of a segment's ops, from ops[first] to the one before ops[index], may go on to that one."""
    graph, after = planning.graph, planning.graph.ops[index]
    return (
        segment.chunk == 1
        and hands_over(graph.ops[index - 1], after)
        and all(_goes_by_rows(planning, nodes, op) for op in graph.ops[index - 1 : index + 1])
        and (
            all(read_once(graph, op.output) for op in graph.ops[first:index])
            or chain_windows(planning, convolutions([after])) == [ROW_BY_ROW]
        )
    )


def _goes_by_rows(planning: Planning, nodes: Mapping[str, ConvChoice], op: Op) -> bool:
    """Whether the op's kernels can be given some rows of one image: depthwise, or implicit GEMM in one group."""
    if not isinstance(op, Conv) or planning.layout(op.output).images != 1:
        return False
    choice = nodes.get(node_key(op, planning.keys))
    return is_depthwise(planning, op) or (isinstance(choice, GemmChoice) and op.group == 1)


def _crowds(planning: Planning, index: int) -> bool:
    """Whether what ops[index] reads would not stay in L2: more than a third of it, written, read and followed by the
    result, or more than all of it if it is written to the arena anyhow and only its reading would be saved."""
    name, l2_bytes = planning.graph.ops[index - 1].output, planning.machine.l2_bytes
    return planning.value_bytes(name) > (l2_bytes // 3 if read_once(planning.graph, name) else l2_bytes)


def ops_to_choose(planning: Planning, segments: tuple[Segment, ...]) -> Iterator[tuple[Conv | Dense, int]]:
    """The ops for which there is something to choose, each with the chunk of its segment; others have one kernel."""
    for segment in segments:
        for op in planning.graph.ops[segment.first : segment.last]:
            if isinstance(op, (Conv, Dense)) and _has_a_choice(planning, op):
                yield op, segment.chunk


def _has_a_choice(planning: Planning, op: Conv | Dense) -> bool:
    return isinstance(op, Dense) or not is_depthwise(planning, op) or is_depthwise_3x3(planning, op)


def gemm_problem(planning: Planning, op: Conv | Dense, chunk: int) -> GemmProblem:
    """The problem that `lower_conv` or `lower_dense` gives to conv_gemm."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    shape = planning.value(op.weight).shape
    if isinstance(op, Dense):
        (depth, channels), taps = shape, 1
    elif row_is_one_tap(planning, op):
        channels, taps, depth = shape[0], shape[2], shape[1] * shape[3]
    else:
        channels, taps, depth = shape[0] // op.group, shape[2] * shape[3], shape[1]
    vectors, depth = -(-channels // planning.machine.isa.lanes), whole_words(depth, x.element)
    x_bytes = x.element.bytes * min(x.h * x.w * x.pixel, y.h * y.w * taps * depth)
    return GemmProblem(y.images * chunk, y.h * y.w, vectors, taps, depth, x.element, x_bytes)


def choose_gemm(planning: Planning, problem: GemmProblem) -> GemmChoice:
    """As many images as fill a group, then the cheapest cover by panels, then blocks for each run of them."""
    machine = planning.machine
    most = min(problem.images, _GROUP_PIXELS)
    group_images = max(
        d for d in range(1, most + 1) if problem.images % d == 0 and (d - 1) * problem.pixels < _GROUP_PIXELS
    )
    pixels = group_images * problem.pixels
    runs = []
    words, groups = problem.taps * words_of(problem.depth, problem.element), problem.images // group_images
    x_bytes = group_images * problem.x_bytes
    for index, panels in choose_tiles(machine, pixels, problem.vectors, words, x_bytes):
        tile = machine.isa.tiles[index]
        blocks = choose_blocks(
            machine, tile, pixels, panels, problem.taps, problem.depth, x_bytes, problem.element, groups
        )
        runs.append(PanelRun(tile, panels, blocks))
    return GemmChoice(group_images, tuple(runs))


def depthwise_vectors(planning: Planning, op: Conv | Dense) -> int:
    """Vectors of channels of a depthwise convolution."""
    stored = min(planning.layout(op.x).channels_stored, planning.layout(op.output).channels_stored)
    return stored // planning.machine.isa.lanes


def _choose_depthwise(planning: Planning, op: Conv | Dense) -> DepthwiseChoice | None:
    if not is_depthwise_3x3(planning, op):
        return None
    x, y = planning.layout(op.x), planning.layout(op.output)
    vectors = depthwise_vectors(planning, op)
    return DepthwiseChoice(*choose_depthwise(planning.machine, x.w, x.image_bytes, (y.h, y.w), vectors, x.element))


def can_winograd(planning: Planning, op: Op) -> bool:
    """Whether conv_winograd can compute the op."""
    if not isinstance(op, Conv):
        return False
    x, y = planning.layout(op.x), planning.layout(op.output)
    return winograd.fits(op, planning.value(op.weight).shape, x, y, planning.machine.isa.lanes)


def _choose_winograd(planning: Planning, op: Conv | Dense, chunk: int) -> WinogradChoice | None:
    """Winograd's form, where it fits and is estimated to pay for so many units of batch at once."""
    if not isinstance(op, Conv):
        return None
    x, y = planning.layout(op.x), planning.layout(op.output)
    form = winograd.chosen_form(planning.machine, op, planning.value(op.weight).shape, x, y, chunk)
    return None if form is None else WinogradChoice(form.tile, form.mc, form.nc_panels)
