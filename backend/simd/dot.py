"""The dot product at the heart of implicit GEMM: sums += words of x times words of packed weights.

A word is four bytes: one float32, or as many smaller elements as fit it, consecutive in depth. A lane's accumulator
takes all products of its word at once. Loops, tables and tiles of the micro-kernel count words and know nothing of
this; another element type or instruction is another branch here.

bfloat16 pairs are multiplied by x86's VDPBF16PS. Intel, "Software Developer's Manual", volume 2: for each lane, first
the product of the odd elements is added, then that of the even ones, rounding to nearest even after each. Products of
bfloat16 are exact in float32, so two multiply-adds in that order, which are what runs on a CPU that lacks the
instruction, give the same bits, but for this: the instruction takes denormals for zeros, and returns zeros for them.

Arm's BFDOT first adds the two products to each other, then to the sum. Arm, "Architecture Reference Manual" (DDI 0487),
BFDOT: both additions round to odd, which errs by less than a unit in the last place where rounding to nearest errs by
half of one, and denormals are zeros throughout. On a product's way are the rounding of its pair and one for each pair,
each at most twice as large: for P pairs the bound is that of a chain of 2 P + 2 multiply-adds, and the bits are others.
(That is FPCR.EBF = 0, which Linux leaves; BFMMLA, which the C library uses, is two BFDOTs one after the other.)

Bytes, unsigned in x and signed in w, have sums of int32, which are exact: `integers.byte_dots`, which may want those of
x less 128 and sums that start from `signed_bias`. Their depth comes in whole words, filled up with weights of zero.

May import: simd.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from .element import BFLOAT16, FLOAT32, UINT8
from .integers import byte_dots, dot_operand
from .isa import AVX512_BF16, NEON_BF16, NEON_I8MM
from .lane_operand import BFLOAT16_WORDS, INT32_WORDS, load_lane_operand, splat_word
from .memory import element_type
from .tags import TagType
from .vector import F32, I8, I32, I64, fma_vector, load_vector, splat_vector


class Dot:
    """Emits the dot product of one tag's x.

    depth: elements of x in a word. word, sum: LLVM types in registers, of a word and of what the products add up to.
    """

    def __init__(self, builder: Any, tag: TagType) -> None:
        self.builder, self.isa, self.element = builder, tag.isa, tag.operands.x
        self.depth = self.element.per_word
        self.word = F32 if self.element == FLOAT32 else I32
        self.sum = I32 if self.element == UINT8 else F32

    def broadcast(self, row: Any, at: Any, word: int) -> Any:
        """The word so many words behind element `at` of a row of x, in every lane. It need not be aligned to words."""
        pointer = self._pointer(row, at, word)
        if self.element != FLOAT32:
            pointer = self.builder.bitcast(pointer, self.word.as_pointer())
        if self.isa.broadcast_loads:
            value = self.builder.load(pointer, align=self.element.bytes)
        else:
            value = load_lane_operand(self.builder, pointer, self.element.bytes)
        if self.element == UINT8:
            value = dot_operand(self.builder, self.isa, value)
        return splat_vector(self.builder, value, self.isa.lanes)

    def broadcast_of_many(self, row: Any, at: Any, word: int) -> Any:
        """`broadcast` of one of an even number of words from `at` on."""
        if self.element == BFLOAT16 and NEON_BF16 in self.isa.extensions:
            kind = BFLOAT16_WORDS
        elif self.element == UINT8 and NEON_I8MM in self.isa.extensions:
            kind = INT32_WORDS
        else:
            return self.broadcast(row, at, word)
        pointer = self.builder.bitcast(self._pointer(row, at, word - word % 2), kind.as_pointer())
        return splat_word(self.builder, load_lane_operand(self.builder, pointer, self.element.bytes), word % 2)

    def broadcast_one(self, row: Any, at: Any, word: int) -> Any:
        """A word of one element of x and zeros behind it: what follows the last element may be anything, a NaN too."""
        pointer = self.builder.bitcast(self._pointer(row, at, word), element_type(self.element).as_pointer())
        return splat_vector(self.builder, self.builder.zext(self.builder.load(pointer), self.word), self.isa.lanes)

    def _pointer(self, row: Any, at: Any, word: int) -> Any:
        return self.builder.gep(row, [self.builder.add(at, I64(word * self.depth))])

    def weights(self, pointer: Any) -> Any:
        """A vector of words of weights, aligned to its size."""
        return load_vector(self.builder, pointer, self.isa.lanes, self.isa.lanes * 4, self.word)

    def accumulate(self, x: Any, w: Any, total: Any) -> Any:
        """total + the products of the words' elements, lane by lane."""
        builder = self.builder
        if self.element == FLOAT32:
            return fma_vector(builder, self.isa, x, w, total)
        if self.element == UINT8:
            return byte_dots(builder, self.isa, x, w, total)
        if AVX512_BF16 in self.isa.extensions:
            # Declared with integers in place of bfloat, as LLVM 16 and older do; later ones translate that.
            name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.isa.lanes}"
            signature = ir.FunctionType(total.type, [total.type, w.type, x.type])
            return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [total, w, x])
        if NEON_BF16 in self.isa.extensions:
            # Declared with bytes in place of bfloat, as LLVM 11 and older do.
            bytes_ = ir.VectorType(I8, 4 * self.isa.lanes)
            signature = ir.FunctionType(total.type, [total.type, bytes_, bytes_])
            function = cgutils.get_or_insert_function(builder.module, signature, "llvm.aarch64.neon.bfdot.v4f32.v16i8")
            return builder.call(function, [total, builder.bitcast(w, bytes_), builder.bitcast(x, bytes_)])
        (x_even, x_odd), (w_even, w_odd) = self._halves(x), self._halves(w)
        total = fma_vector(builder, self.isa, x_odd, w_odd, total)
        return fma_vector(builder, self.isa, x_even, w_even, total)

    def _halves(self, words: Any) -> tuple[Any, Any]:
        """The even and the odd bfloat16 of each word, as float32."""
        builder, floats = self.builder, ir.VectorType(F32, self.isa.lanes)
        shift = ir.Constant(words.type, [16] * self.isa.lanes)
        upper = ir.Constant(words.type, [0xFFFF0000] * self.isa.lanes)
        return builder.bitcast(builder.shl(words, shift), floats), builder.bitcast(builder.and_(words, upper), floats)


def _vectors(builder: Any, tag: TagType, values: tuple[Any, ...], kind: Any) -> list[Any]:
    return [builder.bitcast(value, ir.VectorType(kind, tag.isa.lanes)) for value in values]


@intrinsic
def multiply_add(_typing: Any, tag: Any, c: Any, x: Any, y: Any) -> Any:
    """One link of a chain, as the micro-kernel multiplies the tag's x; all in the bits of vectors of float32.

    c * x + y of float32, c + x[1] * y[1] + x[0] * y[0] of bfloat16, and of bytes c + the products of c's own bytes and
    y's, in int32: were they x's, they would be the same in every turn, and the compiler would compute them once.
    """

    def emit(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tag_type = signature.args[0]
        dot = Dot(builder, tag_type)
        words = _vectors(builder, tag_type, args[1:], dot.word)
        (total,) = _vectors(builder, tag_type, args[1:2], dot.sum)
        if tag_type.operands.x == FLOAT32:
            result = dot.accumulate(words[0], words[1], words[2])
        else:
            result = dot.accumulate(words[0 if tag_type.operands.x == UINT8 else 1], words[2], total)
        return builder.bitcast(result, args[1].type)

    return c(tag, c, x, y), emit


@intrinsic
def sum_of(_typing: Any, tag: Any, a: Any, b: Any) -> Any:
    """a + b of what the tag's products add up to, in the bits of vectors of float32"""

    def emit(_context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = Dot(builder, signature.args[0]).sum
        first, second = _vectors(builder, signature.args[0], args[1:], kind)
        total = builder.add(first, second) if isinstance(kind, ir.IntType) else builder.fadd(first, second)
        return builder.bitcast(total, args[1].type)

    return a(tag, a, b), emit
