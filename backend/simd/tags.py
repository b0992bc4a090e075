"""Tags: the first argument of every kernel, values without data whose *type* says what is known at compile time.

Instruction set, register tile and element types of the operands are in that type, so that vector widths and tile
shapes are constants, and Numba's disk cache tells one kernel's code from another's. (A kernel factory that closes
over them would never hit that cache.)

May import: simd.isa, simd.element.
"""

from __future__ import annotations

from typing import Any, Final

from numba.core import types
from numba.core.datamodel import models
from numba.extending import NativeValue, intrinsic, register_model, typeof_impl, unbox

from .element import ALL_FLOAT32, FLOAT32, UINT8, Operands
from .isa import Isa, Tile


class TagType(types.Type):
    """The Numba type of a tag. An `Isa` record passes for a tag of its own.

    tile: None for a kernel without tiles. lines_ahead: cache lines of the next panel that a tile fetches into L2 in
    each iteration.
    """

    def __init__(
        self, isa: Isa, tile: Tile | None = None, operands: Operands = ALL_FLOAT32, lines_ahead: int = 2
    ) -> None:
        self.isa = isa
        self.tile = tile
        self.operands = operands
        self.lines_ahead = lines_ahead
        instructions = "+".join((isa.name, *isa.extensions))
        super().__init__(name=f"Tag({tile}, {instructions}, {isa.lanes} lanes, {self.operands}, {lines_ahead} ahead)")


@typeof_impl.register(Isa)
def _typeof_isa(value: Isa, _context: Any) -> TagType:
    return TagType(value)


register_model(TagType)(models.OpaqueModel)


@unbox(TagType)
def _unbox_tag(_type: types.Type, _obj: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


def _constant(value: int) -> Any:
    def emit(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return context.get_constant(types.intp, value)

    return emit


@intrinsic
def lanes_of(_typing: Any, tag: Any) -> Any:
    """Isa.lanes, a constant in jitted code."""
    return types.intp(tag), _constant(tag.isa.lanes)


@intrinsic
def mr_of(_typing: Any, tag: Any) -> Any:
    """Tile.mr, a constant in jitted code."""
    return types.intp(tag), _constant(tag.tile.mr)


@intrinsic
def width_of(_typing: Any, tag: Any) -> Any:
    """Tile.nr * Isa.lanes, the output channels of a panel, a constant in jitted code."""
    return types.intp(tag), _constant(tag.tile.nr * tag.isa.lanes)


@intrinsic
def x_per_word(_typing: Any, tag: Any) -> Any:
    """Elements of x in a word, the depth of a dot product, a constant in jitted code."""
    return types.intp(tag), _constant(tag.operands.x.per_word)


@intrinsic
def y_per_word(_typing: Any, tag: Any) -> Any:
    """Elements of y in a word, a constant in jitted code."""
    return types.intp(tag), _constant(tag.operands.y.per_word)


@intrinsic
def sums_are_y(_typing: Any, tag: Any) -> Any:
    """1 if sums of a part of K are of y's own type and scale, else 0, a constant in jitted code."""
    return types.intp(tag), _constant(int(tag.operands.x != UINT8 and tag.operands.y == FLOAT32))


@intrinsic
def x_is_signed(_typing: Any, tag: Any) -> Any:
    """1 if x is of bytes that are multiplied as signed ones (`Isa.signed_dots`), else 0, a constant in jitted code."""
    return types.intp(tag), _constant(int(tag.operands.x == UINT8 and tag.isa.signed_dots))


_POINT_LINES_AHEAD: Final = 4
"""Where few tiles share a short panel, as among Winograd's patches: with two lines, the 14 pixel layers of ResNet50
find half of a panel in L2 at batch 1 (these layers 1.04; layers of many tiles 0.99; AVX-512 on Cascade Lake)."""


@intrinsic
def with_sums(_typing: Any, tag: Any) -> Any:
    """The tag of the same tile for a point of Winograd's patches: sums for a result, float32 elements of y."""
    operands = tag.operands

    def emit(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return context.get_dummy_value()

    return TagType(tag.isa, tag.tile, Operands(operands.x, b=operands.b), _POINT_LINES_AHEAD)(tag), emit
