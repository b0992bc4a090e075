"""Ranges of inputs and steps of outputs of quantised models, against the numbers the models were made with."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import model, node

from backend import read_quantized_ends

SCALE = np.float32(0.5)


def quantised(
    zero_point: np.generic, *, before: str = "Identity", behind: str = "Identity", output_scale: float = 0.25
) -> bytes:
    """x -> `before` -> Quantize -> Dequantize -> Relu -> Quantize -> Dequantize -> `behind` -> y."""
    moved = {"perm": [0, 2, 3, 1]}
    nodes = [
        node(before, "x", "moved", **(moved if before == "Transpose" else {})),
        node("QuantizeLinear", "moved scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
        node("Relu", "d", "r"),
        node("QuantizeLinear", "r output_scale zero", "q2"),
        node("DequantizeLinear", "q2 output_scale zero", "d2"),
        node(behind, "d2", "y", **(moved if behind == "Transpose" else {})),
    ]
    constants = {"scale": SCALE, "zero": np.asarray(zero_point), "output_scale": np.float32(output_scale)}
    return model(nodes, {"x": ["N", 2, 4, 4]}, ["y"], constants).SerializeToString()


@pytest.mark.parametrize(
    ("zero_point", "expected"),
    [(np.uint8(100), (-50.0, 77.5)), (np.int8(-28), (-50.0, 77.5)), (np.int8(0), (-64.0, 63.5))],
)
@pytest.mark.parametrize("before", ["Identity", "Transpose"])
def test_the_range_of_an_input_is_that_of_its_type(
    zero_point: np.generic, expected: tuple[float, float], before: str
) -> None:
    """(stored - zero point) * 0.5, for the least and the most of the type."""
    ends = read_quantized_ends(quantised(zero_point, before=before))
    assert ends is not None and ends.input_ranges == {"x": expected}


@pytest.mark.parametrize("behind", ["Identity", "Transpose"])
def test_the_step_of_an_output_is_its_scale(behind: str) -> None:
    ends = read_quantized_ends(quantised(np.uint8(3), behind=behind, output_scale=0.125))
    assert ends is not None and ends.output_steps == {"y": 0.125} and not ends.probabilities


def test_an_output_behind_softmax_is_a_probability_and_has_no_step_if_it_is_not_quantised() -> None:
    ends = read_quantized_ends(quantised(np.uint8(3), behind="Softmax"))
    assert ends is not None and ends.output_steps == {} and ends.probabilities == {"y"}


def test_an_output_of_integers_has_steps_of_one() -> None:
    nodes = [node("QuantizeLinear", "x scale zero", "y")]
    constants = {"scale": SCALE, "zero": np.asarray(np.uint8(0))}
    proto = model(nodes, {"x": ["N", 2]}, ["y"], constants, output_type=TensorProto.UINT8)
    ends = read_quantized_ends(proto.SerializeToString())
    assert ends is not None and ends.output_steps == {"y": 1.0}


def test_a_model_that_is_not_quantised_has_none() -> None:
    assert read_quantized_ends(model([node("Relu", "x", "y")], {"x": ["N", 2]}, ["y"]).SerializeToString()) is None
