"""ONNX's own node tests of every op that the reader knows, against the NumPy twins and against the product.

The cases are those of onnx 1.23; a case that must fail says why. Expected outputs come from ONNX.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import pytest
from onnx.backend.test.case import node as onnx_node_cases
from onnx_adapter import Engine, backend_for, reference_engine, session_engine

from backend.errors import ModelError

INCLUDED: Final = {
    "add": """
        add add_int8 add_int16 add_uint8 add_uint16 add_uint32 add_uint64 add_bcast
    """,
    "sub": """
        sub_example sub sub_int8 sub_int16 sub_uint8 sub_uint16 sub_uint32 sub_uint64 sub_bcast
    """,
    "mul": """
        mul_example mul mul_int8 mul_int16 mul_uint8 mul_uint16 mul_uint32 mul_uint64 mul_bcast
    """,
    "div": """
        div_example div div_int8 div_int16 div_int32_trunc div_uint8 div_uint16 div_uint32 div_uint64
        div_bcast
    """,
    "sum": """
        sum_example sum_one_input sum_two_inputs
    """,
    "relu": """
        relu
    """,
    "clip": """
        clip_example clip clip_inbounds clip_outbounds clip_splitbounds clip_min_greater_than_max
        clip_default_min clip_default_max clip_default_inbounds clip_default_int8_min clip_default_int8_max
        clip_default_int8_inbounds
    """,
    "conv": """
        basic_conv_with_padding basic_conv_without_padding conv_with_strides_padding
        conv_with_strides_no_padding conv_with_strides_and_asymmetric_padding conv_with_autopad_same
    """,
    "averagepool": """
        averagepool_2d_precomputed_pads averagepool_2d_precomputed_pads_count_include_pad
        averagepool_2d_precomputed_strides averagepool_2d_precomputed_same_upper averagepool_1d_default
        averagepool_2d_default averagepool_3d_default averagepool_2d_same_upper averagepool_2d_same_lower
        averagepool_2d_pads averagepool_2d_pads_count_include_pad averagepool_2d_strides averagepool_2d_ceil
        averagepool_2d_ceil_last_window_starts_on_pad averagepool_2d_dilations averagepool_3d_dilations_small
        averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True
        averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False
        averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
        averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False
    """,
    "maxpool": """
        maxpool_2d_uint8 maxpool_2d_precomputed_pads maxpool_with_argmax_2d_precomputed_pads
        maxpool_2d_precomputed_strides maxpool_with_argmax_2d_precomputed_strides
        maxpool_2d_precomputed_same_upper maxpool_1d_default maxpool_2d_default maxpool_3d_default
        maxpool_2d_same_upper maxpool_2d_same_lower maxpool_2d_pads maxpool_2d_strides maxpool_2d_ceil
        maxpool_2d_ceil_output_size_reduce_by_one maxpool_2d_dilations maxpool_3d_dilations
        maxpool_3d_dilations_use_ref_impl maxpool_3d_dilations_use_ref_impl_large
    """,
    "globalaveragepool": """
        globalaveragepool globalaveragepool_precomputed
    """,
    "gemm": """
        gemm_default_zero_bias gemm_default_no_bias gemm_default_scalar_bias
        gemm_default_single_elem_vector_bias gemm_default_vector_bias gemm_default_matrix_bias gemm_transposeA
        gemm_transposeB gemm_alpha gemm_beta gemm_all_attributes
    """,
    "matmul": """
        matmul_2d matmul_3d matmul_4d matmul_bcast matmul_1d_3d matmul_4d_1d matmul_1d_1d
    """,
    "batch_normalization": """
        batchnorm_example batchnorm_epsilon batchnorm_example_training_mode batchnorm_epsilon_training_mode
    """,
    "pad": """
        constant_pad edge_pad reflect_pad wrap_pad constant_pad_axes constant_pad_negative_axes
    """,
    "reducemean": """
        reduce_mean_do_not_keepdims_example reduce_mean_do_not_keepdims_random reduce_mean_keepdims_example
        reduce_mean_keepdims_random reduce_mean_default_axes_keepdims_example
        reduce_mean_default_axes_keepdims_random reduce_mean_negative_axes_keepdims_example
        reduce_mean_negative_axes_keepdims_random
    """,
    "softmax": """
        softmax_example softmax_large_number softmax_axis_0 softmax_axis_1 softmax_axis_2
        softmax_negative_axis softmax_default_axis
    """,
    "argmax": """
        argmax_no_keepdims_example argmax_no_keepdims_random argmax_keepdims_example argmax_keepdims_random
        argmax_default_axis_example argmax_default_axis_random argmax_negative_axis_keepdims_example
        argmax_negative_axis_keepdims_random argmax_no_keepdims_example_select_last_index
        argmax_no_keepdims_random_select_last_index argmax_keepdims_example_select_last_index
        argmax_keepdims_random_select_last_index argmax_default_axis_example_select_last_index
        argmax_default_axis_random_select_last_index argmax_negative_axis_keepdims_example_select_last_index
        argmax_negative_axis_keepdims_random_select_last_index
    """,
    "transpose": """
        transpose_default transpose_all_permutations_0 transpose_all_permutations_1
        transpose_all_permutations_2 transpose_all_permutations_3 transpose_all_permutations_4
        transpose_all_permutations_5
    """,
    "reshape": """
        reshape_reordered_all_dims reshape_reordered_last_dims reshape_reduced_dims reshape_extended_dims
        reshape_one_dim reshape_negative_dim reshape_negative_extended_dims reshape_zero_dim
        reshape_zero_and_negative_dim reshape_allowzero_reordered
    """,
    "flatten": """
        flatten_axis0 flatten_axis1 flatten_axis2 flatten_axis3 flatten_default_axis flatten_negative_axis4
        flatten_negative_axis3 flatten_negative_axis2 flatten_negative_axis1
    """,
    "squeeze": """
        squeeze squeeze_negative_axes
    """,
    "unsqueeze": """
        unsqueeze_axis_0 unsqueeze_axis_1 unsqueeze_axis_2 unsqueeze_two_axes unsqueeze_three_axes
        unsqueeze_unsorted_axes unsqueeze_negative_axes
    """,
    "quantizelinear": """
        quantizelinear quantizelinear_axis quantizelinear_e4m3fn quantizelinear_e5m2 quantizelinear_uint16
        quantizelinear_int16 quantizelinear_uint4 quantizelinear_int4 quantizelinear_uint2 quantizelinear_int2
        quantizelinear_float4e2m1 quantizelinear_blocked_asymmetric quantizelinear_blocked_symmetric
    """,
    "identity": """
        identity identity_sequence identity_opt
    """,
    "dropout": """
        dropout_default dropout_default_ratio dropout_default_mask dropout_default_mask_ratio
        training_dropout_default training_dropout_default_mask training_dropout training_dropout_mask
        training_dropout_zero_ratio training_dropout_zero_ratio_mask dropout_default_old dropout_random_old
    """,
}
"""Module of onnx.backend.test.case.node -> names of its cases, "test_" left out."""

REFUSED: Final = {
    "*int8*": "only float32 inputs",
    "*int16": "only float32 inputs",
    "*_uint32": "only float32 inputs",
    "*_uint64": "only float32 inputs",
    "div_int32_trunc": "only float32 inputs",
    "edge_pad": "only float32 inputs (and only constant padding)",
    "reflect_pad": "only float32 inputs (and only constant padding)",
    "wrap_pad": "only float32 inputs (and only constant padding)",
    "quantizelinear_e*": "only uint8 and int8",
    "quantizelinear_uint*": "only uint8 and int8",
    "quantizelinear_int*": "only uint8 and int8",
    "quantizelinear_float*": "only uint8 and int8",
    "quantizelinear_blocked*": "one scale per tensor or per channel",
    "*pool_1d_*": "pooling is 2-D",
    "*pool_3d_*": "pooling is 2-D",
    "maxpool_with_argmax_*": "the indices of a max pool are not computed",
    "matmul_[!2]*": "MatMul takes a constant matrix on the right",
    "batchnorm_*_training_mode": "inference only",
    "training_dropout*": "inference only",
    "dropout_*_mask*": "the mask of Dropout is not computed",
    "reshape_allowzero_reordered": "no tensors without elements",
    "identity_sequence": "only tensors",
    "identity_opt": "only tensors",
}
"""Pattern of case names -> why the reader refuses them, with a ModelError."""


REFUSED_BY_SESSION: Final = {
    "unsqueeze_two_axes": "values have one to four axes",
    "unsqueeze_three_axes": "values have one to four axes",
    "unsqueeze_unsorted_axes": "values have one to four axes",
    "unsqueeze_negative_axes": "values have one to four axes",
}
"""Pattern of case names -> why the planner refuses what the reader takes, with a ModelError."""


def _parameters() -> list[Any]:
    parameters = []
    for engine, refused in ((reference_engine, REFUSED), (session_engine, REFUSED | REFUSED_BY_SESSION)):
        for name in " ".join(INCLUDED.values()).split():
            reasons = [reason for pattern, reason in refused.items() if fnmatchcase(name, pattern)]
            marks = [pytest.mark.xfail(reason=reasons[0], raises=ModelError, strict=True)] if reasons else []
            parameters.append(pytest.param(name, engine, id=f"{engine.__name__}-{name}", marks=marks))
    return parameters


@pytest.fixture(scope="module")
def cases() -> Mapping[str, Any]:
    """ONNX's cases by name. Importing a module makes its cases (a ten-second matter for the 3-D pools)."""
    for module in INCLUDED:
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return {case.name: case for case in onnx_node_cases._NodeTestCases}


@pytest.mark.parametrize(("name", "engine"), _parameters())
def test_node(cases: Mapping[str, Any], name: str, engine: Engine) -> None:
    case = cases[f"test_{name}"]
    prepared = backend_for(engine).prepare(case.model)
    for inputs, expected in case.data_sets:
        for got, want in zip(prepared.run(inputs), expected, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)
