"""The instruction sets that kernels are written for, as records and as tags that jitted code dispatches on.

A tag is the first argument of every kernel. Its *type* carries the record, so vector widths and tile shapes are
compile-time constants, and Numba's disk cache tells one ISA's code from another's. (A kernel factory that closes
over the ISA would never hit that cache.)

May import: nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from numba.core import types
from numba.core.datamodel import models
from numba.extending import NativeValue, intrinsic, register_model, typeof_impl, unbox


@dataclass(frozen=True)
class Tile:
    """A register tile of the GEMM micro-kernel: MR output pixels by NR vectors of output channels."""

    mr: int
    nr: int

    def __str__(self) -> str:
        return f"{self.mr}x{self.nr}"


@dataclass(frozen=True)
class Isa:
    """One instruction set.

    lanes: float32 elements per vector. fma: whether a fused multiply-add exists; without it products are rounded
    before they are added. cpu_flags: what /proc/cpuinfo must list. llvm_cpu: the LLVM processor to compile for
    when this ISA is asked for on a machine that has a better one. tiles: what the GEMM micro-kernel is compiled
    as; within one NR the larger MR first. depthwise_mr: most pixels of a row that the depthwise micro-kernel takes at
    once; its sums, and columns and taps on their way, must fit the registers.

    Tile shapes: MR * NR accumulators + NR weight vectors + 1 broadcast must fit the registers. Wide tiles (NR = 4)
    load least per multiply-add: (MR + NR) loads feed MR * NR of them, and cores load two vectors a cycle at best.
    The smaller MR beside the large one keeps the last tile of a 7x7 picture (49 pixels) full. A single row is for
    dense layers on one image: eight chains hide the latency of the multiply-add.
    """

    name: str
    lanes: int
    fma: bool
    cpu_flags: tuple[str, ...]
    llvm_cpu: str
    tiles: tuple[Tile, ...]
    depthwise_mr: int


AVX512: Final = Isa(
    "avx512",
    lanes=16,
    fma=True,
    cpu_flags=("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"),
    llvm_cpu="skylake-avx512",
    tiles=(Tile(6, 4), Tile(5, 4), Tile(8, 3), Tile(12, 2), Tile(16, 1), Tile(1, 8)),
    depthwise_mr=8,
)
AVX2: Final = Isa(
    "avx2",
    lanes=8,
    fma=True,
    cpu_flags=("avx2", "fma"),
    llvm_cpu="haswell",
    tiles=(Tile(6, 2), Tile(5, 2), Tile(4, 3), Tile(12, 1), Tile(1, 8)),
    depthwise_mr=7,
)
GENERIC: Final = Isa(
    "generic",
    lanes=4,
    fma=False,
    cpu_flags=(),
    llvm_cpu="x86-64",
    tiles=(Tile(5, 2), Tile(4, 2), Tile(9, 1), Tile(1, 8)),
    depthwise_mr=7,
)

ISAS: Final = (AVX512, AVX2, GENERIC)
"""Best first."""


class IsaType(types.Type):
    """The Numba type of an `Isa`; two ISAs have two types."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        super().__init__(name=f"Isa({isa.name}, {isa.lanes} lanes)")


class TileType(types.Type):
    """The Numba type of one tile of one ISA."""

    def __init__(self, isa: Isa, tile: Tile) -> None:
        self.isa = isa
        self.tile = tile
        super().__init__(name=f"Tile({tile}, {isa.name}, {isa.lanes} lanes)")


@typeof_impl.register(Isa)
def _typeof_isa(value: Isa, _context: Any) -> IsaType:
    return IsaType(value)


register_model(IsaType)(models.OpaqueModel)
register_model(TileType)(models.OpaqueModel)


@unbox(IsaType)
def _unbox_tag(_type: types.Type, _obj: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


def _constant(value: int) -> Any:
    def emit(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return context.get_constant(types.intp, value)

    return emit


@intrinsic
def lanes_of(_typing: Any, isa: Any) -> Any:
    """Isa.lanes, a constant in jitted code."""
    return types.intp(isa), _constant(isa.isa.lanes)


@intrinsic
def mr_of(_typing: Any, tile: Any) -> Any:
    """Tile.mr, a constant in jitted code."""
    return types.intp(tile), _constant(tile.tile.mr)


@intrinsic
def width_of(_typing: Any, tile: Any) -> Any:
    """Tile.nr * Isa.lanes, the output channels of a panel, a constant in jitted code."""
    return types.intp(tile), _constant(tile.tile.nr * tile.isa.lanes)
