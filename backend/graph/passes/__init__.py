"""The passes: Graph -> Graph functions in the order in which they run, the verifier after each.

Called by the session between reader and planner. May import: ir, check, the passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..check import BrokenGraphError, check
from ..ir import Graph
from ..prune import drop_unused
from .absorb_quantization import absorb_quantization
from .drop_identity import drop_identity
from .drop_requantization import drop_requantization
from .fold_batchnorm import fold_batchnorm
from .fold_pad import fold_pad
from .fuse_epilogue import fuse_epilogue
from .sink_transpose import sink_transpose

PASSES: Final[tuple[Callable[[Graph], Graph], ...]] = (
    drop_unused,
    drop_requantization,
    drop_identity,
    sink_transpose,
    drop_identity,
    fold_pad,
    fold_batchnorm,
    fuse_epilogue,
)
INTEGER_PASSES: Final = (absorb_quantization,)
"""Run after PASSES, unless a quantised model is to be computed in floating point."""


def run_passes(graph: Graph, integers: bool = True) -> Graph:
    """The graph after all PASSES, each of which left every invariant intact. Same inputs, outputs and results.

    Results are the same up to float32 rounding of folded weights. integers: whether ops of a quantised model become
    integer ops. Raises BrokenGraphError (a bug) naming the pass.
    """
    for graph_pass in (*PASSES, *(INTEGER_PASSES if integers else ())):
        try:
            graph = check(graph_pass(graph))
        except BrokenGraphError as error:
            raise BrokenGraphError(f"after pass {graph_pass.__name__}: {error}") from error
    return graph
