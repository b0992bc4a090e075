"""Ops that go over pictures row by row: pooling, normalisation, clipping."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...graph.ir import BatchNorm, Clip, Pool
from ...kernels.step import KernelKey, KernelName
from ...simd.element import UINT8
from ..planning import Planning, unsupported
from .fields import window_fields


def lower_pool(planning: Planning, op: Pool) -> None:
    """Max or average pooling; an average's divisors are counted here, per output row and column."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    fields = window_fields(x, y, op.kernel, op.strides, op.dilations, op.pads[:2])
    if op.kind == "average":
        before, after = op.counted_pads[:2], op.counted_pads[2:]
        counts = []
        for axis, (size, out) in enumerate(((x.h, y.h), (x.w, y.w))):
            low = -before[axis] if op.count_include_pad else 0
            high = size + (after[axis] if op.count_include_pad else 0)
            window = np.arange(op.kernel[axis]) * op.dilations[axis]
            starts = np.arange(out) * op.strides[axis] - op.pads[axis]
            places = starts[:, None] + window[None, :]
            counts.append(((places >= low) & (places < high)).sum(axis=1).astype(np.int64))
        fields["y_rows"] = planning.buffers.add_table(counts[0])
        fields["x_rows"] = planning.buffers.add_table(counts[1])
    largest: KernelName = "max_pool_u8" if x.element == UINT8 else "max_pool"
    planning.step(
        KernelKey(largest if op.kind == "max" else "average_pool"),
        op.name,
        x=(op.x, x.inside),
        y=(op.output, y.inside),
        **fields,
    )


def _affine_step(planning: Planning, node: str, x_name: str, y_name: str, **fields: Any) -> None:
    x, y = planning.layout(x_name), planning.layout(y_name)
    planning.step(
        KernelKey("affine"),
        node,
        x=(x_name, x.inside),
        y=(y_name, y.inside),
        **window_fields(x, y, (1, 1), (1, 1), (1, 1), (0, 0)),
        **fields,
    )


def lower_batchnorm(planning: Planning, op: BatchNorm) -> None:
    """A per-channel affine map; the channels of axis 1 lie innermost only in pictures and in [N, C]."""
    y = planning.layout(op.output)
    if y.rank not in (2, 4):
        raise unsupported(op, f"normalises a value of {y.rank} axes; 2 or 4 can be run")
    scale, shift = (np.zeros(y.channels_stored, np.float32) for _ in range(2))
    scale[: y.c], shift[: y.c] = planning.array(op.scale), planning.array(op.shift)
    weight, bias = planning.buffers.add_weights(scale), planning.buffers.add_weights(shift)
    _affine_step(planning, op.name, op.x, op.output, weight=weight, bias=bias, option=1)


def lower_clip(planning: Planning, op: Clip) -> None:
    """Clip, ReLU."""
    _affine_step(planning, op.name, op.x, op.output, low=op.low, high=op.high)
