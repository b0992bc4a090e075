"""Ops -> steps: one function per op, and the table of them. Chooses kernels, tiles and blocks; packs weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..graph.ir import (
    ABSENT,
    BATCH,
    ArgMax,
    BatchNorm,
    Binary,
    Clip,
    Conv,
    Dense,
    Epilogue,
    Mean,
    Op,
    Pad,
    Pool,
    Reshape,
    Shape,
    Softmax,
    Transpose,
)
from ..kernels.step import KernelKey, KernelName
from ..pixels import PixelInput
from . import winograd
from .blocking import choose_blocks, choose_tiles
from .layout import NO_HALO, Layout
from .pack import F32Array, pack_panels
from .planning import Draft, Planning, unsupported

_GROUP_PIXELS: Final = 512
"""Small pictures are tiled together, up to about this many pixels, so that the last tile's waste is shared."""

_ROW_UNIT_VECTORS: Final = 1 << 13
"""Vector operations that a unit of a row-wise kernel should hold: some microseconds."""

_MAX_INDEX: Final = 1 << 24
"""Indices are kept as float32, which is exact below this."""


def is_depthwise(planning: Planning, op: Conv) -> bool:
    """One filter per channel: what the depthwise kernel does."""
    channels = planning.value(op.x).shape[1]
    return op.group == channels and planning.value(op.weight).shape[0] == channels and channels > 1


def channels_reached(planning: Planning, op: Op) -> int:
    """How many channels of a pixel implicit GEMM touches: whole vectors, also behind the last group's first channel."""
    if not isinstance(op, Conv):
        return 0
    per_group, lanes = planning.value(op.weight).shape[0] // op.group, planning.machine.isa.lanes
    return (op.group - 1) * per_group + -(-per_group // lanes) * lanes


def _strides_y(layout: Layout) -> dict[str, int]:
    return {"y_image": layout.image, "y_row": layout.row, "y_pixel": layout.pixel, "y_channel": 1}


def _strides_x(layout: Layout) -> dict[str, int]:
    return {"x_image": layout.image, "x_row": layout.row, "x_pixel": layout.pixel, "x_channel": 1}


def _halo(layout: Layout) -> dict[str, int]:
    top, left, bottom, right = layout.halo
    return {"halo_top": top, "halo_left": left, "halo_bottom": bottom, "halo_right": right}


# ---------------------------------------------------------------------------------------------------------------
# convolution and dense


def lower_conv(planning: Planning, op: Conv) -> None:
    """Depthwise, or implicit GEMM for every group."""
    if is_depthwise(planning, op) and op.epilogue.residual == ABSENT:
        _lower_depthwise(planning, op)
        return
    x, y = planning.layout(op.x), planning.layout(op.output)
    weight = planning.array(op.weight)
    out_c, depth_c, kernel_h, kernel_w = weight.shape
    channels_fit = x.channels_stored % planning.machine.isa.lanes == 0
    if (
        channels_fit
        and winograd.fits(op, weight.shape, y)
        and winograd.pays(planning.machine, depth_c, out_c, y.h * y.w)
    ):
        _lower_winograd(planning, op)
        return
    contiguous = op.group == 1 and op.dilations[1] == 1 and x.channels_stored == x.c
    rows = [r * op.dilations[0] * x.row for r in range(kernel_h)]
    if contiguous:
        taps = np.array(rows)
        by_tap = weight.transpose(2, 3, 1, 0).reshape(kernel_h, kernel_w * depth_c, out_c)
    else:
        taps = np.array([row + s * op.dilations[1] * x.pixel for row in rows for s in range(kernel_w)])
        by_tap = weight.transpose(2, 3, 1, 0).reshape(kernel_h * kernel_w, depth_c, out_c)
    window = x.inside - op.pads[0] * x.row - op.pads[1] * x.pixel
    per_group = out_c // op.group
    bias = planning.array(op.bias) if op.bias != ABSENT else np.zeros(out_c, np.float32)
    for group in range(op.group):
        channels = slice(group * per_group, (group + 1) * per_group)
        _gemm_steps(
            planning,
            op.name,
            x=(op.x, window + group * depth_c),
            y=(op.output, y.inside + group * per_group),
            taps=taps,
            by_tap=by_tap[:, :, channels],
            bias=bias[channels],
            strides=op.strides,
            epilogue=op.epilogue,
            clear_halo=group == 0,
        )


def _lower_winograd(planning: Planning, op: Conv) -> None:
    isa, buffers = planning.machine.isa, planning.buffers
    x, y = planning.layout(op.x), planning.layout(op.output)
    weight = planning.array(op.weight)
    out_c, depth = weight.shape[:2]
    vectors = -(-out_c // isa.lanes)
    patches = winograd.choose_patches(planning.machine, x.channels_stored, y.channels_stored, y.h * y.w // 16)
    _, tile = winograd.choose_tile(isa, patches, vectors)
    width = tile.nr * isa.lanes
    panels = -(-vectors // tile.nr)
    packed = pack_panels(winograd.transform_weights(weight), 0, panels, width).transpose(1, 0, 2, 3)
    bias = np.zeros(panels * width, np.float32)
    if op.bias != ABSENT:
        bias[:out_c] = planning.array(op.bias)
    rounded = -(-patches // tile.mr) * tile.mr
    rows = np.arange(rounded)
    places: dict[str, Any] = {
        "x": (op.x, x.inside - op.pads[0] * x.row - op.pads[1] * x.pixel),
        "y": (op.output, y.inside),
    }
    strides = {**_strides_x(x), **_strides_y(y)}
    if op.epilogue.residual != ABSENT:
        b = planning.layout(op.epilogue.residual)
        places["b"] = (op.epilogue.residual, b.inside)
        strides |= {"b_image": b.image, "b_row": b.row, "b_pixel": b.pixel, "has_b": 1}
    planning.step(
        KernelKey("conv_winograd", tile),
        op.name,
        macs=y.images * y.h * y.w * 9 * depth * out_c,
        weight_bytes=packed.nbytes,
        images=y.images,
        in_c=x.channels_stored,
        out_h=y.h,
        out_w=y.w,
        out_c=panels * width,
        depth=depth,
        mc=patches,
        panels=panels,
        panel=depth * width,
        x_rows=buffers.add_table(rows * x.channels_stored),
        y_rows=buffers.add_table(rows * panels * width),
        taps=buffers.add_table(np.zeros(1, np.int64)),
        weight=buffers.add_weights(packed),
        bias=buffers.add_weights(bias),
        zeros=buffers.add_weights(np.zeros(width, np.float32)),
        scratch_size=planning.need_scratch(36 * rounded * (x.channels_stored + panels * width)),
        low=op.epilogue.low,
        high=op.epilogue.high,
        **_halo(y),
        **strides,
        **places,
    )


def lower_dense(planning: Planning, op: Dense) -> None:
    """A convolution of one tap on every pixel; the last axis lies innermost only in values of two or three axes."""
    if planning.layout(op.x).rank == 4:
        raise unsupported(op, f"multiplies a value of 4 axes {planning.value(op.x).shape}; 2 or 3 can be run")
    weight = planning.array(op.weight)
    bias = planning.array(op.bias) if op.bias != ABSENT else np.zeros(weight.shape[1], np.float32)
    _gemm_steps(
        planning,
        op.name,
        x=(op.x, planning.layout(op.x).inside),
        y=(op.output, planning.layout(op.output).inside),
        taps=np.zeros(1, np.int64),
        by_tap=weight[None],
        bias=bias,
        strides=(1, 1),
        epilogue=op.epilogue,
        clear_halo=True,
    )


def _gemm_steps(
    planning: Planning,
    node: str,
    *,
    x: tuple[str, int],
    y: tuple[str, int],
    taps: npt.NDArray[np.int64],
    by_tap: F32Array,
    bias: F32Array,
    strides: tuple[int, int],
    epilogue: Epilogue,
    clear_halo: bool,
) -> None:
    """One step per run of panels of equal width. by_tap: [taps, depth, output channels]."""
    isa, buffers = planning.machine.isa, planning.buffers
    x_layout, y_layout = planning.layout(x[0]), planning.layout(y[0])
    tap_count, depth, channels = by_tap.shape
    pixels = y_layout.h * y_layout.w
    images = planning.images(y_layout)
    group_images = max(d for d in range(1, images + 1) if images % d == 0 and (d - 1) * pixels < _GROUP_PIXELS)
    repeat = max(tile.mr for tile in isa.tiles)
    x_rows = _row_table(x_layout, y_layout, group_images, strides, repeat)
    y_rows = _row_table(y_layout, y_layout, group_images, (1, 1), repeat)
    has_b = epilogue.residual != ABSENT
    b_layout = planning.layout(epilogue.residual) if has_b else y_layout
    b_rows = _row_table(b_layout, y_layout, group_images, (1, 1), repeat)
    common = {
        "images": y_layout.images,
        **_strides_x(x_layout),
        **_strides_y(y_layout),
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
    }
    vectors = -(-channels // isa.lanes)
    first = 0
    for tile_index, panels in choose_tiles(isa, group_images * pixels, vectors, tap_count * depth):
        tile = isa.tiles[tile_index]
        width = tile.nr * isa.lanes
        blocks = choose_blocks(planning.machine, tile, group_images * pixels, panels, tap_count, depth)
        packed = pack_panels(by_tap, first, panels, width)
        padded_bias = np.zeros(panels * width, np.float32)
        covered = min(panels * width, channels - first)
        padded_bias[:covered] = bias[first : first + covered]
        places: dict[str, Any] = {"x": x, "y": (y[0], y[1] + first)}
        if has_b:
            places["b"] = (epilogue.residual, b_layout.inside + y[1] - y_layout.inside + first)
        planning.step(
            KernelKey("conv_gemm", tile),
            node,
            macs=y_layout.images * pixels * tap_count * depth * covered,
            weight_bytes=packed.nbytes,
            weight=buffers.add_weights(packed),
            bias=buffers.add_weights(padded_bias),
            panels=panels,
            panel=tap_count * depth * width,
            out_c=panels * width,
            mc=blocks.mc,
            nc_panels=blocks.nc_panels,
            kc_taps=blocks.kc_taps,
            kc_depth=blocks.kc_depth,
            panels_outside=blocks.panels_outside,
            **(_halo(y_layout) if clear_halo and first == 0 else {}),
            **common,
            **places,
        )
        first += panels * width


def _row_table(
    layout: Layout, output: Layout, group_images: int, strides: tuple[int, int], repeat: int
) -> npt.NDArray[np.int64]:
    """Offset of each output pixel's place in `layout`, over a group of images; the last one repeated for tiles."""
    image, oh, ow = np.ogrid[:group_images, : output.h, : output.w]
    rows = image * layout.image + oh * strides[0] * layout.row + ow * strides[1] * layout.pixel
    return np.concatenate([rows.ravel(), np.repeat(rows.ravel()[-1:], repeat)])


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
    planning.step(
        KernelKey("depthwise"),
        op.name,
        macs=y.images * y.h * y.w * channels * kernel_h * kernel_w,
        weight_bytes=packed.nbytes,
        x=(op.x, x.inside),
        y=(op.output, y.inside),
        weight=planning.buffers.add_weights(packed),
        bias=planning.buffers.add_weights(bias),
        low=op.epilogue.low,
        high=op.epilogue.high,
        **_window_fields(x, y, (kernel_h, kernel_w), op.strides, op.dilations, op.pads[:2]),
    )


def _window_fields(
    x: Layout,
    y: Layout,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, ...],
) -> dict[str, int]:
    vectors_per_row = y.w * y.channels_stored // 4 * kernel[0] * kernel[1]
    return {
        "images": y.images,
        **_strides_x(x),
        **_strides_y(y),
        **_halo(y),
        "in_h": x.h,
        "in_w": x.w,
        "out_h": y.h,
        "out_w": y.w,
        "out_c": min(x.channels_stored, y.channels_stored),
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": strides[0],
        "stride_w": strides[1],
        "dilation_h": dilations[0],
        "dilation_w": dilations[1],
        "pad_top": pads[0],
        "pad_left": pads[1],
        "rows": max(1, _ROW_UNIT_VECTORS * 4 // max(1, vectors_per_row)),
    }


# ---------------------------------------------------------------------------------------------------------------
# row by row


def lower_pool(planning: Planning, op: Pool) -> None:
    """Max or average pooling; an average's divisors are counted here, per output row and column."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    fields = _window_fields(x, y, op.kernel, op.strides, op.dilations, op.pads[:2])
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
    planning.step(
        KernelKey("max_pool" if op.kind == "max" else "average_pool"),
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
        **_window_fields(x, y, (1, 1), (1, 1), (1, 1), (0, 0)),
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


# ---------------------------------------------------------------------------------------------------------------
# over strides

_LOOPS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("image",),
    2: ("image", "channel"),
    3: ("image", "pixel", "channel"),
    4: ("image", "channel", "row", "pixel"),
}
"""Which loop runs over which logical axis of a value of so many axes."""

_SIZES: Final = {"outer": "outer", "row": "out_h", "pixel": "out_w", "channel": "out_c"}


def _dense_strides(shape: Shape) -> tuple[int, ...]:
    """Row-major strides; BATCH counts as any size, being in axis 0."""
    return tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))


def _loop_fields(shape: Shape, batch_free: bool, **strides: tuple[int, ...]) -> dict[str, int]:
    """Sizes and strides of loops over `shape`. batch_free: axis 0 is the `outer` loop, and there is one image."""
    fields: dict[str, int] = {"images": 1, "outer": 1, "out_h": 1, "out_w": 1, "out_c": 1, "rows": 1}
    for axis, loop in enumerate(_LOOPS[len(shape)]):
        loop = "outer" if loop == "image" and batch_free else loop
        if loop == "image":
            fields["images"] = 1 if shape[0] == BATCH else shape[0]
        else:
            fields[_SIZES[loop]] = shape[axis]
        for operand, steps in strides.items():
            fields[f"{operand}_{loop}"] = steps[axis]
    return fields


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
        _fill_step(planning, node, y[0], 0.0)
    planning.step(KernelKey("copy"), node, x=x, y=y, **_loop_fields(shape, batch_free, x=x_strides, y=y_strides))


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
    if one_pixel and (x.images, x.channels_stored, x.halo) == (y.images, y.channels_stored, y.halo):
        planning.alias[op.output] = op.x
        return
    x_shape, y_shape = planning.value(op.x).shape, planning.value(op.output).shape
    if planning.batched and x_shape[0] != y_shape[0]:
        raise unsupported(op, f"reshapes {x_shape} to {y_shape}, which moves axis 0, the batch")
    per_image = int(np.prod(x_shape[1:], dtype=np.int64))
    flat = planning.temporary(f"{op.output}:row_major", Layout(x.images, 1, 1, per_image, per_image, NO_HALO, 2))
    _copy_step(planning, op.name, x_shape, (op.x, x.inside), x.strides, (flat, 0), _dense_strides(x_shape))
    _copy_step(planning, op.name, y_shape, (flat, 0), _dense_strides(y_shape), (op.output, y.inside), y.strides)


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
    _fill_step(planning, op.name, op.output, op.value)
    if op.value != 0 and y.halo != NO_HALO:
        raise unsupported(op, f"pads with {op.value} in front of a padded convolution")
    planning.step(
        KernelKey("copy"),
        op.name,
        x=(op.x, x_start),
        y=(op.output, y_start),
        **_loop_fields(kept, False, x=x.strides, y=y.strides),
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
            inside, own = 0, _dense_strides(shape)
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
        **_halo(y),
        **_loop_fields(y_shape, False, x=strides["x"], b=strides["b"], y=y.strides),
        **places,
    )


def lower_mean(planning: Planning, op: Mean) -> None:
    """Global average pooling by its own kernel; any other axes by clearing and accumulating."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    x_shape = planning.value(op.x).shape
    if x.rank == 4 and op.axes == (2, 3):
        fields = _window_fields(x, y, (1, 1), (1, 1), (1, 1), (0, 0))
        planning.step(KernelKey("global_average"), op.name, x=(op.x, x.inside), y=(op.output, y.inside), **fields)
        return
    batch_free = _require_batch_in_place(planning, op, 0 not in op.axes)
    y_strides = _kept_strides(y, op.axes, op.keepdims, x.rank)
    count = int(np.prod([x_shape[axis] for axis in op.axes]))
    _fill_step(planning, op.name, op.output, 0.0)
    planning.step(
        KernelKey("mean"),
        op.name,
        x=(op.x, x.inside),
        y=(op.output, y.inside),
        **_loop_fields(x_shape, batch_free, x=x.strides, y=y_strides),
        low=1.0 / count,
    )


def _kept_strides(y: Layout, axes: tuple[int, ...], keepdims: bool, rank: int) -> tuple[int, ...]:
    """Strides of a reduction's output along the input's axes: 0 along those that are reduced."""
    if keepdims:
        return tuple(0 if axis in axes else step for axis, step in enumerate(y.strides))
    kept = iter(y.strides)
    return tuple(0 if axis in axes else next(kept) for axis in range(rank))


def lower_softmax(planning: Planning, op: Softmax) -> None:
    """Softmax along any axis but the batch."""
    y = planning.layout(op.output)
    _axis_step(planning, op, "softmax", op.axis, y.strides, y.strides[op.axis])


def lower_argmax(planning: Planning, op: ArgMax) -> None:
    """ArgMax along any axis but the batch."""
    x, y = planning.layout(op.x), planning.layout(op.output)
    if planning.value(op.x).shape[op.axis] >= _MAX_INDEX:
        raise unsupported(
            op, f"axis {op.axis} has {planning.value(op.x).shape[op.axis]} elements; {_MAX_INDEX} is the limit"
        )
    y_strides = _kept_strides(y, (op.axis,), op.keepdims, x.rank)
    _axis_step(planning, op, "argmax", op.axis, y_strides, 0, option=int(op.select_last))


def _axis_step(
    planning: Planning, op: Softmax | ArgMax, kernel: KernelName, axis: int, y_strides: tuple[int, ...], y_axis: int,
    option: int = 0,
) -> None:  # fmt: skip
    x, y = planning.layout(op.x), planning.layout(op.output)
    shape = planning.value(op.x).shape
    batch_free = _require_batch_in_place(planning, op, axis != 0)
    if y.halo != NO_HALO:
        _fill_step(planning, op.name, op.output, 0.0)
    loops = tuple(1 if a == axis else size for a, size in enumerate(shape))
    planning.step(
        KernelKey(kernel),
        op.name,
        x=(op.x, x.inside),
        y=(op.output, y.inside),
        length=shape[axis],
        x_axis=x.strides[axis],
        y_axis=y_axis,
        option=option,
        **_loop_fields(loops, batch_free, x=x.strides, y=y_strides),
    )


# ---------------------------------------------------------------------------------------------------------------
# the caller's arrays


def _import_rows(y: Layout) -> int:
    return max(1, _ROW_UNIT_VECTORS // (y.w * y.c))


def lower_import(planning: Planning, name: str, io: int) -> None:
    """The caller's row-major float32 array into the arena."""
    y, shape = planning.layout(name), planning.value(name).shape
    fields = _loop_fields(shape, False, x=_dense_strides(shape), y=y.strides)
    fields["rows"] = _import_rows(y)
    planning.step(KernelKey("import_f32"), name, y=(name, y.inside), io=io, **_halo(y), **fields)


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
    fields = _loop_fields(shape, False, x=nhwc, y=y.strides)
    fields["rows"] = _import_rows(y)
    weight = planning.buffers.add_weights(pixels.table)
    draft = planning.step(KernelKey("import_u8"), name, y=(name, y.inside), io=0, weight=weight, **_halo(y), **fields)
    planning.drafts.pop()
    return draft


def lower_export(planning: Planning, name: str, io: int) -> None:
    """A value from the arena into the caller's row-major array."""
    x, value = planning.layout(name), planning.value(name)
    fields = _loop_fields(value.shape, False, x=x.strides, y=_dense_strides(value.shape))
    draft = planning.step(KernelKey("export"), name, x=(name, x.inside), y=(name, 0), io=io, **fields)
    del draft.places["y"]
    draft.record["option"] = value.dtype == "int64"


LOWER: Final[Mapping[type, Callable[..., None]]] = {
    Conv: lower_conv,
    Dense: lower_dense,
    BatchNorm: lower_batchnorm,
    Pool: lower_pool,
    Mean: lower_mean,
    Binary: lower_binary,
    Clip: lower_clip,
    Softmax: lower_softmax,
    ArgMax: lower_argmax,
    Pad: lower_pad,
    Transpose: lower_transpose,
    Reshape: lower_reshape,
}
