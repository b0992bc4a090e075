"""Convolutions and dense layers: the steps that their choices stand for, and weights packed for them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...graph.ir import ABSENT, Conv, Dense, InnerRounding, Op, Requantize
from ...kernels.step import CLIP, INNER, NUMBERS, PATCH_POINTS, KernelKey, unpacked_channels
from ...simd.element import FLOAT32, INT8_OFFSET, UINT8
from ...simd.isa import EXTENSIONS, NEON_DOT, Isa, Tile
from .. import winograd
from ..choices import DepthwiseChoice, GemmChoice, WinogradChoice
from ..layout import Layout
from ..pack import F32Array, pack_panels, whole_words, words_of
from ..planning import Planning, unsupported
from ..problem import row_is_one_tap
from .fields import halo_fields, strides_x, strides_y, window_fields

_WITHIN_INT32: Final = 2.0**30
"""float32 below this, with rounding errors to spare, are rounded to int32 and not to its limits."""


def is_depthwise(planning: Planning, op: Conv) -> bool:
    """One filter per channel: what the depthwise kernel does."""
    channels = planning.value(op.x).shape[1]
    return op.group == channels and planning.value(op.weight).shape[0] == channels and channels > 1


def is_depthwise_3x3(planning: Planning, op: Op) -> bool:
    """Whether depthwise_3x3 computes it, for which there are blocks to choose: other depthwise kernels have none."""
    if not isinstance(op, Conv) or isinstance(op.epilogue, Requantize):
        return False
    return is_depthwise(planning, op) and _window_is_3x3(planning, op)


def _window_is_3x3(planning: Planning, op: Conv) -> bool:
    """What the depthwise kernels with tiles take: no dilation, and columns one or two apart."""
    return planning.value(op.weight).shape[2:] == (3, 3) and op.dilations == (1, 1) and op.strides[1] in (1, 2)


def channels_reached(planning: Planning, op: Op) -> int:
    """How many channels of a pixel implicit GEMM touches: whole vectors, also behind the last group's first channel."""
    if not isinstance(op, Conv) or is_depthwise(planning, op):
        return 0
    per_group, lanes = planning.value(op.weight).shape[0] // op.group, planning.machine.isa.lanes
    return (op.group - 1) * per_group + -(-per_group // lanes) * lanes


def lower_conv(planning: Planning, op: Conv) -> None:
    """Depthwise, Winograd, or implicit GEMM for every group."""
    if is_depthwise(planning, op):
        (_lower_depthwise_u8 if isinstance(op.epilogue, Requantize) else _lower_depthwise)(planning, op)
        return
    x, y = planning.layout(op.x), planning.layout(op.output)
    weight = planning.array(op.weight)
    out_c, depth_c, kernel_h, kernel_w = weight.shape
    choice = planning.choice(op)
    if isinstance(choice, WinogradChoice):
        _lower_winograd(planning, op, choice)
        return
    assert isinstance(choice, GemmChoice), "check.py lets no other choice through for a convolution"
    rows = [r * op.dilations[0] * x.row for r in range(kernel_h)]
    if row_is_one_tap(op, x):
        taps = np.array(rows)
        by_tap = weight.transpose(2, 3, 1, 0).reshape(kernel_h, kernel_w * depth_c, out_c)
    else:
        taps = np.array([row + s * op.dilations[1] * x.pixel for row in rows for s in range(kernel_w)])
        by_tap = weight.reshape(out_c, depth_c, kernel_h * kernel_w).transpose(2, 1, 0)  # a view: packing copies once
    window = x.inside - op.pads[0] * x.row - op.pads[1] * x.pixel
    per_group = out_c // op.group
    starts = _starts(planning, op, out_c)
    scale = planning.array(op.epilogue.scale) if isinstance(op.epilogue, Requantize) else None
    for group in range(op.group):
        channels = slice(group * per_group, (group + 1) * per_group)
        _gemm_steps(
            planning,
            op,
            choice,
            x=(op.x, window + group * depth_c),
            y=(op.output, y.inside + group * per_group),
            taps=taps,
            by_tap=by_tap[:, :, channels],
            starts={name: start[channels] for name, start in starts.items()},
            scale=None if scale is None else scale[channels],
            strides=op.strides,
            clear_halo=group == 0,
        )


def lower_dense(planning: Planning, op: Dense) -> None:
    """A convolution of one tap on every pixel; the last axis lies innermost only in values of two or three axes."""
    if planning.layout(op.x).rank == 4:
        raise unsupported(op, f"multiplies a value of 4 axes {planning.value(op.x).shape}; 2 or 3 can be run")
    weight = planning.array(op.weight)
    scale = planning.array(op.epilogue.scale) if isinstance(op.epilogue, Requantize) else None
    choice = planning.choice(op)
    assert isinstance(choice, GemmChoice), "check.py lets no other choice through for a dense layer"
    _gemm_steps(
        planning,
        op,
        choice,
        x=(op.x, planning.layout(op.x).inside),
        y=(op.output, planning.layout(op.output).inside),
        taps=np.zeros(1, np.int64),
        by_tap=weight[None],
        starts=_starts(planning, op, weight.shape[1]),
        scale=scale,
        strides=(1, 1),
        clear_halo=True,
    )


def _starts(planning: Planning, op: Conv | Dense, channels: int) -> dict[str, npt.NDArray[Any]]:
    """What sums start from, by the field that names it: the bias; of integers, minus the zero point times the weights,
    padding included.

    An ISA that may have SDOT gets both starts, whether this CPU has it or not: packed weights are the same for all.
    """
    if not isinstance(op.epilogue, Requantize):
        return {"bias": planning.array(op.bias) if op.bias != ABSENT else np.zeros(channels, np.float32)}
    weight = planning.graph.constants[op.weight].astype(np.int64)
    of_channel = weight.sum(axis=tuple(range(1, weight.ndim)) if isinstance(op, Conv) else 0)
    zeros = {"bias": planning.stored_zero(op.x, op.x_zero_point)}
    if NEON_DOT in EXTENSIONS.get(planning.machine.isa.name, ()):
        zeros["signed_bias"] = zeros["bias"] - INT8_OFFSET
    bias = planning.graph.constants[op.bias]
    # Modulo 2**32, as the sums are: the pass has seen to it that they end within int32.
    return {name: np.asarray((bias - zero * of_channel).astype(np.int32)) for name, zero in zeros.items()}


def _requantize_fields(planning: Planning, op: Conv | Dense) -> dict[str, Any]:
    """What kernels/requantize.py reads, but for the scales."""
    epilogue = op.epilogue
    assert isinstance(epilogue, Requantize)
    inner, b_zero = epilogue.inner or InnerRounding(0.0, 0.0, 1.0), 0
    if epilogue.residual != ABSENT:
        b_zero = planning.stored_zero(epilogue.residual, epilogue.residual_zero_point)
    zero = planning.stored_zero(op.output, epilogue.zero_point)
    numbers = {
        "low": epilogue.low,
        "high": epilogue.high,
        "zero": zero,
        "inner_low": inner.low,
        "inner_high": inner.high,
        "inner_scale": inner.scale,
        "b_zero": b_zero,
        "b_scale": epilogue.residual_scale,
    }
    return {
        "numbers": planning.buffers.add_weights(np.array([numbers[name] for name in NUMBERS], np.float32)),
        "stages": (INNER if epilogue.inner is not None else 0) + (CLIP if _needs_clip(planning, op) else 0),
    }


def _needs_clip(planning: Planning, op: Conv | Dense) -> bool:
    """Whether a result can be beyond the model's bounds and yet be stored as something else than those."""
    epilogue = op.epilogue
    assert isinstance(epilogue, Requantize)
    if epilogue.dtype == "float32":
        return epilogue.low > -np.inf or epilogue.high < np.inf
    zero = planning.stored_zero(op.output, epilogue.zero_point)
    if (epilogue.low + zero, epilogue.high + zero) != (0, 255):
        return True
    if epilogue.inner is not None:
        most = max(-epilogue.inner.low, epilogue.inner.high) * epilogue.inner.scale
    else:
        weight = np.abs(planning.graph.constants[op.weight].astype(np.int64))
        sums = weight.sum(axis=tuple(range(1, weight.ndim)) if isinstance(op, Conv) else 0) * 255
        sums += np.abs(planning.graph.constants[op.bias].astype(np.int64))
        most = float((sums * planning.array(epilogue.scale).astype(np.float64)).max())
    return most + 255 * epilogue.residual_scale >= _WITHIN_INT32


def _gemm_steps(
    planning: Planning,
    op: Conv | Dense,
    choice: GemmChoice,
    *,
    x: tuple[str, int],
    y: tuple[str, int],
    taps: npt.NDArray[np.int64],
    by_tap: F32Array,
    starts: dict[str, npt.NDArray[Any]],
    scale: F32Array | None,
    strides: tuple[int, int],
    clear_halo: bool,
) -> None:
    """One step per run of panels of equal width. by_tap: [taps, depth, output channels]. scale: of a Requantize."""
    isa, buffers, epilogue = planning.machine.isa, planning.buffers, op.epilogue
    x_layout, y_layout = planning.layout(x[0]), planning.layout(y[0])
    tap_count, defined_depth, channels = by_tap.shape
    depth = whole_words(defined_depth, x_layout.element)
    pixels = y_layout.h * y_layout.w
    group_images = choice.group_images
    repeat, picture = repeated_rows(isa), (y_layout.h, y_layout.w)
    x_rows = row_table(x_layout, picture, group_images, strides, repeat)
    y_rows = row_table(y_layout, picture, group_images, (1, 1), repeat)
    has_b = epilogue.residual != ABSENT
    b_layout = planning.layout(epilogue.residual) if has_b else y_layout
    b_rows = row_table(b_layout, picture, group_images, (1, 1), repeat)
    common = {
        "images": y_layout.images,
        **strides_x(x_layout),
        **strides_y(y_layout),
        "b_image": b_layout.image,
        "has_b": has_b,
        "out_h": y_layout.h,
        "out_w": y_layout.w,
        "group_images": group_images,
        "x_rows": buffers.add_table(x_rows),
        "y_rows": buffers.add_table(y_rows),
        "b_rows": buffers.add_table(b_rows),
        "taps": buffers.add_table(taps),
        "tap_count": tap_count,
        "depth": depth,
        "low": epilogue.low,
        "high": epilogue.high,
        **({} if scale is None else _requantize_fields(planning, op)),
    }
    first = 0
    for run in choice.runs:
        tile, panels, blocks = run.tile, run.panels, run.blocks
        width = tile.nr * isa.lanes
        packed = pack_panels(by_tap, first, panels, width, x_layout.element)
        covered = min(panels * width, channels - first)
        padding = (0, panels * width - covered)
        places: dict[str, Any] = {"x": x, "y": (y[0], y[1] + first)}
        if has_b:
            places["b"] = (epilogue.residual, b_layout.inside + y[1] - y_layout.inside + first)
        own_starts = {name: np.pad(start[first : first + covered], padding) for name, start in starts.items()}
        fields: dict[str, int] = {}
        if scale is not None:
            fields["scale"] = buffers.add_weights(np.pad(scale[first : first + covered], padding))
        if y_layout.element != FLOAT32 and (blocks.kc_taps < tap_count or blocks.kc_depth < depth):
            rows = min(blocks.mc, -(-group_images * pixels // tile.mr) * tile.mr)
            fields["scratch_size"] = planning.need_scratch(rows * width)
        planning.step(
            KernelKey("conv_gemm", tile),
            op.name,
            macs=y_layout.images * pixels * tap_count * defined_depth * covered,
            executed_macs=y_layout.images * pixels * tap_count * depth * panels * width,
            written_bytes=y_layout.element.bytes * y_layout.images * pixels * covered,
            weight_bytes=packed.nbytes,
            weight=buffers.add_weights(packed),
            **{name: buffers.add_weights(start) for name, start in own_starts.items()},
            panels=panels,
            panel=tap_count * words_of(depth, x_layout.element) * width,
            out_c=panels * width,
            mc=blocks.mc,
            nc_panels=blocks.nc_panels,
            kc_taps=blocks.kc_taps,
            kc_depth=blocks.kc_depth,
            panels_outside=blocks.panels_outside,
            **(halo_fields(y_layout) if clear_halo and first == 0 else {}),
            **fields,
            **common,
            **places,
        )
        first += panels * width


def repeated_rows(isa: Isa) -> int:
    """How often a table repeats its last row, so that the last tile may read past the end."""
    return max(tile.mr for tile in isa.tiles)


def row_table(
    layout: Layout, picture: tuple[int, int], group_images: int, strides: tuple[int, int], repeat: int
) -> npt.NDArray[np.int64]:
    """Offset in `layout` of each output pixel (picture: OH, OW) over a group of images; the last one `repeat` times."""
    image, oh, ow = np.ogrid[:group_images, : picture[0], : picture[1]]
    rows = image * layout.image + oh * strides[0] * layout.row + ow * strides[1] * layout.pixel
    return np.concatenate([rows.ravel(), np.repeat(rows.ravel()[-1:], repeat)])


def _lower_winograd(planning: Planning, op: Conv, choice: WinogradChoice) -> None:
    isa, buffers = planning.machine.isa, planning.buffers
    x, y = planning.layout(op.x), planning.layout(op.output)
    weight = planning.array(op.weight)
    out_c, depth = weight.shape[:2]
    vectors = -(-out_c // isa.lanes)
    tile, patches = choice.tile, choice.mc
    width = tile.nr * isa.lanes
    panels = -(-vectors // tile.nr)
    packed = pack_panels(winograd.transform_weights(weight, x.element), 0, panels, width, x.element)
    bias = np.zeros(panels * width, np.float32)
    if op.bias != ABSENT:
        bias[:out_c] = planning.array(op.bias)
    rounded = -(-patches // tile.mr) * tile.mr
    rows = np.arange(rounded)
    places: dict[str, Any] = {
        "x": (op.x, x.inside - op.pads[0] * x.row - op.pads[1] * x.pixel),
        "y": (op.output, y.inside),
    }
    if op.epilogue.residual != ABSENT:
        places |= _residual_fields(planning, op.epilogue.residual)
    planning.step(
        KernelKey("conv_winograd", tile),
        op.name,
        macs=y.images * y.h * y.w * 9 * depth * out_c,
        executed_macs=y.images * winograd.patches_of(y.h, y.w) * PATCH_POINTS * depth * panels * width,
        weight_bytes=packed.nbytes,
        images=y.images,
        in_c=x.channels_stored,
        out_h=y.h,
        out_w=y.w,
        out_c=panels * width,
        depth=depth,
        mc=patches,
        panels=panels,
        nc_panels=choice.nc_panels,
        x_rows=buffers.add_table(rows * x.channels_stored),
        y_rows=buffers.add_table(rows * width),
        taps=buffers.add_table(np.zeros(1, np.int64)),
        weight=buffers.add_weights(packed),
        bias=buffers.add_weights(bias),
        zeros=buffers.add_weights(np.zeros(width, np.float32)),
        scratch_size=planning.need_scratch(PATCH_POINTS * rounded * (words_of(x.channels_stored, x.element) + width)),
        low=op.epilogue.low,
        high=op.epilogue.high,
        **halo_fields(y),
        **strides_x(x),
        **strides_y(y),
        **places,
    )


def _residual_fields(planning: Planning, name: str) -> dict[str, Any]:
    b = planning.layout(name)
    return {"b": (name, b.inside), "b_image": b.image, "b_row": b.row, "b_pixel": b.pixel, "has_b": 1}


def _lower_depthwise(planning: Planning, op: Conv) -> None:
    x, y = planning.layout(op.x), planning.layout(op.output)
    weight = planning.array(op.weight)
    channels, _, kernel_h, kernel_w = weight.shape
    lanes, vectors = planning.machine.isa.lanes, y.channels_stored // planning.machine.isa.lanes
    padded = np.zeros((vectors * lanes, kernel_h, kernel_w), np.float32)
    padded[:channels] = weight[:, 0]
    packed = np.ascontiguousarray(padded.reshape(vectors, lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1))
    bias = np.zeros(vectors * lanes, np.float32)
    if op.bias != ABSENT:
        bias[:channels] = planning.array(op.bias)
    places: dict[str, Any] = {"x": (op.x, x.inside), "y": (op.output, y.inside)}
    if op.epilogue.residual != ABSENT:
        places |= _residual_fields(planning, op.epilogue.residual)
    fields = window_fields(x, y, (kernel_h, kernel_w), op.strides, op.dilations, op.pads[:2])
    key = KernelKey("depthwise")
    if is_depthwise_3x3(planning, op):
        choice = planning.choice(op)
        assert isinstance(choice, DepthwiseChoice), "check.py lets no other choice through for a 3x3 depthwise layer"
        key = KernelKey(choice.kernel, choice.tile)
        fields |= {"nc_panels": choice.nc_panels, "rows": choice.rows}
    planning.step(
        key,
        op.name,
        macs=y.images * y.h * y.w * channels * kernel_h * kernel_w,
        weight_bytes=packed.nbytes,
        weight=planning.buffers.add_weights(packed),
        bias=planning.buffers.add_weights(bias),
        low=op.epilogue.low,
        high=op.epilogue.high,
        **fields,
        **places,
    )


_BYTES_3X3_PIXELS: Final = (4, 2, 1)
_BYTES_3X3_VECTORS: Final = (4, 2, 1)
"""MR and NR of depthwise_3x3_u8, largest first; a block of channels fills 128 bits at least."""


def _tile_3x3_u8(planning: Planning, op: Conv) -> Tile | None:
    """The largest tile of depthwise_3x3_u8 that fits the layer; None if that kernel cannot run it."""
    y, lanes = planning.layout(op.output), planning.machine.isa.lanes
    vectors = [nr for nr in _BYTES_3X3_VECTORS if 16 <= nr * lanes <= y.channels_stored]
    if not _window_is_3x3(planning, op) or not vectors or op.epilogue.residual != ABSENT or y.element != UINT8:
        return None
    return Tile(next(mr for mr in _BYTES_3X3_PIXELS if mr <= y.w), vectors[0])


def _lower_depthwise_3x3_u8(planning: Planning, op: Conv, tile: Tile) -> None:
    x, y = planning.layout(op.x), planning.layout(op.output)
    weight = planning.graph.constants[op.weight][:, 0]
    assert isinstance(op.epilogue, Requantize)
    channels, stored, width = len(weight), y.channels_stored, tile.nr * planning.machine.isa.lanes
    blocks = [min(first, stored - width) + np.array(unpacked_channels(width)) for first in range(0, stored, width)]
    order, padding = np.concatenate(blocks), (0, stored - channels)
    by_tap = np.zeros((stored, 3, 4), np.int8)  # channel, column, row
    by_tap[:channels, :, :3] = weight.transpose(0, 2, 1)
    packed = by_tap[order].reshape(len(blocks), width, 3, 4).transpose(0, 2, 1, 3)
    starts = {name: np.pad(start, padding)[order] for name, start in _starts(planning, op, channels).items()}
    planning.step(
        KernelKey("depthwise_3x3_u8", tile),
        op.name,
        macs=y.images * y.h * y.w * channels * 9,
        weight_bytes=packed.nbytes,
        weight=planning.buffers.add_weights(packed),
        **{name: planning.buffers.add_weights(start) for name, start in starts.items()},
        scale=planning.buffers.add_weights(np.pad(planning.array(op.epilogue.scale), padding)[order]),
        **_requantize_fields(planning, op),
        **window_fields(x, y, (3, 3), op.strides, op.dilations, op.pads[:2]),
        x=(op.x, x.inside),
        y=(op.output, y.inside),
    )


def _lower_depthwise_u8(planning: Planning, op: Conv) -> None:
    tile = _tile_3x3_u8(planning, op)
    if tile is not None:
        _lower_depthwise_3x3_u8(planning, op, tile)
        return
    x, y, isa = planning.layout(op.x), planning.layout(op.output), planning.machine.isa
    weight = planning.graph.constants[op.weight]
    assert isinstance(op.epilogue, Requantize)
    channels, _, kernel_h, kernel_w = weight.shape
    vectors = y.channels_stored // isa.lanes
    padding = (0, vectors * isa.lanes - channels)
    padded = np.pad(weight[:, 0], (padding, (0, 0), (0, 0)))
    packed = np.ascontiguousarray(padded.reshape(vectors, isa.lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1))
    places: dict[str, Any] = {"x": (op.x, x.inside), "y": (op.output, y.inside)}
    if op.epilogue.residual != ABSENT:
        places |= _residual_fields(planning, op.epilogue.residual)
    planning.step(
        KernelKey("depthwise_u8"),
        op.name,
        macs=y.images * y.h * y.w * channels * kernel_h * kernel_w,
        weight_bytes=packed.nbytes,
        weight=planning.buffers.add_weights(packed),
        bias=planning.buffers.add_weights(np.pad(_starts(planning, op, channels)["bias"], padding)),
        scale=planning.buffers.add_weights(np.pad(planning.array(op.epilogue.scale), padding)),
        **_requantize_fields(planning, op),
        **window_fields(x, y, (kernel_h, kernel_w), op.strides, op.dilations, op.pads[:2]),
        **places,
    )
