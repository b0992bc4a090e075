"""The caller's arrays: steps that read inputs before the first op and write outputs after the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...graph.ir import Quantize
from ...kernels.step import KernelKey
from ...pixels import PixelInput
from ...simd.element import FLOAT32, to_element
from ..layout import Layout
from ..pack import stored_bytes
from ..planning import Draft, Planning
from .fields import ROW_UNIT_ELEMENTS, halo_fields, loop_fields, row_major_strides

_SHORTEST_RUN: Final = 8
"""Elements; a copy of fewer costs more to begin than to do element by element."""

_EXPORTS: Final = ("float32", "int64", "uint8", "int8")
"""By `option` of the kernel export."""


def _run_length(fields: Mapping[str, int]) -> int:
    """Elements of a row, from its first on, that lie side by side in x and in y alike: one pixel's or all."""
    channels, pixels = fields["out_c"], fields["out_w"]
    if channels > 1 and not fields["x_channel"] == fields["y_channel"] == 1:
        return 1
    if pixels > 1 and not fields["x_pixel"] == fields["y_pixel"] == channels:
        return channels
    return pixels * channels


def _import_rows(y: Layout) -> int:
    return max(1, ROW_UNIT_ELEMENTS // (y.w * y.c))


def lower_import(planning: Planning, name: str, io: int) -> None:
    """The caller's row-major float32 array into the arena, quantised on the way if nothing else reads it."""
    quantize = planning.quantized_input(name)
    shape, numbers = planning.value(name).shape, dict[str, int]()
    if quantize is not None:
        name, numbers = quantize.output, _quantizing_fields(planning, quantize)
    y = planning.layout(name)
    fields = loop_fields(shape, False, x=row_major_strides(shape), y=y.strides)
    fields["rows"] = _import_rows(y)
    kernel, run = KernelKey("import_f32"), _run_length(fields)
    if run >= _SHORTEST_RUN:
        kernel, fields["length"] = KernelKey("import_runs"), run
    elif len(shape) == 4 and y.c == y.pixel == 3:
        kernel = KernelKey("import_planes_3")
    planning.step(kernel, name, y=(name, y.inside), io=io, **halo_fields(y), **fields, **numbers)


def _quantizing_fields(planning: Planning, op: Quantize) -> dict[str, int]:
    zero = planning.stored_zero(op.output, op.quantization.zero_point[0])
    scale = planning.buffers.add_weights(np.array([op.quantization.scale[0], zero], np.float32))
    return {"scale": scale, "low": -zero, "high": 255 - zero}


def lower_pixels(planning: Planning, name: str, pixels: PixelInput) -> Draft:
    """The caller's uint8 N H W C array into the arena, in place of the first import step.

    Raises: InputError if the model's first input is no picture of the table's channels.
    """
    quantize = planning.quantized_input(name)
    shape, table = planning.value(name).shape, pixels.table
    if len(shape) != 4 or shape[1] != len(pixels.table):
        raise InputError(
            f"pixels have {len(pixels.table)} channels, but input {name!r} has shape {shape}; "
            "a picture [N, C, H, W] of as many channels is needed"
        )
    stored: npt.NDArray[Any]
    if quantize is None:
        stored = to_element(table, planning.layout(name).element)
    else:
        name, stored = quantize.output, stored_bytes(table, quantize.quantization)
    y = planning.layout(name)
    nhwc = (y.h * y.w * y.c, 1, y.w * y.c, y.c)
    fields = loop_fields(shape, False, x=nhwc, y=y.strides)
    fields["rows"] = _import_rows(y)
    weight = planning.buffers.add_weights(stored)
    draft = planning.step(
        KernelKey("import_u8"), name, y=(name, y.inside), io=0, weight=weight, **halo_fields(y), **fields
    )
    planning.drafts.pop()
    return draft


def lower_export(planning: Planning, name: str, io: int) -> None:
    """A value from the arena into the caller's row-major array."""
    x, value = planning.layout(name), planning.value(name)
    fields = loop_fields(value.shape, False, x=x.strides, y=row_major_strides(value.shape))
    kernel, run, option = KernelKey("export"), _run_length(fields), _EXPORTS.index(value.dtype)
    if run >= _SHORTEST_RUN and not option and x.element == FLOAT32:
        kernel, fields["length"] = KernelKey("export_runs"), run
    draft = planning.step(kernel, name, x=(name, x.inside), y=(name, 0), io=io, **fields)
    del draft.places["y"]
    draft.record["option"] = option
