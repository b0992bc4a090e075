"""Elements of a value between memory and registers: float32 to compute with, whatever lies in the arena.

`load_x`, `store_y` and so on take the element type of their operand from the kernel's tag, so that a kernel is
written once for all of them. Offsets are in elements of the operand. For float32 they are plain loads and stores.

bfloat16 is the upper half of a float32. Rounding is to nearest even by x86's VCVTNEPS2BF16 or, where the CPU has none,
by the same arithmetic on integers: `element.to_bfloat16` says what comes out, to the bit.

May import: simd.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .element import BFLOAT16, FLOAT32, UINT8, Element
from .integers import nearest_integers
from .isa import AVX512_BF16, Isa
from .vector import F32, I8, I16, I32, I64, VectorType, load_vector, store_vector

_UPPER: Final = 16
"""Bits by which a bfloat16 is shifted in a float32."""


def element_type(element: Element) -> Any:
    """The LLVM type that an element has in memory."""
    return {FLOAT32: F32, BFLOAT16: I16, UINT8: I8}[element]


def operand_pointer(context: Any, builder: Any, array_type: Any, array: Any, element: Element, offset: Any) -> Any:
    """LLVM pointer to the `offset`-th element of that type in a 1-D C-contiguous array; no bounds check."""
    start = context.make_array(array_type)(context, builder, array).data
    if element != FLOAT32:
        start = builder.bitcast(start, element_type(element).as_pointer())
    return builder.gep(start, [offset])


def read_elements(builder: Any, element: Element, pointer: Any, lanes: int) -> Any:
    """IR that reads `lanes` elements as a vector of float32."""
    if element == FLOAT32:
        return load_vector(builder, pointer, lanes)
    return _widened(builder, load_vector(builder, pointer, lanes, element.bytes, element_type(element)), element)


def write_elements(builder: Any, isa: Isa, element: Element, vector: Any, pointer: Any) -> None:
    """IR that writes a vector of float32 as elements."""
    if element == FLOAT32:
        store_vector(builder, vector, pointer)
    else:
        store_vector(builder, _narrowed(builder, isa, vector, element), pointer, element.bytes)


def write_element(builder: Any, isa: Isa, element: Element, value: Any, pointer: Any) -> None:
    """IR that writes one float32 as an element."""
    builder.store(value if element == FLOAT32 else _narrowed(builder, isa, value, element), pointer)


def _integers(like: Any, bits: int) -> Any:
    """The integer type of so many bits with as many lanes as a type has, or none."""
    one = ir.IntType(bits)
    return ir.VectorType(one, like.count) if isinstance(like, ir.VectorType) else one


def _number(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _widened(builder: Any, narrow: Any, element: Element) -> Any:
    """bfloat16, as 16 bits, or uint8 to float32: exact."""
    words = _integers(narrow.type, 32)
    floats = ir.VectorType(F32, narrow.type.count) if isinstance(narrow.type, ir.VectorType) else F32
    wide = builder.zext(narrow, words)
    if element == UINT8:
        return builder.sitofp(wide, floats)
    return builder.bitcast(builder.shl(wide, _number(words, _UPPER)), floats)


def _narrowed(builder: Any, isa: Isa, value: Any, element: Element) -> Any:
    """float32 to bfloat16, as 16 bits, or to uint8."""
    return _byte(builder, value) if element == UINT8 else _rounded(builder, isa, value)


def _byte(builder: Any, value: Any) -> Any:
    """float32 to uint8: to nearest, halves to even, saturated; a NaN becomes 0."""
    zero, most = _number(value.type, 0.0), _number(value.type, 255.0)
    raised = builder.select(builder.fcmp_ordered(">", value, zero), value, zero)
    bounded = builder.select(builder.fcmp_ordered("<", raised, most), raised, most)
    if isinstance(value.type, ir.VectorType):
        return builder.trunc(nearest_integers(builder, bounded), _integers(value.type, 8))
    rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F32, [F32]), "llvm.rint.f32")
    return builder.fptoui(builder.call(rint, [bounded]), I8)


def _rounded(builder: Any, isa: Isa, value: Any) -> Any:
    """float32 to bfloat16, as 16 bits: nearest even, denormals to zeros of their sign, NaNs quiet."""
    halves, words = _integers(value.type, 16), _integers(value.type, 32)
    if AVX512_BF16 in isa.extensions and isinstance(value.type, ir.VectorType):
        # Declared with integers in place of bfloat, as LLVM 16 and older do; later ones translate that as they read it.
        name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * value.type.count}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(halves, [value.type]), name)
        return builder.call(function, [value])
    bits = builder.bitcast(value, words)
    upper = builder.lshr(bits, _number(words, _UPPER))
    up = builder.add(_number(words, 0x7FFF), builder.and_(upper, _number(words, 1)))
    nearest = builder.lshr(builder.add(bits, up), _number(words, _UPPER))
    quiet = builder.or_(upper, _number(words, 0x40))
    result = builder.select(builder.fcmp_unordered("uno", value, value), quiet, nearest)
    exponent = builder.and_(bits, _number(words, 0x7F800000))
    tiny = builder.icmp_unsigned("==", exponent, _number(words, 0))
    return builder.trunc(builder.select(tiny, builder.and_(upper, _number(words, 0x8000)), result), halves)


def _load(tag: Any, arena: Any, element: Element) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = operand_pointer(context, builder, signature.args[1], args[1], element, args[2])
        return read_elements(builder, element, pointer, signature.args[0].isa.lanes)

    return VectorType(tag.isa.lanes)(tag, arena, types.intp), emit


def _get(tag: Any, arena: Any, element: Element) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(operand_pointer(context, builder, signature.args[1], args[1], element, args[2]))
        return value if element == FLOAT32 else _widened(builder, value, element)

    return types.float32(tag, arena, types.intp), emit


@intrinsic
def load_x(_typing: Any, tag: Any, arena: Any, offset: Any) -> Any:
    """x[offset : offset + lanes]"""
    return _load(tag, arena, tag.operands.x)


@intrinsic
def load_b(_typing: Any, tag: Any, arena: Any, offset: Any) -> Any:
    """b[offset : offset + lanes]"""
    return _load(tag, arena, tag.operands.b)


@intrinsic
def store_y(_typing: Any, tag: Any, arena: Any, offset: Any, vector: Any) -> Any:
    """y[offset : offset + lanes] = vector"""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        pointer = operand_pointer(context, builder, signature.args[1], args[1], kind.operands.y, args[2])
        write_elements(builder, kind.isa, kind.operands.y, args[3], pointer)
        return context.get_dummy_value()

    return types.void(tag, arena, types.intp, vector), emit


@intrinsic
def store_y_interleaved(_typing: Any, tag: Any, arena: Any, offset: Any, a: Any, b: Any, c: Any) -> Any:
    """y[offset : offset + 3 * lanes] = [a[0], b[0], c[0], a[1], b[1], c[1] ...]"""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        lanes, element, vectors = kind.isa.lanes, kind.operands.y, args[3:]
        pointer = operand_pointer(context, builder, signature.args[1], args[1], element, args[2])

        def shuffle(first: Any, second: Any, indices: list[int]) -> Any:
            return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, lanes), indices))

        for part in range(3):
            places = [divmod(part * lanes + lane, 3) for lane in range(lanes)]
            two = shuffle(vectors[0], vectors[1], [pixel + lanes * (channel % 2) for pixel, channel in places])
            three = [lanes + pixel if channel == 2 else lane for lane, (pixel, channel) in enumerate(places)]
            mixed = shuffle(two, vectors[2], three)
            write_elements(builder, kind.isa, element, mixed, builder.gep(pointer, [I64(part * lanes)]))
        return context.get_dummy_value()

    return types.void(tag, arena, types.intp, a, b, c), emit


@intrinsic
def get_x(_typing: Any, tag: Any, arena: Any, index: Any) -> Any:
    """x[index] as float32"""
    return _get(tag, arena, tag.operands.x)


@intrinsic
def get_b(_typing: Any, tag: Any, arena: Any, index: Any) -> Any:
    """b[index] as float32"""
    return _get(tag, arena, tag.operands.b)


@intrinsic
def get_y(_typing: Any, tag: Any, arena: Any, index: Any) -> Any:
    """y[index] as float32"""
    return _get(tag, arena, tag.operands.y)


@intrinsic
def set_y(_typing: Any, tag: Any, arena: Any, index: Any, value: Any) -> Any:
    """y[index] = float32 value"""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        pointer = operand_pointer(context, builder, signature.args[1], args[1], kind.operands.y, args[2])
        write_element(builder, kind.isa, kind.operands.y, args[3], pointer)
        return context.get_dummy_value()

    del value
    return types.void(tag, arena, types.intp, types.float32), emit


@intrinsic
def fill_y(_typing: Any, tag: Any, arena: Any, start: Any, stop: Any, value: Any) -> Any:
    """y[start:stop] = float32 value"""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, element = signature.args[0], signature.args[0].operands.y
        first = operand_pointer(context, builder, signature.args[1], args[1], element, args[2])
        count = builder.sub(args[3], args[2])
        if element == UINT8:
            with builder.if_then(builder.icmp_signed(">", count, I64(0))):
                cgutils.memset(builder, first, count, _byte(builder, args[4]))
        else:
            with cgutils.for_range(builder, count) as loop:
                write_element(builder, kind.isa, element, args[4], builder.gep(first, [loop.index]))
        return context.get_dummy_value()

    del start, stop, value
    return types.void(tag, arena, types.intp, types.intp, types.float32), emit


@intrinsic
def move_y(_typing: Any, tag: Any, arena: Any, index: Any, table: Any, entry: Any) -> Any:
    """y[index] = table[entry], both of y's element type: no conversion"""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = signature.args[0].operands.y
        value = builder.load(operand_pointer(context, builder, signature.args[3], args[3], element, args[4]))
        builder.store(value, operand_pointer(context, builder, signature.args[1], args[1], element, args[2]))
        return context.get_dummy_value()

    return types.void(tag, arena, types.intp, table, types.intp), emit
