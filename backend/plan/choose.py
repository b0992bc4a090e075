"""Machine x problem -> choices: which algorithm, tile, blocks, cut of the batch and chains. Pure.

`blocking.py`, `winograd.py`, `segments.py` and `chains.py` hold the formulas; here they meet the ops of a graph. What a
saved plan holds is decided here once, or by whatever else writes plan files; nothing behind it asks for caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..graph.ir import Conv, Dense, Op
from ..machine import Machine
from . import winograd
from .blocking import choose_blocks, choose_depthwise, choose_tiles
from .chains import ROW_BY_ROW, Chain, choose_bands, hands_over, read_once
from .choices import Choices, ConvChoice, DepthwiseChoice, GemmChoice, PanelRun, WinogradChoice, node_key
from .lower.chain import chain_windows, convolutions
from .lower.conv import is_depthwise, is_depthwise_3x3
from .planning import Planning
from .problem import GemmProblem, gemm_problem
from .segments import Segment, choose_segments


def choose(planning: Planning, max_batch: int, segments: tuple[Segment, ...] | None = None) -> Choices:
    """All choices for a graph whose values have been laid out. segments: in place of `choose_segments`."""
    graph = planning.graph
    segments = segments or choose_segments(graph, planning.layouts, planning.machine, max_batch)
    nodes: dict[str, ConvChoice] = {}
    for op, chunk in ops_to_choose(planning, segments):
        nodes[node_key(op, planning.keys)] = (
            _choose_depthwise(planning, op)
            or _choose_winograd(planning, op, chunk)
            or choose_gemm(planning.machine, gemm_problem(graph, planning.layouts, planning.machine, op, chunk))
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


def choose_gemm(machine: Machine, problem: GemmProblem) -> GemmChoice:
    """The cheapest cover by panels, then blocks for each run of them."""
    runs = []
    for index, panels in choose_tiles(machine, problem):
        tile = machine.isa.tiles[index]
        runs.append(PanelRun(tile, panels, choose_blocks(machine, tile, panels, problem)))
    return GemmChoice(problem.group_images, tuple(runs))


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
