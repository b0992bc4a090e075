"""Shape rules, the verifier, and asking a graph for other outputs. Hand-written graphs, no ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from backend.errors import InputError, ModelError
from backend.graph.check import BrokenGraphError, check
from backend.graph.ir import ABSENT, BATCH, Binary, Clip, Conv, Epilogue, Graph, Mean, Op, Pool, Reshape, Value, reads
from backend.graph.prune import drop_unused, prune
from backend.graph.shapes import (
    UNKNOWN_BATCH,
    broadcast,
    ceil_mode_pads,
    output_value,
    resolve_pads,
    resolve_reshape,
    window_count,
)


def _conv(x: str, output: str, **changes: object) -> Conv:
    conv = Conv(f"op {output}", x, "w", "b", output, (1, 1), (1, 1, 1, 1), (1, 1), 1)
    return replace(conv, **changes)  # type: ignore[arg-type]


def _graph(*, batch: int = BATCH) -> Graph:
    """x -> conv h -> conv y (+ h, ReLU) -> mean z."""
    shape = (batch, 4, 6, 5)
    arrays = {"w": np.ones((4, 4, 3, 3), np.float32), "b": np.zeros(4, np.float32)}
    values = [Value(name, shape) for name in "xhy"] + [Value("z", (batch, 4))]
    values += [Value(name, array.shape) for name, array in arrays.items()]
    ops = (
        _conv("x", "h"),
        _conv("h", "y", epilogue=Epilogue("h", low=0.0)),
        Mean("op z", "y", "z", (2, 3), keepdims=False),
    )
    return Graph("test", ("x",), ("z",), ops, {value.name: value for value in values}, arrays)


def test_sound_graphs_pass() -> None:
    for graph in (_graph(), _graph(batch=2)):
        assert check(graph) is graph


def _with_op(index: int, change: Callable[[Op], Op]) -> Callable[[Graph], Graph]:
    def changed(graph: Graph) -> Graph:
        return replace(graph, ops=tuple(change(op) if i == index else op for i, op in enumerate(graph.ops)))

    return changed


def _with_value(value: Value) -> Callable[[Graph], Graph]:
    return lambda graph: replace(graph, values={**graph.values, value.name: value})


def _with_constant(name: str, array: np.ndarray) -> Callable[[Graph], Graph]:
    return lambda graph: replace(graph, constants={**graph.constants, name: array})


BROKEN: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "read before written": (
        lambda graph: replace(graph, ops=graph.ops[::-1]),
        r"op 'op z' \(Mean\) reads 'y' before it is written",
    ),
    "written twice": (
        lambda graph: replace(graph, ops=(*graph.ops, graph.ops[0])),
        "writes 'h', which is an input, a constant or already written",
    ),
    "unknown value": (_with_op(2, lambda op: replace(op, output="q")), "writes 'q', which is not among the values"),
    "missing weight": (_with_op(0, lambda op: replace(op, weight="x")), "needs 'x' to be a constant"),
    "wrong shape": (_with_value(Value("y", (BATCH, 4, 6, 6))), "'op y' .* writes .*6, 5.*, its value says .*6, 6"),
    "wrong dtype": (
        _with_value(Value("z", (BATCH, 4), "int64")),
        "'op z' .* writes .*float32.*, its value says .*int64",
    ),
    "op that does not fit": (_with_op(0, lambda op: replace(op, group=3)), "does not fit weight .* with group 3"),
    "residual of another shape": (
        _with_op(1, lambda op: replace(op, epilogue=Epilogue("b"))),
        r"op 'op y' \(Conv\): residual .* has not the shape of",
    ),
    "bound that is NaN": (_with_op(1, lambda op: replace(op, epilogue=Epilogue(high=np.nan))), "has a NaN bound"),
    "batch in another axis": (_with_value(Value("h", (4, BATCH, 6, 5))), "value 'h' has shape .*: sizes are positive"),
    "value under another name": (
        lambda graph: replace(graph, values={**graph.values, "q": Value("p", (1,))}),
        "value 'p' is filed under 'q'",
    ),
    "constant of another shape": (
        _with_constant("b", np.zeros(5, np.float32)),
        "constant 'b' has shape .5,., its value",
    ),
    "constant of float64": (_with_constant("b", np.zeros(4)), "constant 'b' is float64 or not C-contiguous"),
    "constant of transposed memory": (
        _with_constant("w", np.ones((3, 3, 4, 4), np.float32).T),
        "constant 'w' is float32 or not C-contiguous",
    ),
    "output that nothing writes": (lambda graph: replace(graph, outputs=("x",)), "output 'x': no op writes it"),
    "output twice": (lambda graph: replace(graph, outputs=("z", "z")), "repeat a name"),
    "unused op": (
        lambda graph: replace(graph, outputs=("y",)),
        "op 'op z' writes 'z', which nothing reads",
    ),
    "unused value": (_with_value(Value("q", (1,))), r"values that nothing reads: \['q'\]"),
    "input that has no value": (lambda graph: replace(graph, inputs=("x", "q")), "input 'q' has no value"),
    "inputs batched and fixed": (
        lambda graph: _with_value(Value("q", (1,)))(replace(graph, inputs=("x", "q"))),
        r"only \['x'\] are batched",
    ),
    "pads counted by a max pool": (
        lambda graph: _with_value(Value("z", (BATCH, 4, 1, 1)))(
            _with_op(2, lambda _: Pool("op z", "max", "y", "z", (6, 5), (1, 1), (0,) * 4, count_include_pad=True))(
                graph
            )
        ),
        r"op 'op z' \(Pool\) counts pads",
    ),
    "counted pads that do not count": (
        lambda graph: _with_value(Value("z", (BATCH, 4, 1, 1)))(
            _with_op(2, lambda _: Pool("op z", "average", "y", "z", (6, 5), (1, 1), (0,) * 4, counted_pads=(1,) * 4))(
                graph
            )
        ),
        r"op 'op z' \(Pool\) has counted_pads \(1, 1, 1, 1\) without count_include_pad",
    ),
    "binary with a residual": (
        _with_op(1, lambda _: Binary("op y", "add", "h", "h", "y", Epilogue("h"))),
        r"op 'op y' \(Binary\) has a residual; a Binary has none",
    ),
    "clip at NaN": (_with_op(1, lambda _: Clip("op y", "h", "y", np.nan, 1.0)), "has a NaN bound"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_invariant_is_named(name: str) -> None:
    damage, text = BROKEN[name]
    with pytest.raises(BrokenGraphError, match=text):
        check(damage(_graph()))


def test_prune_gives_exactly_what_is_asked_for() -> None:
    graph = check(prune(_graph(), ["h"]))
    assert graph.outputs == ("h",)
    assert [op.output for op in graph.ops] == ["h"]
    assert set(graph.values) == {"x", "h", "w", "b"}
    assert prune(_graph(), ["y", "h", "y"]).outputs == ("y", "h")


@pytest.mark.parametrize("name", ["q", "x", "w", ABSENT])
def test_prune_refuses_what_no_op_writes(name: str) -> None:
    with pytest.raises(InputError, match=f"output '{name}' does not exist in model 'test'; its outputs are z"):
        prune(_graph(), [name])
    with pytest.raises(InputError, match="no output asked for; model 'test' has z"):
        prune(_graph(), [])


def test_dead_ops_and_constants_go_and_inputs_stay() -> None:
    graph = _graph()
    dead = replace(graph, ops=(*graph.ops, Reshape("dead", "w", "q")), values={**graph.values, "q": Value("q", (144,))})
    assert drop_unused(dead) == graph
    assert prune(
        replace(graph, inputs=("x", "u"), values={**graph.values, "u": Value("u", (BATCH,))}), ["h"]
    ).inputs == (
        "x",
        "u",
    )


def test_reads_names_everything_once_per_use() -> None:
    assert reads(_graph().ops[1]) == ("h", "w", "b", "h")
    assert reads(replace(_graph().ops[0], bias=ABSENT)) == ("x", "w")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("shape", "target", "allowzero", "expected"),
    [
        ((BATCH, 3, 4), (0, -1), False, (BATCH, 12)),
        ((BATCH, 3, 4), (-1, 12), False, (BATCH, 12)),
        ((BATCH, 3, 4), (-1, 6), False, None),
        ((BATCH, 3, 4), (UNKNOWN_BATCH, -1), False, (BATCH, 12)),
        ((BATCH, 3, 4), (UNKNOWN_BATCH, 2, -1), False, (BATCH, 2, 6)),
        ((BATCH, 3, 4), (-1, UNKNOWN_BATCH), False, None),
        ((BATCH, 3, 4), (12, -1), False, None),
        ((BATCH, 3, 4), (12,), False, None),
        ((BATCH, 3, 4), (1, -1), False, None),
        ((BATCH, 3, 4), (0, 0, 2, -1), False, (BATCH, 3, 2, 2)),
        ((BATCH, 3, 4), (0, 5, -1), False, None),
        ((BATCH,), (-1, 1), False, (BATCH, 1)),
        ((BATCH, 1), (-1,), False, (BATCH,)),
        ((2, 3, 4), (-1,), False, (24,)),
        ((2, 3, 4), (0, 0, 0, -1), False, (2, 3, 4, 1)),
        ((2, 3, 4), (0, 0, 0, 0), False, None),
        ((2, 3, 4), (0, 12), True, None),
        ((2, 3, 4), (-1, -1), False, None),
        ((2, 3, 4), (-2, 12), False, None),
        ((2, 3, 4), (5, -1), False, None),
        ((2, 3, 4), (UNKNOWN_BATCH, 12), False, None),
        ((1,), (), False, ()),
        ((), (1, -1), False, (1, 1)),
    ],
)
def test_reshape_targets(
    shape: tuple[int, ...], target: tuple[int, ...], allowzero: bool, expected: tuple[int, ...] | None
) -> None:
    assert resolve_reshape(shape, target, allowzero) == expected


def test_broadcasting_keeps_the_batch_in_axis_0() -> None:
    assert broadcast((BATCH, 3), (3,)) == (BATCH, 3)
    assert broadcast((1, 3), (BATCH, 1)) == (BATCH, 3)
    assert broadcast((BATCH, 3), (2, 3)) is None
    assert broadcast((BATCH, 3), (5, 1, 3)) is None
    assert broadcast((2, 1), (1, 4)) == (2, 4)
    assert broadcast((), (2,)) == (2,)


def _brute_force_windows(size: int, kernel: int, stride: int, begin: int, end: int, dilation: int) -> int:
    """Counts start positions from which the last tap still lies inside the padded axis."""
    starts = range(0, size + begin + end, stride)
    return sum(start + dilation * (kernel - 1) < size + begin + end for start in starts)


def test_windows_and_pads_over_many_sizes() -> None:
    """window_count against counting; SAME gives ceil(size / stride); ceil_mode gives the specification's count."""
    cases = 0
    for size in (1, 2, 5, 8, 11):
        for kernel in (1, 2, 3):
            for stride in (1, 2, 3):
                for dilation in (1, 2):
                    extent = dilation * (kernel - 1) + 1
                    for begin, end in ((0, 0), (1, 0), (0, 1), (1, 1)):
                        if size + begin + end < extent or max(begin, end) >= extent:
                            continue
                        assert window_count(size, kernel, stride, begin, end, dilation) == _brute_force_windows(
                            size, kernel, stride, begin, end, dilation
                        )
                        pads = ceil_mode_pads(
                            (size,) * 2, (kernel,) * 2, (stride,) * 2, (dilation,) * 2, (begin, begin, end, end)
                        )
                        windows = -(-(size + begin + end - extent) // stride) + 1
                        if (windows - 1) * stride >= size + begin:
                            windows -= 1
                        assert min(pads) >= 0
                        assert window_count(size, kernel, stride, pads[0], pads[2], dilation) == windows
                        cases += 1
                    for auto_pad in ("SAME_UPPER", "SAME_LOWER"):
                        top, left, bottom, right = resolve_pads(
                            auto_pad, (size,) * 2, (kernel,) * 2, (stride,) * 2, (dilation,) * 2, (9, 9, 9, 9)
                        )
                        assert (top, bottom) == (left, right)
                        assert bottom - top in ((0, 1) if auto_pad == "SAME_UPPER" else (-1, 0))
                        assert window_count(size, kernel, stride, top, bottom, dilation) == -(-size // stride)
    assert cases > 200


def test_stated_pads_count_only_without_auto_pad() -> None:
    arguments = ((8, 8), (3, 3), (1, 1), (1, 1), (1, 2, 3, 4))
    assert resolve_pads("NOTSET", *arguments) == (1, 2, 3, 4)
    assert resolve_pads("VALID", *arguments) == (0, 0, 0, 0)


def test_model_errors_are_one_line() -> None:
    graph = _graph()
    conv = graph.ops[0]
    assert isinstance(conv, Conv)
    with pytest.raises(ModelError) as caught:
        output_value(replace(conv, pads=(0, 0, 0, 0), dilations=(9, 9)), graph.values)
    assert str(caught.value) == (
        "node 'op h' (Conv): kernel (3, 3) with dilations (9, 9) exceeds input [N, 4, 6, 5] with pads (0, 0, 0, 0)"
    )
