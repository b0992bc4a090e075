"""Precision: what may be asked for, whether the machine has it, and the element type that it gives every value. Pure.

bf16: a value is bfloat16 as long as a convolution or dense layer follows it, float32 after that. So inputs are
rounded once, what the layers read is narrow, and logits, softmax and all outputs that no layer reads are not rounded.
Kernels read and write either type, so no step is added for a change; indices stay float32, which holds them exactly.
Weights of convolutions and dense layers are rounded too; biases, depthwise filters and other constants are not.

int8: what the passes have made integers of a quantised model is bytes, everything else float32.

bf16-emulated: the same plan on a CPU without the instructions, slowly; the same results as those of x86's, and as near
to Arm's as its rounding lets them be (see `simd/dot.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, TypeAlias

from ..errors import InputError, MachineError
from ..graph.ir import ArgMax, Conv, Dense, Graph, Quantize, Softmax, reads
from ..machine import Machine, runs_here
from ..simd.element import BFLOAT16, FLOAT32, UINT8, Element
from ..simd.isa import BF16_EXTENSIONS, ISAS

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
"""What a plan is made for."""

_EMULATED: Final = "bf16-emulated"
PRECISIONS: Final = ("auto", "fp32", "bf16", _EMULATED, "int8")
"""What may be asked for; "auto" is int8 for a quantised model, else fp32."""


def check_precision(asked: str, machine: Machine) -> None:
    """Raises: InputError for another name, MachineError for "bf16" on a machine that has no instructions for it."""
    if asked not in PRECISIONS:
        raise InputError(f"precision={asked!r}: choose {', '.join(map(repr, PRECISIONS[:-1]))} or {PRECISIONS[-1]!r}")
    isa, extension = machine.isa, BF16_EXTENSIONS.get(machine.isa.name)
    if asked == "bf16" and extension not in isa.extensions:
        lacks = f"this CPU lacks {extension}" if extension else f"ISA {isa.name!r} has none"
        here = [other.name for other in ISAS if other.name in BF16_EXTENSIONS and runs_here(other)]
        wanted = isa.name if extension else next(iter(here or BF16_EXTENSIONS))
        raise MachineError(
            f"precision='bf16' needs bf16 instructions, and {lacks}: run on a CPU whose /proc/cpuinfo lists "
            f"{BF16_EXTENSIONS[wanted]} (with isa={wanted!r}), choose precision='fp32', or of a model that is not "
            f"quantised {_EMULATED!r}: bf16's results, slower than fp32"
        )


def settle_precision(asked: str, machine: Machine, graph: Graph) -> tuple[Precision, Machine]:
    """The precision to plan for, and the machine as its kernels are to see it: emulation uses no bf16 instructions.

    A quantised model may be run in floating point, too: every Quantize then rounds what float32 ops computed.

    Raises: as `check_precision`; InputError for "int8" with a model that is not quantised, and for bfloat16 with one
    that is.
    """
    check_precision(asked, machine)
    quantized = any(isinstance(op, Quantize) for op in graph.ops)
    if asked == "int8" and not quantized:
        raise InputError(
            "precision='int8', but the model has no QuantizeLinear: quantise it first ('loadgen-numba quantize' does)"
        )
    if asked == "int8" or (asked == "auto" and quantized):
        return "int8", machine
    if quantized and asked in ("bf16", _EMULATED):
        raise InputError(f"precision={asked!r}, but the model is quantised: choose 'int8' or 'fp32'")
    if asked == _EMULATED:
        isa, extension = machine.isa, BF16_EXTENSIONS.get(machine.isa.name)
        extensions = tuple(name for name in isa.extensions if name != extension)
        return "bf16", replace(machine, isa=replace(isa, extensions=extensions))
    return ("bf16" if asked == "bf16" else "fp32"), machine


def multiplied_element(precision: str) -> Element:
    """The element type of what convolutions and dense layers multiply."""
    return {"bf16": BFLOAT16, "int8": UINT8}.get(precision, FLOAT32)


def value_elements(graph: Graph, precision: Precision) -> dict[str, Element]:
    """The element type of every value that is no constant."""
    names = [name for name in graph.values if name not in graph.constants]
    elements = {name: UINT8 if graph.values[name].dtype in ("uint8", "int8") else FLOAT32 for name in names}
    if precision != "bf16":
        return elements
    narrow: set[str] = set()
    for op in reversed(graph.ops):
        if isinstance(op, ArgMax):
            narrow.discard(op.output)
        elif isinstance(op, (Conv, Dense)):
            narrow.add(op.x)
        if op.output in narrow and not isinstance(op, Softmax):
            narrow.update(reads(op))
    floats = (name for name in narrow if elements.get(name) == FLOAT32)
    return elements | dict.fromkeys(floats, BFLOAT16)
