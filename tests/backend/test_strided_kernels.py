"""The kernels over arbitrary strides against the NumPy twin, in an arena of NaN: all ranks, axes and broadcasts.

Moving values is exact; one operation per element is exact too, for float64 rounded once is float32's own result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plan_runner import plan_graph, run_plan
from small_nets import UNIT_ROUNDOFF, Net, oracle, random_inputs

from backend.errors import ModelError
from backend.graph.ir import BATCH

Build = Callable[[Net], str]
PICTURE = (3, 5, 4)
SHAPES = [(5,), (5, 6), PICTURE]


def run_both(build: Build, images: int = 2, max_batch: int = 3) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(what the kernels give, the twin's float64, inputs)."""
    net = Net()
    graph = net.graph(build(net))
    inputs = random_inputs(graph, images)
    batched = any(graph.values[name].shape[:1] == (BATCH,) for name in graph.inputs)
    (got,) = run_plan(plan_graph(graph, max_batch if batched else 1), inputs)
    (expected,) = oracle(graph, inputs)
    assert got.shape == expected.shape and got.dtype == {"f": np.float32, "i": np.int64}[expected.dtype.kind]
    return got, expected, inputs


def columns(*sizes: int) -> np.ndarray:
    """1.5, 2.5, ... in that shape: no division by zero."""
    return np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes) + 1.5


MOVES: dict[str, Build] = {
    "transpose-nhwc": lambda net: net.transpose(net.input(*PICTURE), 0, 2, 3, 1),
    "transpose-3": lambda net: net.transpose(net.input(5, 6), 0, 2, 1),
    "transpose-fixed": lambda net: net.transpose(net.input(*PICTURE, batch=2), 3, 1, 0, 2),
    "transpose-matrix": lambda net: net.transpose(net.input(5, batch=4), 1, 0),
    "reshape-flatten": lambda net: net.reshape(net.input(*PICTURE), BATCH, 60),
    "reshape-to-picture": lambda net: net.reshape(net.input(60), BATCH, *PICTURE),
    "reshape-one-pixel": lambda net: net.reshape(net.input(20, 1, 1), BATCH, 20),
    "reshape-to-row": lambda net: net.reshape(net.input(20, 1, 1), BATCH, 1, 20),
    "reshape-to-column": lambda net: net.reshape(net.input(20), BATCH, 20, 1),
    "reshape-fixed": lambda net: net.reshape(net.input(*PICTURE, batch=2), 6, 20),
    "reshape-vector": lambda net: net.reshape(net.input(6, batch=4), 24),
    "pad-picture": lambda net: net.pad(net.input(*PICTURE), (0, 0), (0, 0), (1, 2), (2, 1), value=2.5),
    "pad-channels": lambda net: net.pad(net.input(*PICTURE), (0, 0), (1, 2), (0, 0), (0, 0)),
    "pad-and-crop": lambda net: net.pad(net.input(*PICTURE), (0, 0), (0, 0), (-1, 2), (1, -2), value=-1.0),
    "pad-fixed-batch": lambda net: net.pad(net.input(5, batch=2), (1, 2), (0, 3), value=np.inf),
    "argmax-channels": lambda net: net.argmax(net.input(*PICTURE), 1),
    "argmax-row": lambda net: net.argmax(net.input(*PICTURE), 2, keepdims=False),
    "argmax-1": lambda net: net.argmax(net.input(7), 1, keepdims=False),
    "argmax-fixed": lambda net: net.argmax(net.input(7, batch=3), 0),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_exact(name: str) -> None:
    got, expected, _ = run_both(MOVES[name])
    np.testing.assert_array_equal(got, expected)


def test_argmax_of_equal_values() -> None:
    """The first of equals wins, or the last if the model says so."""
    for select_last, expected in ((False, 1), (True, 4)):
        net = Net()
        graph = net.graph(net.argmax(net.input(6), 1, keepdims=False, select_last=select_last))
        values = np.array([[0, 3, -1, 3, 3, 2]], np.float32)
        assert run_plan(plan_graph(graph), {"input0": values})[0].tolist() == [expected]


@pytest.mark.parametrize("select_last", [False, True])
def test_argmax_finds_a_nan(select_last: bool) -> None:
    """NumPy's rule, wherever the NaN stands and however many there are."""
    net = Net()
    graph = net.graph(net.argmax(net.input(4), 1, keepdims=False, select_last=select_last))
    rows = [[place in mask for place in range(4)] for mask in ((0,), (1,), (3,), (1, 2), (0, 3), (0, 1, 2, 3))]
    values = np.where(rows, np.nan, np.float32([1, 3, np.inf, 2])).astype(np.float32)
    got = run_plan(plan_graph(graph, len(rows)), {"input0": values})[0]
    np.testing.assert_array_equal(got, oracle(graph, {"input0": values})[0])


OPERANDS: dict[str, Build] = {
    "same": lambda net: net.input(*PICTURE),
    "channel": lambda net: net.constant(columns(3, 1, 1)),
    "row": lambda net: net.constant(columns(4)),
    "number": lambda net: net.constant(2.5),
    "everything": lambda net: net.constant(columns(1, *PICTURE)),
    "one-pixel": lambda net: net.input(3, 1, 1),
    "one-row": lambda net: net.input(1, 1, 4),
}


@pytest.mark.parametrize("swapped", [False, True], ids=["x-other", "other-x"])
@pytest.mark.parametrize("other", OPERANDS)
@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div"])
def test_binary_broadcasts_and_clips_exactly(kind: str, other: str, swapped: bool) -> None:
    def build(net: Net) -> str:
        operands = [net.input(*PICTURE), OPERANDS[other](net)]
        a, b = reversed(operands) if swapped else operands
        return net.binary(kind, a, b, low=-1.25, high=2.0)

    got, expected, _ = run_both(build)
    np.testing.assert_array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize(
    "build",
    [
        lambda net: net.binary("add", net.input(4, 1), net.constant(columns(1, 1, 5))),
        lambda net: net.binary("sub", net.input(4, batch=3), net.constant(columns(2, 3, 4))),
        lambda net: net.binary("mul", net.input(3, 1, 6), net.input(3, 7, 1)),
        lambda net: net.binary("add", net.clip(net.input(5, 4, 4), 0, 1), net.input(5, 1, 1)),
    ],
    ids=["grows", "grows-in-rank", "both-grow", "padded-channels"],
)
def test_binary_results_larger_than_both(build: Build) -> None:
    got, expected, _ = run_both(build)
    np.testing.assert_array_equal(got, expected.astype(np.float32))


def test_binary_keeps_nan_and_divides_by_zero() -> None:
    net = Net()
    x, y = net.input(4), net.input(4)
    graph = net.graph(net.binary("div", x, y, low=-2.0, high=2.0))
    inputs = {"input0": np.array([[0, 1, -1, np.nan]], np.float32), "input1": np.zeros((1, 4), np.float32)}
    (got,) = run_plan(plan_graph(graph), inputs)
    np.testing.assert_array_equal(got, np.array([[np.nan, 2, -2, np.nan]], np.float32))


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize(
    "shape, axes, batch",
    [(shape, (axis,), BATCH) for shape in SHAPES for axis in range(1, len(shape) + 1)]
    + [(PICTURE, (1, 2, 3), BATCH), (PICTURE, (1, 3), BATCH), (PICTURE, (0, 2), 2), ((5,), (0,), 3)],
)
def test_mean(shape: tuple[int, ...], axes: tuple[int, ...], batch: int, keepdims: bool) -> None:
    got, expected, inputs = run_both(lambda net: net.mean(net.input(*shape, batch=batch), axes, keepdims))
    count = inputs["input0"].size // expected.size
    assert np.abs(got - expected).max() <= (count + 3) * UNIT_ROUNDOFF * np.abs(inputs["input0"]).max()


@pytest.mark.parametrize(
    "shape, axis, batch",
    [(shape, axis, BATCH) for shape in SHAPES for axis in range(1, len(shape) + 1)] + [((5,), 0, 3), (PICTURE, 0, 2)],
)
def test_softmax(shape: tuple[int, ...], axis: int, batch: int) -> None:
    """Probabilities: exp is good to a few units in the last place, the scaling adds two roundings."""
    got, expected, _ = run_both(lambda net: net.softmax(net.input(*shape, batch=batch), axis))
    assert (np.abs(got - expected) <= 16 * UNIT_ROUNDOFF * expected).all()


def test_softmax_of_large_numbers_does_not_overflow() -> None:
    net = Net()
    graph = net.graph(net.softmax(net.input(3), 1))
    (got,) = run_plan(plan_graph(graph), {"input0": np.array([[3e38, -3e38, 3e38]], np.float32)})
    np.testing.assert_array_equal(got, np.array([[0.5, 0.0, 0.5]], np.float32))


HALO_WRITERS: dict[str, Callable[[Net, str], str]] = {
    "transpose": lambda net, x: net.transpose(x, 0, 1, 3, 2),
    "reshape": lambda net, x: net.reshape(x, BATCH, 4, 5, 3),
    "pad": lambda net, x: net.pad(x, (0, 0), (0, 0), (1, 0), (0, 2)),
    "binary": lambda net, x: net.binary("mul", x, x),
    "mean": lambda net, x: net.mean(x, (2,)),
    "softmax": lambda net, x: net.softmax(x, 1),
    "clip": lambda net, x: net.clip(x, -0.5, 0.5),
    "batch-norm": lambda net, x: net.batch_norm(x),
    "max-pool": lambda net, x: net.pool("max", x, (2, 2)),
    "average-pool": lambda net, x: net.pool("average", x, (2, 2)),
    "global-average": lambda net, x: net.mean(x, (2, 3)),
    "depthwise": lambda net, x: net.conv(x, 3, (2, 2), group=3),
    "convolution": lambda net, x: net.conv(x, 7, (2, 2)),
    "groups": lambda net, x: net.conv(net.conv(x, 4), 6, (2, 2), group=2),
}


@pytest.mark.parametrize("name", HALO_WRITERS)
def test_every_writer_clears_the_halo_of_its_picture(name: str) -> None:
    """A padded convolution reads the zeros that the op before it left around its picture; nobody else wrote there."""
    net = Net()
    inner = HALO_WRITERS[name](net, net.input(3, 5, 4))
    channels = net.shape(inner)[1]
    graph = net.graph(net.conv(inner, 5, (3, 2), pads=(2, 1, 1, 3)))
    inputs = random_inputs(graph, 2)
    (got,), (expected,) = run_plan(plan_graph(graph, 3), inputs), oracle(graph, inputs)
    terms = channels * 6 + 60
    assert np.abs(got - expected).max() <= terms * UNIT_ROUNDOFF * 8 * np.abs(expected).max()


REFUSALS: dict[str, tuple[Build, str]] = {
    "five-axes": (lambda net: net.clip(net.input(2, 2, 2, 2), 0, 1), "has 5 axes"),
    "no-axis": (lambda net: net.mean(net.input(3, batch=2), (0, 1), keepdims=False), "has 0 axes"),
    "batch-norm-of-rows": (lambda net: net.batch_norm(net.input(3, 7)), "node 'BatchNorm' (BatchNorm): normalises"),
    "dense-of-pictures": (lambda net: net.dense(net.input(3, 4, 5), 7), "node 'Dense' (Dense): multiplies"),
    "pad-in-front-of-padding": (
        lambda net: net.conv(net.pad(net.input(*PICTURE), *[(0, 0)] * 3, (1, 1), value=1.5), 5, (3, 3), pads=(1,) * 4),
        "node 'Pad' (Pad): pads with 1.5 in front of a padded convolution",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_no_kernel_can_do_is_refused(name: str) -> None:
    """The message names the node or value, and says what it asks for."""
    build, message = REFUSALS[name]
    net = Net()
    graph: Any = net.graph(build(net))
    with pytest.raises(ModelError) as error:
        plan_graph(graph)
    assert message in str(error.value) and "\n" not in str(error.value)
