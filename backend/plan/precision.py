"""Precision: what may be asked for, whether the machine has it, and the element type that it gives every value. Pure.

bf16: a value is bfloat16 as long as a convolution or dense layer follows it, float32 after that. So inputs are
rounded once, what the layers read is narrow, and logits, softmax and all other outputs are not rounded to 8 bits.
Kernels read and write either type, so no step is added for a change; indices stay float32, which holds them exactly.
Weights of convolutions and dense layers are rounded too; biases, depthwise filters and other constants are not.

bf16-emulated: the same plan and the same results (see `simd/dot.py`) on a CPU without the instructions, slowly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, TypeAlias

from ..errors import InputError, MachineError
from ..graph.ir import ArgMax, Conv, Dense, Graph, Softmax, reads
from ..machine import Machine
from ..simd.element import BFLOAT16, FLOAT32, Element
from ..simd.isa import AVX512_BF16, EXTENSIONS

Precision: TypeAlias = Literal["fp32", "bf16"]
"""What a plan is made for."""

_EMULATED: Final = "bf16-emulated"
PRECISIONS: Final = ("auto", "fp32", "bf16", _EMULATED)
"""What may be asked for; "auto" is fp32."""


def settle_precision(asked: str, machine: Machine) -> tuple[Precision, Machine]:
    """The precision to plan for, and the machine as its kernels are to see it: emulation uses no bf16 instructions.

    Raises: InputError for another name, MachineError for "bf16" on a machine that has no instructions for it.
    """
    if asked not in PRECISIONS:
        raise InputError(f"precision={asked!r}: choose {', '.join(map(repr, PRECISIONS[:-1]))} or {PRECISIONS[-1]!r}")
    if asked == _EMULATED:
        extensions = tuple(name for name in machine.isa.extensions if name != AVX512_BF16)
        return "bf16", replace(machine, isa=replace(machine.isa, extensions=extensions))
    if asked != "bf16":
        return "fp32", machine
    if AVX512_BF16 not in machine.isa.extensions:
        isas = [isa for isa, extensions in EXTENSIONS.items() if AVX512_BF16 in extensions]
        lacks = f"this CPU lacks {AVX512_BF16}" if machine.isa.name in isas else f"ISA {machine.isa.name!r} has none"
        raise MachineError(
            f"precision='bf16' needs bf16 instructions, and {lacks}: run on a CPU whose /proc/cpuinfo lists "
            f"{AVX512_BF16} (with isa={isas[0]!r}), choose precision='fp32', or {_EMULATED!r} for bf16's results, "
            "slower than fp32"
        )
    return "bf16", machine


def multiplied_element(precision: str) -> Element:
    """The element type of what convolutions and dense layers multiply."""
    return BFLOAT16 if precision == "bf16" else FLOAT32


def value_elements(graph: Graph, precision: Precision) -> dict[str, Element]:
    """The element type of every value that is no constant."""
    names = [name for name in graph.values if name not in graph.constants]
    if precision == "fp32":
        return dict.fromkeys(names, FLOAT32)
    narrow: set[str] = set()
    for op in reversed(graph.ops):
        if isinstance(op, ArgMax):
            narrow.discard(op.output)
        elif isinstance(op, (Conv, Dense)):
            narrow.add(op.x)
        if op.output in narrow and not isinstance(op, Softmax):
            narrow.update(reads(op))
    return {name: BFLOAT16 if name in narrow else FLOAT32 for name in names}
