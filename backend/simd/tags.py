"""Instruction sets and tiles as tags that jitted code dispatches on.

A tag is the first argument of every kernel. Its *type* carries the record, so vector widths and tile shapes are
compile-time constants, and Numba's disk cache tells one ISA's code from another's. (A kernel factory that closes
over the ISA would never hit that cache.)

May import: simd.isa.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.datamodel import models
from numba.extending import NativeValue, intrinsic, register_model, typeof_impl, unbox

from .isa import Isa, Tile


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
