"""Integer vectors: the dot product of bytes, rounding to integers, packing to bytes. IR only.

All of it is exact, so that every instruction set and extension gives the same integers. Saturating shortcuts of x86
(vpmaddubsw adds pairs of products in 16 bits) are not used where a result could reach their limits.

May import: simd.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from .element import INT8_OFFSET
from .isa import AVX512_VNNI, AVX_VNNI, NEON_DOT, NEON_I8MM, Isa
from .vector import F32, I8, I16, I32, splat_vector

_X86: Final = "x86_64"


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _is_x86(builder: Any) -> bool:
    return bool(builder.module.triple.startswith(_X86))


def dot_operand(builder: Any, isa: Isa, x: Any) -> Any:
    """Unsigned bytes of x, in integers or vectors of any size, as `byte_dots` takes them.

    Less 128, where that takes them as signed: the top bit turned over.
    """
    if not isa.signed_dots:
        return x
    scalar = x.type.element if isinstance(x.type, ir.VectorType) else x.type
    top = int.from_bytes(bytes([INT8_OFFSET] * (scalar.width // 8)), "little")
    return builder.xor(x, ir.Constant(x.type, top if scalar is x.type else [top] * x.type.count))


def byte_dots(builder: Any, isa: Isa, x: Any, w: Any, total: Any) -> Any:
    """total + the sum over a lane's four bytes of x (unsigned) times w (signed); all of them vectors of int32.

    x comes from `dot_operand`: where `Isa.signed_dots`, 128 times the sum of w is missing, and is to be in what sums
    start from (`signed_bias` in kernels/step.py).

    VPDPBUSD of AVX512-VNNI and AVX-VNNI is exactly that, and so is USDOT of FEAT_I8MM; SDOT of FEAT_DotProd is that of
    signed bytes. Without them bytes become pairs of 16 bits, whose products and pairwise sums VPMADDWD keeps in 32.
    """
    lanes = isa.lanes
    if AVX512_VNNI in isa.extensions or AVX_VNNI in isa.extensions:
        return _call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", total.type, [total, x, w])
    if NEON_DOT in isa.extensions or NEON_I8MM in isa.extensions:
        name = "sdot" if isa.signed_dots else "usdot"
        operands = [builder.bitcast(words, ir.VectorType(I8, 4 * lanes)) for words in (x, w)]
        return _call(builder, f"llvm.aarch64.neon.{name}.v{lanes}i32.v{4 * lanes}i8", total.type, [total, *operands])
    for odd in (False, True):
        total = builder.add(
            total, _pair_dots(builder, isa, _zero_extended(builder, x, odd), _extended(builder, w, odd))
        )
    return total


def _zero_extended(builder: Any, words: Any, odd: bool) -> Any:
    """The even or the odd bytes of each word as unsigned pairs of 16 bits."""
    halves = ir.VectorType(I16, 2 * words.type.count)
    value = builder.bitcast(words, halves)
    if odd:
        return builder.lshr(value, ir.Constant(halves, [8] * halves.count))
    return builder.and_(value, ir.Constant(halves, [0xFF] * halves.count))


def _extended(builder: Any, words: Any, odd: bool) -> Any:
    """The even or the odd bytes of each word as signed pairs of 16 bits."""
    halves = ir.VectorType(I16, 2 * words.type.count)
    value, eight = builder.bitcast(words, halves), ir.Constant(halves, [8] * halves.count)
    return builder.ashr(value if odd else builder.shl(value, eight), eight)


def _pair_dots(builder: Any, isa: Isa, a: Any, b: Any) -> Any:
    """Sums of products of neighbouring pairs of 16 bits, in 32 bits."""
    result = ir.VectorType(I32, isa.lanes)
    if _is_x86(builder):
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[isa.lanes]
        return _call(builder, f"llvm.x86.{name}", result, [a, b])
    wide = ir.VectorType(I32, 2 * isa.lanes)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (
        builder.shuffle_vector(products, products, ir.Constant(result, [2 * lane + first for lane in range(isa.lanes)]))
        for first in (0, 1)
    )
    return builder.add(even, odd)


def nearest_integers(builder: Any, value: Any) -> Any:
    """A vector of float32 within the range of int32, rounded to nearest, halves to even, as int32."""
    integers = ir.VectorType(I32, value.type.count)
    if _is_x86(builder):
        if value.type.count == 16:
            current_rounding = I32(4)
            everywhere = ir.IntType(16)(-1)
            arguments = [value, ir.Constant(integers, [0] * 16), everywhere, current_rounding]
            return _call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", integers, arguments)
        name = {8: "avx.cvt.ps2dq.256", 4: "sse2.cvtps2dq"}[value.type.count]
        return _call(builder, f"llvm.x86.{name}", integers, [value])
    return builder.fptosi(_call(builder, f"llvm.rint.v{value.type.count}f32", value.type, [value]), integers)


def to_floats(builder: Any, integers: Any) -> Any:
    """A vector of int32 as float32, to nearest."""
    return builder.sitofp(integers, ir.VectorType(F32, integers.type.count))


def packed_unpacked(builder: Any, vectors: list[Any], offset: Any) -> Any:
    """Four vectors of int32, with int32 `offset` added, saturated to bytes: one vector, in the order that two unpacks
    within 128 bits came from."""
    lanes = vectors[0].type.count
    suffix = {16: "avx512.{}.512", 8: "avx2.{}", 4: "sse2.{}.128"}[lanes]
    halves, bytes_ = ir.VectorType(I16, 2 * lanes), ir.VectorType(I8, 4 * lanes)
    if not _is_x86(builder):
        narrow = [_saturated_byte(builder, vector, offset) for vector in vectors]
        two = [_side_by_side(builder, a, b) for a, b in (narrow[:2], narrow[2:])]
        order = [vector * lanes + 4 * part + i for part in range(lanes // 4) for vector in range(4) for i in range(4)]
        joined = _side_by_side(builder, *two)
        return builder.shuffle_vector(joined, joined, ir.Constant(ir.VectorType(I32, 4 * lanes), order))
    added = splat_vector(builder, builder.trunc(offset, I16), 2 * lanes)
    pairs = []
    for pair in (vectors[:2], vectors[2:]):
        narrow = _call(builder, "llvm.x86." + suffix.format("packssdw"), halves, pair)
        pairs.append(_call(builder, f"llvm.sadd.sat.v{2 * lanes}i16", halves, [narrow, added]))
    return _call(builder, "llvm.x86." + suffix.format("packuswb"), bytes_, pairs)


def _side_by_side(builder: Any, a: Any, b: Any) -> Any:
    count = 2 * a.type.count
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), list(range(count))))


def _saturated_byte(builder: Any, vector: Any, offset: Any) -> Any:
    """A vector of int32 plus an int32 scalar, as bytes, saturated."""
    lanes = vector.type.count
    added = builder.add(vector, splat_vector(builder, offset, lanes))
    least, most = (ir.Constant(vector.type, [bound] * lanes) for bound in (0, 255))
    raised = builder.select(builder.icmp_signed(">", added, least), added, least)
    return builder.trunc(builder.select(builder.icmp_signed("<", raised, most), raised, most), ir.VectorType(I8, lanes))


def packed_bytes(builder: Any, vectors: list[Any], offset: Any) -> list[Any]:
    """Vectors of int32, one to four, plus an int32 scalar, saturated to bytes: as vectors of bytes.

    Four at a time on x86: two packs to 16 bits, one to bytes, and one permutation, since packs work within 128 bits.
    """
    lanes = vectors[0].type.count
    if not _is_x86(builder) or lanes == 1:
        return [_saturated_byte(builder, vector, offset) for vector in vectors]
    four = [*vectors, *[vectors[-1]] * (4 - len(vectors))]
    packed = builder.bitcast(packed_unpacked(builder, four, offset), ir.VectorType(I32, lanes))
    bytes_ = ir.VectorType(I8, 4 * lanes)
    blocks = lanes // 4
    order = [4 * block + index for index in range(4) for block in range(blocks)]
    if blocks > 1:
        packed = builder.shuffle_vector(packed, packed, ir.Constant(ir.VectorType(I32, lanes), order))
    whole = builder.bitcast(packed, bytes_)
    return [
        builder.shuffle_vector(
            whole, whole, ir.Constant(ir.VectorType(I32, lanes), list(range(index * lanes, (index + 1) * lanes)))
        )
        for index in range(len(vectors))
    ]


@intrinsic
def rounded(_typing: Any, vector: Any, low: Any, high: Any) -> Any:
    """[rint(min(max(v[i], low[i]), high[i])) ...], halves to even; bounds within int32; a NaN becomes low"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        value, least, most = args
        raised = builder.select(builder.fcmp_ordered(">", value, least), value, least)
        bounded = builder.select(builder.fcmp_ordered("<", raised, most), raised, most)
        return to_floats(builder, nearest_integers(builder, bounded))

    return vector(vector, low, high), emit
