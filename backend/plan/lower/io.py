"""The caller's arrays: steps that read inputs before the first op and write outputs after the last."""

from __future__ import annotations

from ...errors import InputError
from ...kernels.step import KernelKey
from ...pixels import PixelInput
from ..layout import Layout
from ..planning import Draft, Planning
from .fields import ROW_UNIT_ELEMENTS, halo_fields, loop_fields, row_major_strides


def _import_rows(y: Layout) -> int:
    return max(1, ROW_UNIT_ELEMENTS // (y.w * y.c))


def lower_import(planning: Planning, name: str, io: int) -> None:
    """The caller's row-major float32 array into the arena."""
    y, shape = planning.layout(name), planning.value(name).shape
    fields = loop_fields(shape, False, x=row_major_strides(shape), y=y.strides)
    fields["rows"] = _import_rows(y)
    planning.step(KernelKey("import_f32"), name, y=(name, y.inside), io=io, **halo_fields(y), **fields)


def lower_pixels(planning: Planning, name: str, pixels: PixelInput) -> Draft:
    """The caller's uint8 N H W C array into the arena, in place of the first import step.

    Raises: InputError if the model's first input is no picture of the table's channels.
    """
    y, shape = planning.layout(name), planning.value(name).shape
    if len(shape) != 4 or shape[1] != len(pixels.table):
        raise InputError(
            f"pixels have {len(pixels.table)} channels, but input {name!r} has shape {shape}; "
            "a picture [N, C, H, W] of as many channels is needed"
        )
    nhwc = (y.h * y.w * y.c, 1, y.w * y.c, y.c)
    fields = loop_fields(shape, False, x=nhwc, y=y.strides)
    fields["rows"] = _import_rows(y)
    weight = planning.buffers.add_weights(pixels.table)
    draft = planning.step(
        KernelKey("import_u8"), name, y=(name, y.inside), io=0, weight=weight, **halo_fields(y), **fields
    )
    planning.drafts.pop()
    return draft


def lower_export(planning: Planning, name: str, io: int) -> None:
    """A value from the arena into the caller's row-major array."""
    x, value = planning.layout(name), planning.value(name)
    fields = loop_fields(value.shape, False, x=x.strides, y=row_major_strides(value.shape))
    draft = planning.step(KernelKey("export"), name, x=(name, x.inside), y=(name, 0), io=io, **fields)
    del draft.places["y"]
    draft.record["option"] = value.dtype == "int64"
