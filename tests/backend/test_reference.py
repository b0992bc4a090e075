"""What the NumPy twins promise beyond ONNX: dtypes, NaN, any batch, epilogue order, refusals.

That each twin computes its op is judged by onnxruntime and ONNX's own cases in the tests of reader, passes and nodes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx_models import model, node, random_input, run_onnxruntime

from backend.errors import InputError
from backend.graph.ir import BATCH, Binary, Clip, Conv, Dense, Epilogue, Graph, Op, Value
from backend.graph.onnx_reader import read_model
from backend.reference import evaluate, run_reference

NET = model(
    [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "h"),
        node("GlobalAveragePool", "h", "g"),
        node("Flatten", "g", "f"),
        node("Softmax", "f", "y"),
    ],
    {"x": ["N", 3, 5, 4]},
    ["y"],
    {"w": random_input([6, 3, 3, 3], seed=1)},
)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch(batch: int) -> None:
    x = {"x": random_input(["N", 3, 5, 4], batch=batch)}
    (got,) = run_reference(read_model(NET), x)
    assert (got.shape, got.dtype) == ((batch, 6), np.float32)
    np.testing.assert_allclose(got, run_onnxruntime(NET, x)[0], rtol=1e-5)


def test_float64_gives_correctly_rounded_sums() -> None:
    """Sums of 2000 products, 50 of them: float32 arithmetic rounds nearly all of them differently."""
    weight = random_input([2000, 50], seed=2)
    graph = read_model(model([node("MatMul", "x w", "y")], {"x": ["N", 2000]}, ["y"], {"w": weight}))
    x = random_input(["N", 2000], batch=1, seed=3)
    exact = [math.fsum(column) for column in (x[0].astype(np.float64) * weight.T.astype(np.float64))]
    (got,) = run_reference(graph, {"x": x}, np.float64)
    np.testing.assert_array_equal(got[0], np.float32(exact))


def test_constants_and_inputs_are_not_written_to() -> None:
    graph = read_model(NET)
    x = random_input(["N", 3, 5, 4])
    before, weights = x.copy(), graph.constants["w"].copy()
    run_reference(graph, {"x": x})
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(graph.constants["w"], weights)


def _graph(shape: tuple[int, ...]) -> Graph:
    return Graph("test", ("x",), ("y",), (), {name: Value(name, shape) for name in ("x", "r", "y")})


EPILOGUE = Epilogue("r", low=0.0, high=6.0)
IDENTITY = np.eye(2, dtype=np.float32)


@pytest.mark.parametrize(
    "op",
    [
        Dense("op", "x", "w", "", "y", EPILOGUE),
        Conv("op", "x", "w", "", "y", (1, 1), (0, 0, 0, 0), (1, 1), 1, EPILOGUE),
        Binary("op", "add", "x", "r", "y", Epilogue(low=0.0, high=6.0)),
    ],
)
def test_epilogue_adds_first_and_clips_then(op: Op) -> None:
    shape = (1, 2, 1, 1) if isinstance(op, Conv) else (1, 2)
    values = {
        "x": np.float32([-3, 5]).reshape(shape),
        "r": np.float32([4, 4]).reshape(shape),
        "w": IDENTITY.reshape(2, 2, 1, 1) if isinstance(op, Conv) else IDENTITY,
    }
    np.testing.assert_array_equal(evaluate(op, values, _graph(shape)).reshape(-1), [1, 6])


def test_nan_stays_nan() -> None:
    values = {"x": np.float32([np.nan, -1, 9])}
    clipped = evaluate(Clip("op", "x", "y", 0.0, 6.0), values, _graph((3,)))
    np.testing.assert_array_equal(clipped, np.float32([np.nan, 0, 6]))


def test_wrong_inputs_are_refused() -> None:
    graph = read_model(NET)
    assert graph.values["x"].shape[0] == BATCH
    with pytest.raises(InputError, match=r"inputs \['z'\] given; model 'test' has \['x'\]"):
        run_reference(graph, {"z": random_input(["N", 3, 5, 4])})
    for shape in ((2, 3, 5, 5), (3, 5, 4)):
        with pytest.raises(InputError, match=r"input 'x' has shape \[.*\], model 'test' needs \[-1, 3, 5, 4\]"):
            run_reference(graph, {"x": np.zeros(shape, np.float32)})
