"""What the planner decides, as records and apart from what becomes of it: choose -> record -> lower.

`choose.py` makes these records from a machine's description, `record.py` reads them from a plan file, `check.py` says
whether they can be followed, `lower/` follows them. Whatever else a step record holds follows from the graph and the
ISA, nothing of it from the caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ..graph.ir import Graph, Op
from ..kernels.step import KernelName
from ..simd.isa import Tile
from .blocking import Blocks
from .chains import Chain
from .segments import Segment


@dataclass(frozen=True)
class PanelRun:
    """Consecutive panels of output channels that have one register tile and one set of cache blocks: one step."""

    tile: Tile
    panels: int
    blocks: Blocks


@dataclass(frozen=True)
class GemmChoice:
    """A convolution (each of its groups) or dense layer by conv_gemm.

    group_images: images whose pixels are tiled together, a divisor of those that run at once. runs: in channel order,
    covering all output channels.
    """

    kernel: ClassVar[KernelName] = "conv_gemm"
    group_images: int
    runs: tuple[PanelRun, ...]


@dataclass(frozen=True)
class WinogradChoice:
    """A 3x3 convolution by conv_winograd. mc patches by nc_panels panels of output channels per unit."""

    kernel: ClassVar[KernelName] = "conv_winograd"
    tile: Tile
    mc: int
    nc_panels: int


@dataclass(frozen=True)
class DepthwiseChoice:
    """A 3x3 depthwise convolution by depthwise_3x3: MR pixels of a row by one vector of channels at a time.

    nc_panels: vectors of channels that go together down the `rows` output rows of a unit. In a chain, units are the
    rows of its bands.
    """

    kernel: ClassVar[KernelName] = "depthwise_3x3"
    tile: Tile
    nc_panels: int
    rows: int


ConvChoice: TypeAlias = GemmChoice | WinogradChoice | DepthwiseChoice


@dataclass(frozen=True)
class Choices:
    """All that is decided about one graph. nodes: by `node_keys`, of ops for which there is something to choose.
    chains: in order, each within one segment."""

    segments: tuple[Segment, ...]
    chains: tuple[Chain, ...]
    nodes: Mapping[str, ConvChoice]


def node_keys(graph: Graph) -> dict[str, str]:
    """The output of each op -> what a plan calls the op: the node's name, with the output if others share the name."""
    names = [op.name for op in graph.ops]
    return {op.output: op.name if names.count(op.name) == 1 else f"{op.name} -> {op.output}" for op in graph.ops}


def node_key(op: Op, keys: Mapping[str, str]) -> str:
    """What a plan calls an op."""
    return keys[op.output]
