"""A scalar from memory as an operand by element: on Arm a multiply-add takes one lane of a register for all of its.

FMLA by element wants the scalar in a register of its own, filled by a plain load. Left to itself, LLVM does one of
three other things: it repeats the scalar while loading it (LD1R), which takes a slot of the vector units on Arm's
cores, and so the place of a multiply-add (Arm's optimisation guides of Neoverse N1 and V2: pipes L and V); it loads the
scalars of several steps at once, for which there are not registers enough; or it moves loads ahead, with the same
effect. A volatile load stays where it is and by itself, and `freeze`, which does nothing at run time, stands between it
and the instruction selection that looks for loads to repeat. tools/arm64/mca shows what becomes of it.

BFDOT by element is chosen only if the lane that is repeated is one of a vector of bfloat, and a word of two bfloat16
does not become one without being moved. So two words are read at once, and one of them repeated.

llvmlite has no builder for these, nor bfloat. May import: nothing of ours.
"""

from __future__ import annotations

from typing import Any

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


_WORD_PAIR = ir.VectorType(_BFloat(), 4)


def load_word_pair(builder: Any, pointer: Any) -> Any:
    """IR that reads two words of bfloat16 at a pointer to an element, for `splat_word`."""
    return load_lane_operand(builder, builder.bitcast(pointer, _WORD_PAIR.as_pointer()), 2)


def splat_word(builder: Any, pair: Any, word: int) -> Any:
    """IR that repeats the first (0) or the second (1) word of a pair in 128 bits."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), 8), [2 * word, 2 * word + 1] * 4)
    return builder.shuffle_vector(pair, ir.Constant(_WORD_PAIR, ir.Undefined), mask)
