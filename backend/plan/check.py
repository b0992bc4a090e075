"""Can these choices be followed? What the kernels take for granted, said of the records, before anything is lowered.

Every plan passes through here, the planner's own as well as one from a file.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from ..errors import PlanError
from ..graph.ir import Conv, Dense
from ..simd.isa import Isa, Tile
from . import winograd
from .blocking import depthwise_tiles
from .chains import computes_nothing, cut_bands
from .choices import Choices, ConvChoice, DepthwiseChoice, GemmChoice, PanelRun, node_key
from .choose import can_link, can_winograd, depthwise_vectors, ops_to_choose
from .lower.chain import chain_windows, convolutions
from .lower.conv import is_depthwise_3x3
from .planning import Planning
from .problem import GemmProblem, gemm_problem
from .segments import Segment

_MOST_MC: Final = 1 << 30
"""More than a group's pixels means all of them, so that MC may stay as it is where a group is made smaller."""

_DEPTHWISE: Final = "(depthwise: 3x3, not dilated, stride_w 1 or 2, no bytes)"
"""Of depthwise convolutions those for which there is something to choose."""


def check_choices(planning: Planning, choices: Choices, max_batch: int) -> None:
    """Raises: PlanError, one line with node, field, value and what is allowed, for the first that cannot be."""
    _check_segments(planning, choices.segments, max_batch)
    ops = {node_key(op, planning.keys): (op, chunk) for op, chunk in ops_to_choose(planning, choices.segments)}
    for key in choices.nodes:
        _require(key in ops, key, "name", key, f"a convolution {_DEPTHWISE} or dense layer of this model")
    for key, (op, chunk) in ops.items():
        choice = choices.nodes.get(key)
        if choice is None:
            raise PlanError(f"plan: node {key!r} is missing: every convolution {_DEPTHWISE} and dense layer is needed")
        _check_choice(planning, op, chunk, key, choice)
    _check_chains(planning, choices)


def _check_choice(planning: Planning, op: Conv | Dense, chunk: int, key: str, choice: ConvChoice) -> None:
    isa, y = planning.machine.isa, planning.layout(op.output)
    depthwise = is_depthwise_3x3(planning, op)
    if isinstance(choice, DepthwiseChoice):
        where = f"conv_gemm or conv_winograd for this node: {choice.kernel} is for 3x3 windows, one filter per channel"
        _require(depthwise, key, "kernel", choice.kernel, where)
        _check_tile(isa, depthwise_tiles(isa, y.w), key, "tile", choice.tile, "")
        _check_range(key, "nc_panels", choice.nc_panels, depthwise_vectors(planning, op))
        _check_range(key, "rows", choice.rows, y.h)
        return
    _require(not depthwise, key, "kernel", choice.kernel, f"{DepthwiseChoice.kernel} for this node")
    problem = gemm_problem(planning.graph, planning.layouts, planning.machine, op, chunk)
    if isinstance(choice, GemmChoice):
        _check_gemm(isa, key, choice, problem)
        return
    where = "conv_gemm for this node: conv_winograd is for 3x3, stride 1, one group, no bytes, whole vectors, no Pad"
    _require(can_winograd(planning, op), key, "kernel", choice.kernel, where)
    divides = [tile for tile in isa.tiles if problem.vectors % tile.nr == 0]
    _check_tile(isa, divides, key, "tile", choice.tile, f"with NR a divisor of {problem.vectors} vectors, ")
    _check_range(key, "mc", choice.mc, problem.images * winograd.patches_of(y.h, y.w))
    _check_range(key, "nc_panels", choice.nc_panels, problem.vectors // choice.tile.nr)


def _check_segments(planning: Planning, segments: tuple[Segment, ...], max_batch: int) -> None:
    names = [node_key(op, planning.keys) for op in planning.graph.ops]
    if not segments:
        raise PlanError("plan: segments is empty: one or more are needed")
    ends = [segment.last for segment in segments]
    if ends[-1] != len(names):
        raise PlanError(
            f"plan: segments[{len(ends) - 1}], last_node={(names[ends[-1] - 1] if ends[-1] else None)!r}: "
            f"the last segment ends with the model's last node, {names[-1]!r}"
        )
    for number, (before, end) in enumerate(pairwise([0, *ends])):
        if before >= end:
            raise PlanError(f"plan: segments[{number}], last_node: a node is needed that comes after those before it")
    for number, segment in enumerate(segments):
        if not 1 <= segment.chunk <= max_batch:
            raise PlanError(f"plan: segments[{number}], chunk={segment.chunk}: 1 to max_batch={max_batch} is allowed")


def _check_chains(planning: Planning, choices: Choices) -> None:
    names, done = [node_key(op, planning.keys) for op in planning.graph.ops], 0
    for number, chain in enumerate(choices.chains):
        at = f"plan: chains[{number}], "
        if not done <= chain.first < chain.last - 1:
            raise PlanError(
                f"{at}first_node={names[chain.first]!r}, last_node={names[chain.last - 1]!r}: "
                "two nodes or more are needed, in the model's order and behind those of the chain before"
            )
        done = chain.last
        segment = next(segment for segment in choices.segments if chain.first < segment.last)
        for index in range(chain.first + 1, chain.last):
            if index >= segment.last or not can_link(planning, choices.nodes, segment, chain.first, index):
                raise PlanError(
                    f"{at}nodes {names[index - 1]!r} and {names[index]!r}: in a chain only convolutions of a segment "
                    "with chunk 1, depthwise or by conv_gemm in one group, follow each other, and behind a "
                    "value that is also read elsewhere only windows of one row with stride 1"
                )
        ops = convolutions(planning.graph.ops[chain.first : chain.last])
        heights = [planning.layout(op.output).h for op in ops]
        for field, value, most in (("parts", chain.parts, heights[-1]), ("rows", chain.rows, heights[-1])):
            if not 1 <= value <= most:
                raise PlanError(f"{at}{field}={value}: 1 to {most} is allowed")
        if computes_nothing(cut_bands(heights, chain_windows(planning, ops), chain.parts, chain.rows)):
            raise PlanError(
                f"{at}parts={chain.parts}, rows={chain.rows}: a band would leave one of the nodes without a row to "
                "compute; more rows are needed"
            )


def _check_gemm(isa: Isa, key: str, choice: GemmChoice, problem: GemmProblem) -> None:
    _check_range(key, "group_images", choice.group_images, problem.images)
    divides = problem.images % choice.group_images == 0
    _require(divides, key, "group_images", choice.group_images, f"a divisor of the {problem.images} images at a time")
    covered = sum(run.tile.nr * run.panels for run in choice.runs if run.panels > 0)
    for number, run in enumerate(choice.runs):
        _check_run(isa, key, f"runs[{number}].", run, problem)
    allowed = f"panels x NR must add up to {problem.vectors} vectors of {isa.lanes} output channels"
    _require(covered == problem.vectors, key, "runs", f"{covered} vectors", allowed)


def _check_run(isa: Isa, key: str, at: str, run: PanelRun, problem: GemmProblem) -> None:
    tile, blocks = run.tile, run.blocks
    _check_tile(isa, isa.tiles, key, at + "tile", tile, "")
    _check_range(key, at + "panels", run.panels, problem.vectors // tile.nr)
    most = _MOST_MC // tile.mr * tile.mr
    multiple = f"a multiple of MR={tile.mr} from {tile.mr} to {most}"
    _require(blocks.mc % tile.mr == 0 and tile.mr <= blocks.mc <= most, key, at + "mc", blocks.mc, multiple)
    _check_range(key, at + "nc_panels", blocks.nc_panels, run.panels)
    _check_range(key, at + "kc_taps", blocks.kc_taps, problem.taps)
    _check_range(key, at + "kc_depth", blocks.kc_depth, problem.depth)
    whole = blocks.kc_depth == problem.depth
    per_word = problem.element.per_word
    if not whole and per_word > 1:
        allowed = f"{problem.depth} or a multiple of {per_word}, the {problem.element} elements of a dot product"
        _require(blocks.kc_depth % per_word == 0, key, at + "kc_depth", blocks.kc_depth, allowed)
    allowed = f"{problem.depth}, or less if kc_taps is 1"
    _require(whole or blocks.kc_taps == 1, key, at + "kc_depth", blocks.kc_depth, allowed)
    if not blocks.panels_outside:
        rest = "unless panels_outside: with pixels outside K is not cut"
        _require(blocks.kc_taps == problem.taps, key, at + "kc_taps", blocks.kc_taps, f"{problem.taps} {rest}")
        _require(whole, key, at + "kc_depth", blocks.kc_depth, f"{problem.depth} {rest}")


def _check_tile(isa: Isa, tiles: list[Tile] | tuple[Tile, ...], key: str, field: str, tile: Tile, which: str) -> None:
    _require(tile in tiles, key, field, tile, f"{which}one of {', '.join(map(str, tiles))} ({isa.name})")


def _check_range(key: str, field: str, value: int, most: int) -> None:
    _require(1 <= value <= most, key, field, value, f"1 to {most}")


def _require(holds: bool, key: str, field: str, value: object, allowed: str) -> None:
    if not holds:
        raise PlanError(f"plan: node {key!r}, {field}={value}: allowed is {allowed}")
