"""What a graph is asked for: naming intermediate values as outputs, and dropping what no output needs.

Called by the session (a run may ask for any value) and by every pass (a pass only has to stop using a value).

May import: ir, errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .ir import Graph, Op, Value, reads


def prune(graph: Graph, outputs: Iterable[str]) -> Graph:
    """The graph that computes exactly `outputs`, in that order, each once; they may be any values that an op writes.

    To be called before the passes: a value that is an output survives fusion. Inputs stay, even those that are no
    longer read: they are the model's interface. Raises InputError for a name that no op writes.
    """
    outputs = tuple(dict.fromkeys(outputs))
    written = {op.output for op in graph.ops}
    for name in outputs:
        if name not in written:
            raise InputError(
                f"output {name!r} does not exist in model {graph.name!r}; its outputs are {', '.join(graph.outputs)} "
                f"(any of the {len(written)} intermediate values may be asked for too)"
            )
    if not outputs:
        raise InputError(f"no output asked for; model {graph.name!r} has {', '.join(graph.outputs)}")
    return drop_unused(replace(graph, outputs=outputs))


def drop_unused(graph: Graph) -> Graph:
    """The graph without ops, values and constants that no output needs."""
    return rebuild(graph, graph.ops, {}, {})


def rebuild(
    graph: Graph,
    ops: Iterable[Op],
    new_values: Mapping[str, Value],
    new_constants: Mapping[str, npt.NDArray[np.generic]],
) -> Graph:
    """The graph with other ops, plus new values and constants, minus everything that no output needs any more."""
    needed = set(graph.outputs)
    kept: list[Op] = []
    for op in reversed(tuple(ops)):
        if op.output in needed:
            needed.update(reads(op))
            kept.append(op)
    needed.update(graph.inputs)
    values = {**graph.values, **new_values}
    constants = {**graph.constants, **new_constants}
    return replace(
        graph,
        ops=tuple(reversed(kept)),
        values={name: value for name, value in values.items() if name in needed},
        constants={name: array for name, array in constants.items() if name in needed},
    )
