"""The types that the elements of a value have in memory, and NumPy's side of their conversion.

Arithmetic on vectors is in float32 whatever the element is; what it becomes in a register is in `memory.py`, what a
dot product makes of packed ones in `dot.py`. Arena, weights and scratch memory are counted in words of four bytes, a
value's offsets and pitches in its own elements.

May import: nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

WORD_BYTES: Final = 4


@dataclass(frozen=True)
class Element:
    """An element type. bytes: 1, 2 or 4, so that a word holds a whole number of them."""

    name: str
    bytes: int

    @property
    def per_word(self) -> int:
        """Elements in a word of four bytes: as many as one dot-product instruction takes for each lane."""
        return WORD_BYTES // self.bytes

    def __str__(self) -> str:
        return self.name


FLOAT32: Final = Element("f32", 4)
BFLOAT16: Final = Element("bf16", 2)
UINT8: Final = Element("u8", 1)
"""Quantised values, int8 ones moved up by 128. A kernel's numbers in float32 are the stored 0 to 255."""

INT8_OFFSET: Final = 128
"""What is added to int8 where it is stored as UINT8."""


@dataclass(frozen=True)
class Operands:
    """Element types of a kernel's operands x, y and b. A kernel without b has there what x has."""

    x: Element = FLOAT32
    y: Element = FLOAT32
    b: Element = FLOAT32

    def __str__(self) -> str:
        """ "bf16"; "bf16-f32" if y differs; "bf16-f32-f32" if b does."""
        if self.x == self.y == self.b:
            return str(self.x)
        return f"{self.x}-{self.y}" if self.b == self.x else f"{self.x}-{self.y}-{self.b}"


ALL_FLOAT32: Final = Operands()


def to_element(array: npt.NDArray[np.float32], element: Element) -> npt.NDArray[np.float32] | npt.NDArray[np.uint16]:
    """A float32 array as it lies in memory with that element type: itself, or bfloat16 as its 16 bits."""
    assert element in (FLOAT32, BFLOAT16), "what a quantised value holds is the model's to say"
    return array if element == FLOAT32 else to_bfloat16(array)


def to_bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest even, as x86's VCVTNEPS2BF16 rounds.

    Intel, "Software Developer's Manual", volume 2: denormals become zeros of their sign, NaNs stay, made quiet.
    """
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    upper = bits >> 16
    rounded = np.asarray((bits.astype(np.uint64) + 0x7FFF + (upper & 1)) >> 16, np.uint32)
    rounded = np.where(np.isnan(array), upper | 0x40, rounded)
    rounded = np.where(bits & 0x7F800000 == 0, upper & 0x8000, rounded)
    return rounded.astype(np.uint16)
