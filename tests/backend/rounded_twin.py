"""NumPy's twin of a network in bf16: every value that a layer writes is rounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from test_bfloat16 import rounded

from backend.graph.ir import Conv, Dense, reads
from backend.graph.onnx_reader import read_model
from backend.graph.passes import run_passes
from backend.graph.prune import prune
from backend.reference import run_reference


def rounded_twin(path: Path, output: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's values of a tensor: all in float64, and with every weight and every value in between as bfloat16."""
    graph = run_passes(prune(read_model(path), (output,)))
    exact = run_reference(graph, {"input": images}, np.float64)[0]
    weights = [op.weight for op in graph.ops if isinstance(op, (Conv, Dense))]
    graph = replace(graph, constants={**graph.constants, **{name: rounded(graph.constants[name]) for name in weights}})
    values: dict[str, np.ndarray] = {"input": rounded(images)}
    for op in graph.ops:
        inputs = [name for name in dict.fromkeys(reads(op)) if name in values]
        one = replace(graph, ops=(op,), inputs=tuple(inputs), outputs=(op.output,))
        (result,) = run_reference(one, {name: values[name] for name in inputs}, np.float64)
        values[op.output] = result if op.output == output else rounded(result)
    return exact, values[output]
