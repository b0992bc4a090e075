"""A scalar from memory as an operand by element: on Arm a multiply-add takes one lane of a register for all of its.

FMLA by element wants the scalar in a register of its own, filled by a plain load. Left to itself, LLVM does one of
three other things: it repeats the scalar while loading it (LD1R), which takes a slot of the vector units on Arm's
cores, and so the place of a multiply-add (Arm's optimisation guides of Neoverse N1 and V2: pipes L and V); it loads the
scalars of several steps at once, for which there are not registers enough; or it moves loads ahead, with the same
effect. A volatile load stays where it is and by itself, and `freeze`, which does nothing at run time, stands between it
and the instruction selection that looks for loads to repeat. tools/arm64/mca shows what becomes of it.

Dot products by element are chosen only if what is repeated is a lane of a vector (of bfloat for BFDOT, of int32 for
SUDOT), and a word does not become one without being moved. So two words are read at once, and one of them repeated.
SDOT's bytes come from a general register, where their top bits are turned over: from there a word is repeated (DUP) on
its way, by the pipe that moves it in any case (the guides: M).

llvmlite has no builder for these, nor bfloat. May import: nothing of ours.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir


class _VolatileLoad(ir.instructions.LoadInstr):
    def descr(self, buf: list[str]) -> None:
        """As of a load, marked volatile."""
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("load ", "load volatile ", 1))


class _Freeze(ir.Instruction):
    def __init__(self, parent: Any, value: Any) -> None:
        super().__init__(parent, value.type, "freeze", [value])

    def descr(self, buf: list[str]) -> None:
        """The instruction's text behind its name."""
        (value,) = self.operands
        buf.append(f"freeze {value.type} {value.get_reference()}\n")


def load_lane_operand(builder: Any, pointer: Any, align_bytes: int) -> Any:
    """IR that reads the scalar at a pointer, to be repeated in all lanes by a multiply-add that follows."""
    load = _VolatileLoad(builder.block, pointer)
    load.align = align_bytes
    builder._insert(load)
    frozen = _Freeze(builder.block, load)
    builder._insert(frozen)
    return frozen


class _BFloat(ir.Type):
    def _to_string(self) -> str:
        return "bfloat"


BFLOAT16_WORDS: Final = ir.VectorType(_BFloat(), 4)
INT32_WORDS: Final = ir.VectorType(ir.IntType(32), 2)
"""Two words, as BFDOT and as dot products of bytes want them."""


def splat_word(builder: Any, pair: Any, word: int) -> Any:
    """IR that repeats the first (0) or the second (1) word of a pair in 128 bits, as int32."""
    per_word = pair.type.count // 2
    elements = [per_word * word + index for index in range(per_word)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), 4 * per_word), elements * 4)
    repeated = builder.shuffle_vector(pair, ir.Constant(pair.type, ir.Undefined), mask)
    return builder.bitcast(repeated, ir.VectorType(ir.IntType(32), 4))
