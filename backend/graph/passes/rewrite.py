"""What the passes share: who reads a value, renaming, and naming new constants.

May import: ir.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from ..ir import Graph, Op, Requantize, reads

_NAME_FIELDS: Final = ("x", "a", "b", "weight", "bias", "scale", "shift", "output")


def private_values(graph: Graph) -> frozenset[str]:
    """Values that exactly one op reads, once, and that are no output: whoever reads one may swallow its writer."""
    counts = Counter(name for op in graph.ops for name in reads(op))
    return frozenset(name for name, count in counts.items() if count == 1 and name not in graph.outputs)


def rename(op: Op, names: Mapping[str, str]) -> Op:
    """The op with every value name (read, residual, written) that is in `names` replaced."""
    changes: dict[str, Any] = {}
    for item in fields(op):
        if item.name in _NAME_FIELDS and getattr(op, item.name) in names:
            changes[item.name] = names[getattr(op, item.name)]
    epilogue = getattr(op, "epilogue", None)
    if epilogue is not None and epilogue.residual in names:
        epilogue = changes["epilogue"] = replace(epilogue, residual=names[epilogue.residual])
    if isinstance(epilogue, Requantize) and epilogue.scale in names:
        changes["epilogue"] = replace(epilogue, scale=names[epilogue.scale])
    return replace(op, **changes) if changes else op


def fresh(base: str, taken: Collection[str]) -> str:
    """`base`, lengthened until it is not among the names `taken`."""
    while base in taken:
        base += "_"
    return base
