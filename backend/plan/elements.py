"""Precision -> the element type of every value in memory. Pure.

bf16: a value is bfloat16 as long as a convolution or dense layer follows it, float32 after that. So inputs are
rounded once, what the layers read is narrow, and logits, softmax and all other outputs are not rounded to 8 bits.
int8: what the passes have made integers is bytes, everything else float32.
Kernels read and write either type, so no step is added for a change; indices stay float32, which holds them exactly.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from ..graph.ir import ArgMax, Conv, Dense, Graph, Softmax, reads
from ..simd.element import BFLOAT16, FLOAT32, UINT8, Element

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


def value_elements(graph: Graph, precision: Precision) -> dict[str, Element]:
    """The element type of every value that is no constant."""
    names = [name for name in graph.values if name not in graph.constants]
    if precision != "bf16":
        return {name: UINT8 if graph.values[name].dtype in ("uint8", "int8") else FLOAT32 for name in names}
    narrow: set[str] = set()
    for op in reversed(graph.ops):
        if isinstance(op, ArgMax):
            narrow.discard(op.output)
        elif isinstance(op, (Conv, Dense)):
            narrow.add(op.x)
        if op.output in narrow and not isinstance(op, Softmax):
            narrow.update(reads(op))
    return {name: BFLOAT16 if name in narrow else FLOAT32 for name in names}
