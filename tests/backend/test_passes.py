"""Passes keep results and names: each rewrite by hand with its traps, then all passes on random graphs.

Results are judged by onnxruntime on the model as written, so a pass cannot be wrong in the same way as its judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import model, node, random_input, run_onnxruntime

from backend.graph import passes
from backend.graph.check import BrokenGraphError
from backend.graph.ir import ABSENT, BatchNorm, Binary, Clip, Conv, Dense, Graph, Mean, Pad, Pool, Reshape, Transpose
from backend.graph.onnx_reader import read_model
from backend.graph.passes import PASSES, run_passes
from backend.graph.passes.fold_batchnorm import fold_batchnorm
from backend.graph.passes.fuse_epilogue import fuse_epilogue
from backend.reference import run_reference

X = {"x": ["N", 4, 9, 8]}


def _constants() -> dict[str, np.ndarray]:
    """Weights under one letter each: w 3x3, u 1x1, dw depthwise, b/c/d vectors of 4, v positive, m matrix, s scalar."""
    rng = np.random.default_rng(5)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "w": normal(4, 4, 3, 3) / 6,
        "u": normal(4, 4, 1, 1) / 2,
        "dw": normal(4, 1, 3, 2) / 2,
        "b": normal(4),
        "c": normal(4),
        "d": normal(4),
        "v": rng.uniform(0.5, 2, 4).astype(np.float32),
        "k": normal(1, 4, 1, 1),
        "r": normal(4, 1, 1),
        "m": normal(4, 4),
        "s": np.float32(1.25),
        "z": np.float32([1, 0, 2, 3]).reshape(4, 1, 1),
        "p": np.array([0, 0, 1, 0, 0, 0, 2, 1]),
        "q": np.array([0, 1, 0, 0, 0, 0, 0, 0]),
        "n": np.array([0, 0, -1, 0, 0, 0, 1, 1]),
        "low": np.float32(-np.inf),
        "one": np.float32(1),
        "six": np.float32(0.6),
        "nil": np.float32(0),
        "flat": np.array([0, -1]),
    }


def _passed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str] = ("y",), inputs: Mapping[str, Any] = X) -> Graph:
    """The graph after all passes, its results compared with onnxruntime's."""
    used = {name for item in nodes for name in item.input}
    constants = {name: array for name, array in _constants().items() if name in used}
    proto = model(nodes, inputs, outputs, constants)
    for index, name in enumerate(outputs):
        if name.startswith("index"):
            proto.graph.output[index].type.tensor_type.elem_type = TensorProto.INT64
    arrays = {name: random_input(shape) for name, shape in inputs.items()}
    graph = run_passes(read_model(proto))
    assert graph.outputs == tuple(outputs)
    for got, expected in zip(run_reference(graph, arrays), run_onnxruntime(proto, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    return graph


def _kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]


CONV = node("Conv", "x w b", "a", pads=[1, 1, 1, 1])


class TestFuseEpilogue:
    def test_relu_and_relu6(self) -> None:
        (op,) = _passed([CONV, node("Clip", "a nil six", "y")]).ops
        assert isinstance(op, Conv) and (op.epilogue.low, op.epilogue.high) == (0, np.float32(0.6))

    def test_two_clips_become_one(self) -> None:
        (op,) = _passed([CONV, node("Relu", "a", "h"), node("Clip", "h _ six", "y")]).ops
        assert isinstance(op, Conv) and (op.epilogue.low, op.epilogue.high) == (0, np.float32(0.6))

    def test_clips_that_do_not_meet(self) -> None:
        (op,) = _passed([CONV, node("Clip", "a nil six", "h"), node("Clip", "h one", "y")]).ops
        assert isinstance(op, Conv) and (op.epilogue.low, op.epilogue.high) == (1, 1)

    def test_value_with_two_readers_stays(self) -> None:
        graph = _passed([CONV, node("Relu", "a", "h"), node("Mul", "a h", "y")])
        assert _kinds(graph) == ["Conv", "Clip", "Binary"]

    def test_value_that_is_an_output_stays(self) -> None:
        graph = _passed([CONV, node("Relu", "a", "y")], outputs=["y", "a"])
        assert _kinds(graph) == ["Conv", "Clip"]

    def test_residual_then_relu(self) -> None:
        (op,) = _passed([CONV, node("Add", "a x", "h"), node("Relu", "h", "y")]).ops
        assert isinstance(op, Conv) and (op.epilogue.residual, op.epilogue.low) == ("x", 0)

    def test_activation_before_the_add_keeps_the_add(self) -> None:
        graph = _passed([CONV, node("Relu", "a", "h"), node("Add", "h x", "y")])
        assert _kinds(graph) == ["Conv", "Binary"]
        assert isinstance(graph.ops[0], Conv) and graph.ops[0].epilogue.residual == ABSENT

    def test_of_two_convolutions_the_later_takes_the_add(self) -> None:
        for operands in ("a e", "e a"):
            later = node("Conv", "x u", "e")
            graph = _passed([CONV, later, node("Add", operands, "h"), node("Relu", "h", "y")])
            assert _kinds(graph) == ["Conv", "Conv"]
            last = graph.ops[1]
            assert isinstance(last, Conv) and last.weight == "u" and last.epilogue.residual == "a"

    def test_clipped_branch_leaves_the_add_to_the_other(self) -> None:
        graph = _passed([CONV, node("Conv", "x u", "e"), node("Relu", "e", "f"), node("Add", "a f", "y")])
        assert _kinds(graph) == ["Conv", "Conv"]
        last = graph.ops[1]
        assert isinstance(last, Conv) and (last.weight, last.epilogue.residual) == ("w", "f")

    def test_value_added_to_itself(self) -> None:
        assert _kinds(_passed([CONV, node("Add", "a a", "y")])) == ["Conv", "Binary"]

    def test_broadcast_add_is_no_residual(self) -> None:
        graph = _passed([CONV, node("GlobalAveragePool", "x", "g"), node("Add", "a g", "y")])
        assert _kinds(graph) == ["Mean", "Conv", "Binary"] or _kinds(graph) == ["Conv", "Mean", "Binary"]

    def test_subtraction_is_no_residual(self) -> None:
        assert _kinds(_passed([CONV, node("Sub", "x a", "y")])) == ["Conv", "Binary"]

    def test_second_add_stays(self) -> None:
        graph = _passed([CONV, node("Add", "a x", "h"), node("Add", "h x", "y")])
        assert _kinds(graph) == ["Conv", "Binary"]

    def test_dense_takes_clip_and_residual(self) -> None:
        nodes = [node("Gemm", "x m c", "a"), node("Add", "a x", "h"), node("Relu", "h", "y")]
        (op,) = _passed(nodes, inputs={"x": ["N", 4]}).ops
        assert isinstance(op, Dense) and (op.epilogue.residual, op.epilogue.low) == ("x", 0)

    def test_binary_takes_a_clip(self) -> None:
        (op,) = _passed([node("Mul", "x x", "h"), node("Clip", "h _ six", "y")]).ops
        assert isinstance(op, Binary) and op.epilogue.high == np.float32(0.6)


class TestFoldBatchnorm:
    BN = node("BatchNormalization", "a c d b v", "y", epsilon=1e-3)

    def test_into_convolution_with_and_without_bias(self) -> None:
        for inputs in ("x w b", "x w"):
            (op,) = _passed([node("Conv", inputs, "a"), self.BN]).ops
            assert isinstance(op, Conv) and op.output == "y" and op.bias != ABSENT

    def test_into_depthwise_convolution(self) -> None:
        (op,) = _passed([node("Conv", "x dw b", "a", group=4), self.BN]).ops
        assert isinstance(op, Conv) and op.group == 4

    def test_into_dense(self) -> None:
        nodes = [node("MatMul", "x m", "a"), self.BN]
        assert _kinds(_passed(nodes, inputs={"x": ["N", 4]})) == ["Dense"]

    def test_not_into_dense_over_another_axis(self) -> None:
        nodes = [node("MatMul", "x m", "a"), self.BN]
        assert _kinds(_passed(nodes, inputs={"x": ["N", 4, 4]})) == ["Dense", "BatchNorm"]

    def test_not_behind_an_activation(self) -> None:
        nodes = [CONV, node("Relu", "a", "h"), node("BatchNormalization", "h c d b v", "y")]
        assert _kinds(_passed(nodes)) == ["Conv", "BatchNorm"]

    def test_not_behind_an_activation_that_is_fused_already(self) -> None:
        nodes = [CONV, node("Relu", "a", "h"), node("BatchNormalization", "h c d b v", "y")]
        graph = fuse_epilogue(read_model(model(nodes, X, ["y"], _constants())))
        assert _kinds(graph) == _kinds(fold_batchnorm(graph)) == ["Conv", "BatchNorm"]

    def test_not_where_the_convolution_has_another_reader(self) -> None:
        nodes = [CONV, node("BatchNormalization", "a c d b v", "h"), node("Mul", "a h", "y")]
        assert sorted(_kinds(_passed(nodes))) == ["BatchNorm", "Binary", "Conv"]

    def test_not_where_the_value_is_an_output(self) -> None:
        assert _kinds(_passed([CONV, self.BN], outputs=["a", "y"])) == ["Conv", "BatchNorm"]

    def test_alone(self) -> None:
        (op,) = _passed([node("BatchNormalization", "x c d b v", "y")]).ops
        assert isinstance(op, BatchNorm)

    def test_matmul_and_add_become_dense_with_bias(self) -> None:
        for operands in ("a c", "c a"):
            for shape in (["N", 4], ["N", 3, 4]):
                (op,) = _passed([node("MatMul", "x m", "a"), node("Add", operands, "y")], inputs={"x": shape}).ops
                assert isinstance(op, Dense) and op.bias != ABSENT

    @pytest.mark.parametrize("operands", ["a r", "r a", "a k", "a s", "s a"])
    @pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
    def test_constants_per_channel(self, op_type: str, operands: str) -> None:
        constant_over_value = op_type == "Div" and operands.endswith("a")
        graph = _passed([CONV, node(op_type, operands, "h"), node("Relu", "h", "y")])
        assert _kinds(graph) == (["Conv", "Binary"] if constant_over_value else ["Conv"])

    def test_unfolded_batch_norm(self) -> None:
        nodes = [
            CONV,
            node("Sub", "a r", "e"),
            node("Mul", "e k", "f"),
            node("Add", "f r", "g"),
            node("Relu", "g", "y"),
        ]
        assert _kinds(_passed(nodes)) == ["Conv"]

    def test_constant_per_pixel_stays(self) -> None:
        proto = model([CONV, node("Add", "a t", "y")], X, ["y"], _constants() | {"t": random_input([9, 8])})
        assert _kinds(run_passes(read_model(proto))) == ["Conv", "Binary"]

    def test_division_by_zero_stays(self) -> None:
        graph = run_passes(read_model(model([CONV, node("Div", "a z", "y")], X, ["y"], _constants())))
        assert _kinds(graph) == ["Conv", "Binary"]

    def test_weights_beyond_float32_stay(self) -> None:
        huge = {"t": np.full((4, 1, 1), 3e38, np.float32), "w": np.full((4, 4, 3, 3), 10, np.float32)}
        graph = run_passes(read_model(model([CONV, node("Mul", "a t", "y")], X, ["y"], _constants() | huge)))
        assert _kinds(graph) == ["Conv", "Binary"]


class TestFoldPad:
    PAD = node("Pad", "x p", "h")

    def test_into_strided_convolution_with_pads_of_its_own(self) -> None:
        (op,) = _passed([self.PAD, node("Conv", "h w", "y", strides=[2, 2], pads=[1, 0, 0, 1])]).ops
        assert isinstance(op, Conv) and op.pads == (2, 0, 2, 2)

    def test_into_each_of_two_readers(self) -> None:
        nodes = [self.PAD, node("Conv", "h w", "a"), node("Conv", "h w", "e"), node("Mul", "a e", "y")]
        assert _kinds(_passed(nodes)) == ["Conv", "Conv", "Binary"]

    def test_pad_with_another_reader_stays_for_it(self) -> None:
        nodes = [
            self.PAD,
            node("Conv", "h w", "a"),
            node("MaxPool", "h", "e", kernel_shape=[3, 3]),
            node("Mul", "a e", "y"),
        ]
        graph = _passed(nodes)
        assert sorted(_kinds(graph)) == ["Binary", "Conv", "Pad", "Pool"]

    def test_pad_that_is_an_output_stays(self) -> None:
        assert sorted(_kinds(_passed([self.PAD, node("Conv", "h w", "y")], outputs=["h", "y"]))) == ["Conv", "Pad"]

    @pytest.mark.parametrize("inputs", ["x p one", "x q", "x n"])
    def test_other_values_axes_and_crops_stay(self, inputs: str) -> None:
        channels = 5 if inputs == "x q" else 4
        weight = random_input([2, channels, 3, 3])
        proto = model(
            [node("Pad", inputs, "h"), node("Conv", "h t", "y", pads=[1, 1, 1, 1])],
            X,
            ["y"],
            _constants() | {"t": weight},
        )
        graph = run_passes(read_model(proto))
        assert _kinds(graph) == ["Pad", "Conv"]
        x = {"x": random_input(X["x"])}
        np.testing.assert_allclose(run_reference(graph, x)[0], run_onnxruntime(proto, x)[0], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("include", [0, 1])
    @pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 0, 1]])
    def test_into_average_pool_counts_the_explicit_part(self, include: int, pads: list[int]) -> None:
        pool = node("AveragePool", "h", "y", kernel_shape=[3, 3], strides=[2, 1], pads=pads, count_include_pad=include)
        (op,) = _passed([self.PAD, pool]).ops
        assert isinstance(op, Pool) and op.count_include_pad

    def test_into_max_pool_only_below_everything(self) -> None:
        pool = node("MaxPool", "h", "y", kernel_shape=[3, 3], strides=[2, 2])
        assert _kinds(_passed([self.PAD, pool])) == ["Pad", "Pool"]
        assert _kinds(_passed([node("Pad", "x p low", "h"), pool])) == ["Pool"]
        relu = [node("Relu", "x", "e"), node("Pad", "e p", "h"), pool]
        assert _kinds(_passed(relu)) == ["Clip", "Pool"]
        assert _kinds(_passed([node("Relu", "x", "e"), node("Pad", "e p one", "h"), pool])) == ["Clip", "Pad", "Pool"]

    def test_not_into_max_pool_that_may_see_padding_alone(self) -> None:
        pool = node("MaxPool", "h", "y", kernel_shape=[2, 2])
        assert _kinds(_passed([node("Relu", "x", "e"), node("Pad", "e p", "h"), pool])) == ["Clip", "Pad", "Pool"]


class TestDropIdentity:
    def test_left_overs_between_ops(self) -> None:
        nodes = [
            node("Identity", "x", "e"),
            node("Dropout", "e", "f"),
            node("Conv", "f w", "g"),
            node("Cast", "g", "h", to=TensorProto.FLOAT),
            node("Clip", "h", "i"),
            node("Relu", "i", "y"),
        ]
        assert _kinds(_passed(nodes)) == ["Conv"]

    def test_output_keeps_its_name(self) -> None:
        (op,) = _passed([CONV, node("Identity", "a", "y")]).ops
        assert isinstance(op, Conv) and op.output == "y"

    def test_output_takes_the_name_from_a_value_with_other_readers(self) -> None:
        nodes = [CONV, node("Relu", "a", "e"), node("Identity", "a", "y"), node("Mul", "a e", "o")]
        assert sorted(_kinds(_passed(nodes, outputs=["y", "o"]))) == ["Binary", "Clip", "Conv"]

    def test_copy_of_an_output_or_input_stays(self) -> None:
        graph = _passed([CONV, node("Identity", "a", "y"), node("Identity", "x", "z0")], outputs=["a", "y", "z0"])
        assert sorted(_kinds(graph)) == ["Conv", "Reshape", "Reshape"]

    def test_two_names_for_one_value(self) -> None:
        nodes = [CONV, node("Identity", "a", "y"), node("Identity", "a", "o"), node("Relu", "o", "e")]
        assert sorted(_kinds(_passed(nodes, outputs=["y", "o", "e"]))) == ["Clip", "Conv", "Reshape"]

    def test_chain_of_identities_to_an_output(self) -> None:
        nodes = [CONV, node("Identity", "a", "e"), node("Identity", "e", "f"), node("Identity", "f", "y")]
        assert _kinds(_passed(nodes)) == ["Conv"]

    def test_transposes_that_cancel(self) -> None:
        nodes = [node("Transpose", "x", "e", perm=[0, 2, 3, 1]), node("Transpose", "e", "f", perm=[0, 3, 1, 2])]
        assert _kinds(_passed([*nodes, node("Conv", "f w", "y")])) == ["Conv"]

    def test_transposes_that_combine(self) -> None:
        nodes = [node("Transpose", "x", "e", perm=[0, 2, 3, 1]), node("Transpose", "e", "y", perm=[0, 2, 3, 1])]
        (op,) = _passed(nodes).ops
        assert isinstance(op, Transpose) and op.perm == (0, 3, 1, 2)

    def test_transposes_that_combine_in_order(self) -> None:
        nodes = [node("Transpose", "x", "e", perm=[0, 2, 1, 3]), node("Transpose", "e", "y", perm=[0, 3, 1, 2])]
        (op,) = _passed(nodes).ops
        assert isinstance(op, Transpose) and op.perm == (0, 3, 2, 1)

    def test_transpose_of_single_pixels_is_a_reshape(self) -> None:
        nodes = [
            node("GlobalAveragePool", "x", "e"),
            node("Transpose", "e", "f", perm=[0, 2, 3, 1]),
            node("Reshape", "f flat", "g"),
            node("Gemm", "g m", "y"),
        ]
        graph = _passed(nodes)
        assert _kinds(graph) == ["Mean", "Reshape", "Dense"]


class TestSinkTranspose:
    TO_NHWC = (0, 2, 3, 1)
    TO_NCHW = (0, 3, 1, 2)

    def _nhwc(self, x: str, y: str) -> onnx.NodeProto:
        return node("Transpose", x, y, perm=list(self.TO_NHWC))

    def _nchw(self, x: str, y: str) -> onnx.NodeProto:
        return node("Transpose", x, y, perm=list(self.TO_NCHW))

    def test_residual_block_written_in_nhwc(self) -> None:
        nodes = [
            self._nchw("x", "x1"),
            node("Conv", "x1 w", "c1", pads=[1, 1, 1, 1]),
            self._nhwc("c1", "h1"),
            node("Add", "h1 c", "h2"),
            node("Relu", "h2", "h3"),
            self._nchw("h3", "x2"),
            node("Conv", "x2 u b", "c2"),
            self._nhwc("c2", "h4"),
            node("Add", "h4 h3", "h5"),
            node("Relu", "h5", "h6"),
            node("Pad", "h6 pad", "h7"),
            self._nchw("h7", "x3"),
            node("Conv", "x3 w", "c3", strides=[2, 2]),
            self._nhwc("c3", "h8"),
            node("ReduceMean", "h8", "h9", axes=[1, 2], keepdims=0),
            node("MatMul", "h9 m", "y"),
        ]
        proto = model(nodes, {"x": ["N", 9, 8, 4]}, ["y"], _constants() | {"pad": np.array([0, 1, 1, 0, 0, 1, 1, 0])})
        graph = run_passes(read_model(proto))
        assert _kinds(graph) == ["Transpose", "Conv", "Conv", "Conv", "Mean", "Dense"]
        x = {"x": random_input(["N", 9, 8, 4])}
        np.testing.assert_allclose(run_reference(graph, x)[0], run_onnxruntime(proto, x)[0], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("keepdims", [0, 1])
    @pytest.mark.parametrize("axes", [[1], [3], [1, 3], [2, 3], [1, 2, 3]])
    def test_mean_of_any_axes(self, axes: list[int], keepdims: int) -> None:
        nodes = [self._nhwc("x", "e"), node("ReduceMean", "e", "y", axes=axes, keepdims=keepdims)]
        assert isinstance(_passed(nodes).ops[0], Mean)

    @pytest.mark.parametrize("axis", range(4))
    def test_mean_behind_a_cycle_of_axes(self, axis: int) -> None:
        """Of a fixed-size model: what is left is a cycle of three, which is not its own inverse."""
        nodes = [node("Transpose", "x", "e", perm=[1, 2, 3, 0]), node("ReduceMean", "e", "y", axes=[axis], keepdims=0)]
        assert isinstance(_passed(nodes, inputs={"x": [2, 3, 4, 5]}).ops[0], Mean)

    def test_constants_are_transposed_instead(self) -> None:
        for inputs in ("e c", "c e", "e s"):
            nodes = [self._nhwc("x", "e"), node("Div", inputs, "f"), self._nchw("f", "y")]
            assert _kinds(_passed(nodes)) == ["Binary"]

    def test_different_transposes_stay_before_the_add(self) -> None:
        nodes = [node("Transpose", "x", "e", perm=[0, 1, 3, 2]), node("Transpose", "x", "f", perm=[0, 3, 1, 2])]
        square = {"x": ["N", 4, 4, 4]}
        graph = _passed([*nodes, node("Add", "e f", "y")], inputs=square)
        assert _kinds(graph) == ["Transpose", "Transpose", "Binary"]

    def test_value_that_is_an_output_keeps_its_name_and_order(self) -> None:
        nodes = [self._nhwc("x", "e"), node("Relu", "e", "f"), self._nchw("f", "y")]
        graph = _passed(nodes, outputs=["f", "y"])
        assert sorted(_kinds(graph)) == ["Clip", "Transpose"]


def _random_model(seed: int) -> onnx.ModelProto:
    """Twenty random nodes over pictures [N, 4, 7, 6]: every value may be read again, some are outputs."""
    rng = np.random.default_rng(seed)
    constants = _constants() | {"axes": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    pictures = ["x"]
    nodes: list[onnx.NodeProto] = []
    for index in range(20):
        y = f"v{index}"
        recent = pictures[-3:] if rng.random() < 0.8 else pictures
        a, b = (str(rng.choice(recent)) for _ in range(2))
        constant = str(rng.choice(["r", "k", "s"]))
        choices = [
            [node("Conv", f"{a} w b", y, pads=[1, 1, 1, 1])],
            [node("Conv", f"{a} w", y, pads=[1, 1, 1, 1])],
            [node("Conv", f"{a} u", y)],
            [node("Pad", f"{a} axes{' one' if rng.random() < 0.3 else ''}", f"{y}p"), node("Conv", f"{y}p w", y)],
            [node("Pad", f"{a} axes", f"{y}p"), node("AveragePool", f"{y}p", y, kernel_shape=[3, 3])],
            [node("Pad", f"{a} axes", f"{y}p"), node("MaxPool", f"{y}p", y, kernel_shape=[3, 3])],
            [node("BatchNormalization", f"{a} c d b v", y)],
            [node("Conv", f"{a} u", f"{y}c"), node("BatchNormalization", f"{y}c c d b v", y)],
            [node("Relu", a, y)],
            [node("Relu", a, y)],
            [node("Clip", f"{a} _ six", y)],
            [node("Add", f"{a} {b}", y)],
            [node("Add", f"{a} {b}", y)],
            [node("Mul", f"{a} {constant}", y)],
            [node(str(rng.choice(["Add", "Sub"])), f"{constant} {a}", y)],
            [node("Identity", a, y)],
            [node("Transpose", a, f"{y}t", perm=[0, 2, 3, 1]), node("Transpose", f"{y}t", y, perm=[0, 3, 1, 2])],
            [
                node("Transpose", a, f"{y}t", perm=[0, 2, 3, 1]),
                node("Relu", f"{y}t", f"{y}u"),
                node("Transpose", f"{y}u", y, perm=[0, 3, 1, 2]),
            ],
        ]
        nodes += choices[rng.integers(len(choices))]
        pictures.append(y)
    nodes += [node("ReduceMean", pictures[-1], "mean", axes=[2, 3], keepdims=0), node("MatMul", "mean m", "product")]
    nodes += [node("Add", "product c", "logits")]
    outputs = ["logits", *sorted(set(rng.choice(pictures[1:], 2)))]
    return model(nodes, {"x": ["N", 4, 7, 6]}, outputs, constants)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_keep_their_results(seed: int) -> None:
    """In float64, where folding cannot hide behind rounding; and in float32 against onnxruntime."""
    proto = _random_model(seed)
    before = read_model(proto)
    after = run_passes(before)
    x = {"x": random_input(["N", 4, 7, 6], seed=seed)}
    expected = run_onnxruntime(proto, x)
    for name, plain, passed, peer in zip(
        before.outputs, run_reference(before, x, np.float64), run_reference(after, x, np.float64), expected, strict=True
    ):
        scale = max(float(np.abs(peer).max()), 1e-3)
        assert np.abs(plain - passed).max() <= 1e-5 * scale, name
        assert np.abs(passed - peer).max() <= 1e-4 * scale, name


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_passes_run_twice_keep_results(seed: int) -> None:
    """Each pass is right on any graph, also on one with epilogues and folded weights already."""
    once = run_passes(read_model(_random_model(seed)))
    x = {"x": random_input(["N", 4, 7, 6], seed=seed)}
    for first, second in zip(
        run_reference(once, x, np.float64), run_reference(run_passes(once), x, np.float64), strict=True
    ):
        assert np.abs(first - second).max() <= 1e-5 * max(float(np.abs(first).max()), 1e-3)


def test_random_graphs_exercise_every_rewrite() -> None:
    """Otherwise the test above shows little: each kind of op that a pass removes is removed somewhere."""
    removed: dict[type, int] = dict.fromkeys((Pad, BatchNorm, Clip, Binary, Reshape, Transpose), 0)
    residuals = 0
    for seed in range(60):
        before = read_model(_random_model(seed))
        after = run_passes(before)
        for kind in removed:
            removed[kind] += sum(isinstance(op, kind) for op in before.ops) - sum(
                isinstance(op, kind) for op in after.ops
            )
        residuals += sum(isinstance(op, Conv) and op.epilogue.residual != ABSENT for op in after.ops)
    assert min(removed.values()) > 5 and residuals > 5, (removed, residuals)


def test_a_broken_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_an_op(graph: Graph) -> Graph:
        return replace(graph, ops=graph.ops[1:])

    monkeypatch.setattr(passes, "PASSES", (*PASSES, lose_an_op))
    with pytest.raises(BrokenGraphError, match=r"after pass lose_an_op: op 'Add:y' .* reads 'a' before it is written"):
        run_passes(read_model(model([CONV, node("Add", "a a", "y")], X, ["y"], _constants())))
