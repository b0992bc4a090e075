"""Machine x problem -> register tile and cache blocks of a convolution. Pure, and nothing here changes a result:
each output element is one chain of multiply-adds whatever the tiles and blocks are.

Depth is in words of four bytes, the step of the micro-kernel, where nothing else is said: one float32, or two bfloat16.
So a smaller element divides bytes and cycles alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from ..machine import Machine
from ..simd.element import Element
from ..simd.isa import Isa, Tile
from .pack import words_of
from .problem import GemmProblem

FMA_PER_CYCLE: Final = 2
_LOADS_PER_CYCLE: Final = 2
_FMA_LATENCY_CYCLES: Final = 4
_L2_BYTES_PER_CYCLE: Final = 24
"""What L2 gives of a panel while tiles use it: fitted to 6x4 against 5x4 tiles of layers whose panels exceed L1, with
vectors of 64 bytes (Cascade Lake)."""

_TILE_OVERHEAD_CYCLES: Final = 70
"""Entering and leaving a tile (row pointers, bias, epilogue, stores): 62 to 93 measured, tiles 6x4, 8x3, 12x2 and 12x1
over depths of 27 to 256, all operands in L1 or L2 (Cascade Lake)."""

_STEP_OVERHEAD_CYCLES: Final = 10000
"""Another step for the same layer, so another meeting of the threads: a generous guess, 4 us. With 3000, ResNet50 and
MobileNetV2 are as fast with one thread, by one more step."""

_WORDS_PER_CYCLE: Final = 4
"""Rate at which another step, or another panel where neither weights nor input stay in L2, reads the input once more,
from L2 or L3: 16 bytes of the 11 to 25 measured."""

L3_BYTES_PER_CYCLE: Final = 4
"""What a core gets of activations that lie in L3 and are not prefetched, while all cores work; roughly a server's."""

STREAMED_BYTES_PER_CYCLE: Final = 6
"""What prefetched weights cost: a layer exceeds its multiply-adds by a cycle for so many bytes that are not in L2.
Fitted to measured ResNet50 layers with 16 to 128 Winograd patches per unit (Cascade Lake at 2.5 GHz)."""

_DEPTHWISE_OVERHEAD_PIXELS: Final = 2
"""What a tile costs beyond its pixels, in pixels: addresses, and columns that no neighbour shares."""

_DEPTHWISE_ROWS: Final = 7
"""Output rows per unit: the two further input rows that it reads are read by its neighbour, too."""

_GROUPED_UNITS: Final = 16
"""Units that a layer keeps, if it has as many, where its pixels come in groups that stay in L2: what a layer of 1024
channels has in batch 1. Larger units read a group more seldom, smaller ones feed larger teams."""

_LEAST_UNITS: Final = 8
"""Units of `_UNIT_STEPS` into which few panels are cut, so that teams of some threads have work, and an interrupted
thread keeps the others waiting for less. Two to four panels as 16 units cost one thread 1 to 6 % of such a layer
(Cascade Lake)."""

_UNIT_STEPS: Final = 1 << 20
"""Multiply-adds, of words, that one unit of work should hold: some tens of microseconds, so that sharing out is cheap
and an interrupted thread does not keep the others waiting for long."""


@dataclass(frozen=True)
class Blocks:
    """MC output pixels and NC panels per unit, KC as whole taps or as part of one tap's depth; see conv_gemm.

    kc_depth: in elements.
    """

    mc: int
    nc_panels: int
    kc_taps: int
    kc_depth: int
    panels_outside: bool


def tile_cycles(tile: Tile, lanes: int, depth: int) -> float:
    """Estimated cycles of one tile over a depth: bound by multiply-adds, by loads, by L2, or by the latency of one
    chain."""
    per_step = max(
        tile.mr * tile.nr / FMA_PER_CYCLE,
        (tile.mr + tile.nr) / _LOADS_PER_CYCLE,
        tile.nr * lanes * 4 / _L2_BYTES_PER_CYCLE,
        _FMA_LATENCY_CYCLES,
    )
    return depth * per_step + _TILE_OVERHEAD_CYCLES


def direct_cycles(machine: Machine, macs: int, weight_count: int, element: Element) -> float:
    """Estimated cycles of a direct convolution on one core, of values and weights of that type."""
    weight_bytes = weight_count * element.bytes
    return macs / element.per_word / machine.isa.lanes / FMA_PER_CYCLE + weight_bytes / STREAMED_BYTES_PER_CYCLE


@cache
def choose_tiles(machine: Machine, problem: GemmProblem) -> tuple[tuple[int, int], ...]:
    """Covers the vectors of output channels by panels: ((index into isa.tiles, panels), ...), in channel order.

    The cheapest cover by `tile_cycles` of ceil(pixels / MR) tiles per panel, each NR used for one run of panels. Wide
    panels are worth more where each of them reads the input from L3 once more.

    Raises: KeyError if the tiles cannot cover that many vectors; those of an ISA, with one of NR = 1, cover any number.
    """
    isa, pixels, x_bytes = machine.isa, problem.group_pixels, problem.group_x_bytes
    reading = x_bytes / 4 / _WORDS_PER_CYCLE
    rereading = 0 if min(problem.weight_bytes(isa.lanes), x_bytes) <= machine.l2_bytes // 2 else reading
    best: dict[int, tuple[float, tuple[tuple[int, int], ...]]] = {0: (0.0, ())}
    for rest in range(1, problem.vectors + 1):
        options = []
        for index, tile in enumerate(isa.tiles):
            panels, left = divmod(rest, tile.nr)
            if panels and left in best:
                cost, cover = best[left]
                tiles = -(-pixels // tile.mr)
                cycles = panels * (tiles * tile_cycles(tile, isa.lanes, problem.words) + rereading)
                cycles += _STEP_OVERHEAD_CYCLES + reading
                options.append((cost + cycles, ((index, panels), *cover)))
        if options:
            best[rest] = min(options)
    return best[problem.vectors][1]


def choose_blocks(machine: Machine, tile: Tile, panels: int, problem: GemmProblem) -> Blocks:
    """Cache blocks of so many panels, after BLIS (Van Zee and van de Geijn 2015), for an operand that is read in place.

    Weights that fit half of L2 stay there while pixels stream past once: pixels outside, a unit is enough pixels
    for `_UNIT_STEPS`. Larger weights stream past the pixels once: panels outside, a unit is a panel, and KC is
    such that a block of the panel and its successor, which is being prefetched, fill half of L2. So do smaller ones if
    the pixels stay in L2 themselves: a panel then comes from L1 for tile after tile (layers of 14 and 7 pixels are 1.1
    to 1.25 times as fast on Cascade Lake). Where the pixels come in several groups that stay in L2 one at a time, a
    unit is several panels of one group, so that not every panel fetches all groups (1x1 layers of 14 pixels and 8
    images: 1.1). Few panels share out their pixels, unless KC is cut: each tile reads its panel from L2 in any case.
    """
    pixels, per_word = problem.group_pixels, problem.element.per_word
    words = words_of(problem.depth, problem.element)
    width_bytes = tile.nr * machine.isa.lanes * 4
    panel_bytes = problem.words * width_bytes
    steps_per_tile = tile.mr * (width_bytes // 4) * problem.words
    tiles = -(-pixels // tile.mr)
    y_bytes = pixels * panels * tile.nr * machine.isa.lanes * problem.y_element.bytes
    pixels_stay = problem.group_x_bytes + y_bytes <= machine.l2_bytes * 2 // 3
    if panels * panel_bytes <= machine.l2_bytes // 2 and (panels == 1 or not pixels_stay):
        tiles = max(1, min(_UNIT_STEPS // (steps_per_tile * panels), tiles))
        return Blocks(tiles * tile.mr, panels, problem.taps, problem.depth, panels_outside=False)
    kc = max(1, machine.l2_bytes // 4 // width_bytes)
    kc_taps = _balanced(problem.taps, max(1, kc // words))
    kc_depth = problem.depth if words <= kc else _balanced(words, kc) * per_word
    nc_panels = 1
    if problem.image_groups > 1 and problem.group_x_bytes <= machine.l2_bytes // 2:
        nc_panels = min(panels, max(1, panels * problem.image_groups // _GROUPED_UNITS))
    blocks = 1
    if (kc_taps, kc_depth) == (problem.taps, problem.depth):
        least = min(_LEAST_UNITS, problem.image_groups * panels * tiles * steps_per_tile // _UNIT_STEPS)
        blocks = min(tiles, max(1, -(-least // (problem.image_groups * -(-panels // nc_panels)))))
    return Blocks(_balanced(tiles, -(-tiles // blocks)) * tile.mr, nc_panels, kc_taps, kc_depth, panels_outside=True)


def depthwise_tiles(isa: Isa, out_w: int) -> tuple[Tile, ...]:
    """What depthwise_3x3 can take of rows of so many pixels, smallest first."""
    return tuple(Tile(mr, 1) for mr in range(1, min(out_w, isa.depthwise_mr) + 1))


def choose_depthwise(
    machine: Machine, in_w: int, picture_bytes: int, out: tuple[int, int], vectors: int, element: Element
) -> tuple[Tile, int, int]:
    """Tile, panels of one vector and output rows per unit of a 3x3 depthwise convolution.

    picture_bytes: of its input. out: OH, OW. vectors: of channels.

    Three rows of the input, of as many channels as go together, fill most of L1; a picture that comes from beyond L2
    is read as it lies, all channels of a pixel together.
    """
    lanes = machine.isa.lanes
    tiles = depthwise_tiles(machine.isa, out[1])
    tile = min(tiles, key=lambda tile: -(-out[1] // tile.mr) * (tile.mr + _DEPTHWISE_OVERHEAD_PIXELS))
    nc = max(2, machine.l1d_bytes * 3 // 4 // (3 * in_w * lanes * element.bytes))
    if picture_bytes > machine.l2_bytes:
        nc = vectors
    return tile, min(nc, vectors), min(out[0], _DEPTHWISE_ROWS)


def _balanced(total: int, limit: int) -> int:
    """The block size that cuts `total` into the fewest blocks of at most `limit`, as equal as can be."""
    return -(-total // -(-total // limit))
