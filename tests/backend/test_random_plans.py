"""Every legal plan of a float32 network gives the same bits: random tiles, blocks, segments, chains, threads, batches.

All plans here compute a layer by the same algorithm, which is the one thing in a plan that may change a result. Tiles
are few, since each is compiled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from plan_runner import ISA, MACHINE, run_plan
from small_nets import Net, oracle, random_inputs

from backend import PlanError
from backend.graph.ir import Graph
from backend.plan.blocking import Blocks
from backend.plan.choices import ConvChoice, DepthwiseChoice, GemmChoice, PanelRun, WinogradChoice
from backend.plan.plan import Plan
from backend.plan.planner import choose_record, make_plan
from backend.plan.record import NamedChain, PlanRecord
from backend.plan.segments import Segment
from backend.simd.isa import Tile

BATCH = 5
PLANS = 60
LANES = ISA.lanes
NARROW = next(tile for tile in ISA.tiles if tile.nr == 1)
TILES = (NARROW, ISA.tiles[0], next(tile for tile in ISA.tiles[1:] if tile.nr in (2, 3)))
ROW_TILES = (Tile(3, 1), Tile(5, 1))

_T = TypeVar("_T")


def network() -> Graph:
    """An inverted residual, Winograd's layer, a strided one of many taps, small depthwise, groups, dense."""
    net = Net()
    stem = net.conv(net.input(3, 11, 10), 2 * LANES, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    expanded = net.conv(stem, 5 * LANES - 3, low=0.0, high=6.0)
    deep = net.conv(expanded, 5 * LANES - 3, (3, 3), pads=(1, 1, 1, 1), group=5 * LANES - 3, low=0.0)
    block = net.conv(deep, 2 * LANES, residual=stem)
    by_patches = net.conv(block, 3 * LANES + 1, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    strided = net.conv(by_patches, 4 * LANES, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), low=0.0)
    narrowed = net.conv(strided, LANES + 2, low=0.0)
    shrunk = net.conv(narrowed, LANES + 2, (3, 3), strides=(1, 2), pads=(1, 1, 1, 1), group=LANES + 2)
    grouped = net.conv(shrunk, 10, (3, 2), group=2)
    return net.graph(net.dense(net.mean(grouped, (2, 3), keepdims=False), 5 * LANES), by_patches)


GRAPH = network()
OPS = [op.name for op in GRAPH.ops]
BY_PATCHES = OPS[4]


def base_record() -> PlanRecord:
    """The planner's choices in one segment without chains, but for one layer, which Winograd's algorithm computes."""
    record = choose_record(GRAPH, MACHINE, BATCH, (Segment(0, len(OPS), BATCH),))
    patches = WinogradChoice(NARROW, 4, 1)
    return replace(record, chains=(), nodes=record.nodes | {BY_PATCHES: patches})


class Draw:
    """Random legal choices. plan: of `base_record`, whose steps say how large each layer is. seen: what was drawn."""

    def __init__(self, plan: Plan, rng: np.random.Generator, seen: Counter[str]) -> None:
        self.base, self.rng, self.seen = plan.record, rng, seen
        self.steps: dict[str, Any] = {}
        for index, info in enumerate(plan.infos):
            self.steps.setdefault(info.node, plan.steps[plan.info_of_step.index(index)])

    def number(self, most: int) -> int:
        """1 to most."""
        return int(self.rng.integers(1, most + 1))

    def one(self, options: tuple[_T, ...] | list[_T]) -> _T:
        return options[self.number(len(options)) - 1]

    def record(self) -> PlanRecord:
        ends = sorted({*(self.number(len(OPS)) for _ in range(self.number(4) - 1)), len(OPS)})
        chunks = [self.one([1, self.number(BATCH)]) for _ in ends]
        self.seen["segments"] += len(ends) > 2
        nodes: dict[str, ConvChoice] = {}
        for first, end, chunk in zip([0, *ends], ends, chunks, strict=False):
            nodes |= {name: self.choice(name, chunk) for name in OPS[first:end] if name in self.base.nodes}
        segments = tuple((OPS[end - 1], chunk) for end, chunk in zip(ends, chunks, strict=True))
        record = replace(self.base, segments=segments, nodes=nodes)
        for first, end, chunk in zip([0, *ends], ends, chunks, strict=False):
            if chunk == 1:
                record = self.with_chains(record, first, end)
        self.seen["chains"] += bool(record.chains)
        self.seen["two chains"] += len(record.chains) > 1
        return record

    def with_chains(self, record: PlanRecord, first: int, end: int) -> PlanRecord:
        """Chains of some of OPS[first:end], where they can be followed."""
        for _ in range(4):
            if end - first < 2:
                break
            last = first + 1 + self.number(min(4, end - first) - 1)
            chain = NamedChain(OPS[first], OPS[last - 1], self.number(3), self.number(5))
            longer = replace(record, chains=(*record.chains, chain))
            try:
                make_plan(GRAPH, MACHINE, BATCH, saved=longer)
            except PlanError:
                first += self.number(2) - 1
            else:
                record, first = longer, last
        return record

    def choice(self, name: str, chunk: int) -> ConvChoice:
        chosen, step = self.base.nodes[name], self.steps[name]
        if isinstance(chosen, DepthwiseChoice):
            tiles = [tile for tile in ROW_TILES if tile.mr <= int(step["out_w"])]
            self.seen["depthwise"] += 1
            return DepthwiseChoice(
                self.one(tiles), self.number(int(step["out_c"]) // LANES), self.number(int(step["out_h"]))
            )
        if isinstance(chosen, WinogradChoice):
            vectors = chosen.tile.nr * int(step["panels"])
            patches = chunk * -(-int(step["out_h"]) // 4) * -(-int(step["out_w"]) // 4)
            tile, mc = self.one([tile for tile in TILES if vectors % tile.nr == 0]), self.number(patches)
            self.seen["Winograd, blocks of patches"] += mc < patches
            return WinogradChoice(tile, mc, self.number(vectors // tile.nr))
        rest = sum(run.tile.nr * run.panels for run in chosen.runs)
        runs = []
        while rest:
            tile = self.one([tile for tile in TILES if tile.nr <= rest])
            panels = self.number(rest // tile.nr)
            runs.append(PanelRun(tile, panels, self.blocks(tile, panels, int(step["tap_count"]), int(step["depth"]))))
            rest -= tile.nr * panels
        group_images = self.one([count for count in range(1, chunk + 1) if chunk % count == 0])
        self.seen["runs of several tiles"] += len(runs) > 1
        self.seen["groups of images"] += group_images > 1
        return GemmChoice(group_images, tuple(runs))

    def blocks(self, tile: Tile, panels: int, taps: int, depth: int) -> Blocks:
        cut = self.one(["pixels outside", "K whole", "K by taps", "K by depth"])
        self.seen[cut] += 1
        kc_taps = {"K by taps": self.number(taps), "K by depth": 1}.get(cut, taps)
        kc_depth = self.number(depth) if cut == "K by depth" else depth
        return Blocks(
            tile.mr * self.number(6), self.number(panels), kc_taps, kc_depth, panels_outside=cut != "pixels outside"
        )


def test_every_legal_plan_gives_the_same_bits() -> None:
    """Each plan in an arena full of NaNs between guards, for any images in any order, on one or two threads."""
    inputs: dict[str, Any] = random_inputs(GRAPH, BATCH)
    base = make_plan(GRAPH, MACHINE, BATCH, saved=base_record())
    expected = run_plan(base, inputs)
    for got, want in zip(expected, oracle(GRAPH, inputs), strict=True):
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    seen: Counter[str] = Counter()
    for seed in range(PLANS):
        rng = np.random.default_rng(seed)
        plan = make_plan(GRAPH, MACHINE, BATCH, saved=Draw(base, rng, seen).record())
        threads, images = int(rng.integers(1, min(2, MACHINE.cores) + 1)), int(rng.integers(1, BATCH + 1))
        seen["a part of the batch"] += images < BATCH
        seen["two threads"] += threads == 2
        index = rng.integers(0, BATCH, images)
        got = run_plan(plan, {name: array[index] for name, array in inputs.items()}, threads)
        for ours, want in zip(got, expected, strict=True):
            np.testing.assert_array_equal(
                ours.view(np.uint32), want[index].view(np.uint32), err_msg=f"seed {seed}, {threads} threads, {index}"
            )
    few = {case: seen[case] for case in CASES if seen[case] < 5}
    assert not few, f"drawn too seldom to say anything: {few}"


CASES = (
    "segments", "chains", "two chains", "depthwise", "Winograd, blocks of patches", "runs of several tiles", "K whole",
    "K by taps", "K by depth", "pixels outside", "groups of images", "a part of the batch",
    *(["two threads"] if MACHINE.cores > 1 else []),
)  # fmt: skip
