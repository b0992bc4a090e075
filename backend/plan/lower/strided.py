"""Ops over any axes and strides: layout changes, broadcasting arithmetic, reductions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from ...graph.ir import BATCH, ArgMax, Binary, Mean, Op, Pad, Reshape, Shape, Softmax, Transpose
from ...kernels.step import KernelKey, KernelName
from ...simd.element import FLOAT32, UINT8
from ..layout import NO_HALO, Layout
from ..planning import Planning, unsupported
from .fields import halo_fields, loop_fields, row_major_strides, window_fields

_MAX_INDEX: Final = 1 << 24
"""Indices are kept as float32, which is exact below this."""


def _require_batch_in_place(planning: Planning, op: Op, in_place: bool) -> bool:
    """Whether axis 0 has to run as the outer loop; an error where it is the batch."""
    if in_place:
        return False
    if planning.batched:
        raise unsupported(op, "works across axis 0, the batch: images of a batch are independent here")
    return True


def _copy_step(
    planning: Planning, node: str, shape: Shape, x: tuple[str, int], x_strides: tuple[int, ...],
    y: tuple[str, int], y_strides: tuple[int, ...], *, batch_free: bool = False,
) -> None:  # fmt: skip
    """y <- x over `shape`, after clearing y if it has a halo, which a copy's loops do not reach."""
    if planning.layout(y[0]).halo != NO_HALO:
        _fill_step(planning, node, y[0], planning.layout(y[0]).zero)
    planning.step(KernelKey("copy"), node, x=x, y=y, **loop_fields(shape, batch_free, x=x_strides, y=y_strides))


def _fill_step(planning: Planning, node: str, name: str, value: float) -> None:
    layout = planning.layout(name)
    planning.step(
        KernelKey("fill"),
        node,
        y=(name, 0),
        images=layout.images,
        y_image=layout.image,
        length=layout.image,
        low=value,
        rows=1,
    )


def _float_sums(planning: Planning, name: str) -> str:
    """Where a kernel that works on its result in place puts it: the value itself, or a float32 one to be copied."""
    layout = planning.layout(name)
    if layout.element == FLOAT32:
        return name
    return planning.temporary(f"{name}:f32", replace(layout, element=FLOAT32, halo=NO_HALO))


def _copy_sums(planning: Planning, op: Op, name: str) -> None:
    """The step that rounds what `_float_sums` made room for, if it did."""
    if name != op.output:
        x, y, shape = planning.layout(name), planning.layout(op.output), planning.value(op.output).shape
        _copy_step(planning, op.name, shape, (name, x.inside), x.strides, (op.output, y.inside), y.strides)


def lower_transpose(planning: Planning, op: Transpose) -> None:
    """Any permutation that leaves the batch where it is."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    batch_free = _require_batch_in_place(planning, op, op.perm[0] == 0)
    x_strides = tuple(x.strides[axis] for axis in op.perm)
    shape = planning.value(op.output).shape
    _copy_step(
        planning, op.name, shape, (op.x, x.inside), x_strides, (op.output, y.inside), y.strides, batch_free=batch_free
    )


def lower_reshape(planning: Planning, op: Reshape) -> None:
    """Nothing if both layouts lie alike; else to row-major order and from there to the new layout."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    one_pixel = x.h == x.w == y.h == y.w == 1
    if one_pixel and (x.images, x.image, x.halo, x.element) == (y.images, y.image, y.halo, y.element):
        planning.alias[op.output] = op.x
        return
    x_shape, y_shape = planning.value(op.x).shape, planning.value(op.output).shape
    if planning.batched and x_shape[0] != y_shape[0]:
        raise unsupported(op, f"reshapes {x_shape} to {y_shape}, which moves axis 0, the batch")
    per_image = int(np.prod(x_shape[1:], dtype=np.int64))
    flat = planning.temporary(
        f"{op.output}:row_major", Layout(x.images, 1, 1, per_image, per_image, NO_HALO, 2, x.element)
    )
    _copy_step(planning, op.name, x_shape, (op.x, x.inside), x.strides, (flat, 0), row_major_strides(x_shape))
    _copy_step(planning, op.name, y_shape, (flat, 0), row_major_strides(y_shape), (op.output, y.inside), y.strides)


def lower_pad(planning: Planning, op: Pad) -> None:
    """Fills the output and copies the input's uncropped part into it."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    x_shape = planning.value(op.x).shape
    _require_batch_in_place(planning, op, op.pads[0] == (0, 0))
    skip = [max(0, -before) for before, _ in op.pads]
    shift = [max(0, before) for before, _ in op.pads]
    kept = tuple(
        size if size == BATCH else size - max(0, -before) - max(0, -after)
        for size, (before, after) in zip(x_shape, op.pads, strict=True)
    )
    x_start = x.inside + sum(a * b for a, b in zip(skip, x.strides, strict=True))
    y_start = y.inside + sum(a * b for a, b in zip(shift, y.strides, strict=True))
    value = planning.stored_zero(op.output, int(op.value)) if y.element == UINT8 else op.value
    _fill_step(planning, op.name, op.output, value)
    if value != y.zero and y.halo != NO_HALO:
        raise unsupported(op, f"pads with {op.value} in front of a padded convolution")
    planning.step(
        KernelKey("copy"),
        op.name,
        x=(op.x, x_start),
        y=(op.output, y_start),
        **loop_fields(kept, False, x=x.strides, y=y.strides),
    )


def lower_binary(planning: Planning, op: Binary) -> None:
    """Arithmetic with NumPy broadcasting; constants are put into the arena once."""
    y, y_shape = planning.layout(op.output), planning.value(op.output).shape
    places: dict[str, Any] = {}
    strides: dict[str, tuple[int, ...]] = {}
    for key, name in (("x", op.a), ("b", op.b)):
        shape = planning.value(name).shape
        if planning.is_constant(name):
            planning.constants[name] = planning.array(name)
            planning.layouts.setdefault(name, Layout(1, 1, 1, planning.array(name).size, 1, NO_HALO, 2))
            inside, own = 0, row_major_strides(shape)
        else:
            inside, own = planning.layout(name).inside, planning.layout(name).strides
        missing = len(y_shape) - len(shape)
        aligned = (1,) * missing + shape
        padded = (0,) * missing + own
        axes = zip(aligned, y_shape, padded, strict=True)
        strides[key] = tuple(0 if size == 1 and out != 1 else step for size, out, step in axes)
        places[key] = (name, inside)
    planning.step(
        KernelKey("binary"),
        op.name,
        y=(op.output, y.inside),
        option=("add", "sub", "mul", "div").index(op.kind),
        low=op.epilogue.low,
        high=op.epilogue.high,
        **halo_fields(y),
        **loop_fields(y_shape, False, x=strides["x"], b=strides["b"], y=y.strides),
        **places,
    )


def lower_mean(planning: Planning, op: Mean) -> None:
    """Global average pooling by its own kernel; any other axes by clearing and accumulating."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    x_shape = planning.value(op.x).shape
    if x.rank == 4 and op.axes == (2, 3):
        fields = window_fields(x, y, (1, 1), (1, 1), (1, 1), (0, 0))
        planning.step(KernelKey("global_average"), op.name, x=(op.x, x.inside), y=(op.output, y.inside), **fields)
        return
    batch_free = _require_batch_in_place(planning, op, 0 not in op.axes)
    result = _float_sums(planning, op.output)
    y = planning.layout(result)
    y_strides = _kept_strides(y, op.axes, op.keepdims, x.rank)
    count = int(np.prod([x_shape[axis] for axis in op.axes]))
    _fill_step(planning, op.name, result, 0.0)
    planning.step(
        KernelKey("mean"),
        op.name,
        x=(op.x, x.inside),
        y=(result, y.inside),
        **loop_fields(x_shape, batch_free, x=x.strides, y=y_strides),
        low=1.0 / count,
    )
    _copy_sums(planning, op, result)


def _kept_strides(y: Layout, axes: tuple[int, ...], keepdims: bool, rank: int) -> tuple[int, ...]:
    """Strides of a reduction's output along the input's axes: 0 along those that are reduced."""
    if keepdims:
        return tuple(0 if axis in axes else step for axis, step in enumerate(y.strides))
    kept = iter(y.strides)
    return tuple(0 if axis in axes else next(kept) for axis in range(rank))


def lower_softmax(planning: Planning, op: Softmax) -> None:
    """Softmax along any axis but the batch."""
    result = _float_sums(planning, op.output)
    y = planning.layout(result)
    _axis_step(planning, op, "softmax", op.axis, result, y.strides, y.strides[op.axis])
    _copy_sums(planning, op, result)


def lower_argmax(planning: Planning, op: ArgMax) -> None:
    """ArgMax along any axis but the batch."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    if planning.value(op.x).shape[op.axis] >= _MAX_INDEX:
        raise unsupported(
            op, f"axis {op.axis} has {planning.value(op.x).shape[op.axis]} elements; {_MAX_INDEX} is the limit"
        )
    y_strides = _kept_strides(y, (op.axis,), op.keepdims, x.rank)
    _axis_step(planning, op, "argmax", op.axis, op.output, y_strides, 0, option=int(op.select_last))


def _axis_step(
    planning: Planning, op: Softmax | ArgMax, kernel: KernelName, axis: int, result: str, y_strides: tuple[int, ...],
    y_axis: int, option: int = 0,
) -> None:  # fmt: skip
    x, y = planning.layout(op.x), planning.layout(result)
    shape = planning.value(op.x).shape
    batch_free = _require_batch_in_place(planning, op, axis != 0)
    if y.halo != NO_HALO:
        _fill_step(planning, op.name, result, 0.0)
    loops = tuple(1 if a == axis else size for a, size in enumerate(shape))
    planning.step(
        KernelKey(kernel),
        op.name,
        x=(op.x, x.inside),
        y=(result, y.inside),
        length=shape[axis],
        x_axis=x.strides[axis],
        y_axis=y_axis,
        option=option,
        **loop_fields(loops, batch_free, x=x.strides, y=y_strides),
    )
