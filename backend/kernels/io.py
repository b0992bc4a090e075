"""The caller's arrays: read into the arena before the first layer, written from it after the last.

They are reached through their addresses (int64, one per input, then one per output), so that the executor is
compiled once whatever a model's inputs and outputs are. Imports go by `step.rows` output rows, counted over all
images, exports by images.

`import_f32` and `export` take any strides, element by element. The planner names a faster kernel where both arrays
have runs of neighbours in common, or where three planes become the channels of a picture.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..simd.element import FLOAT32, INT8_OFFSET
from ..simd.integers import rounded
from ..simd.memory import get_x, move_y, operand_pointer, set_y, store_y_interleaved, write_element
from ..simd.tags import lanes_of, y_per_word
from ..simd.vector import F32, VectorType, add, div, element_pointer, load_vector, splat
from .halo import zero_halo
from .jit import jit, jit_entry
from .rows import unit_rows
from .strided import unit_images, x_row_start, y_row_start

_BYTES_PER_WORD: Final = 4


@jit_entry
def bind(io: Any, index: int, array: Any) -> None:
    """io[index] = the address of a 1-D C-contiguous array: a quarter of what asking NumPy for it takes."""
    io[index] = array.ctypes.data


@intrinsic
def _read(_typing: Any, address: Any, index: Any, like: Any) -> Any:
    """Element `index` of an array of like's type that starts at `address`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], context.get_data_type(signature.return_type).as_pointer())
        return builder.load(builder.gep(pointer, [args[1]]))

    return like(types.int64, types.int64, like), emit


@intrinsic
def _write(_typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Sets element `index` of an array of value's type that starts at `address`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], context.get_data_type(signature.args[2]).as_pointer())
        builder.store(args[2], builder.gep(pointer, [args[1]]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value), emit


def _float_pointer(builder: Any, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, F32.as_pointer()), [index])


@intrinsic
def _read_vector(_typing: Any, isa: Any, address: Any, index: Any) -> Any:
    """Elements [index, index + lanes) of a float32 array that starts at `address`."""
    vector = VectorType(isa.isa.lanes)

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return load_vector(builder, _float_pointer(builder, args[1], args[2]), vector.lanes)

    return vector(isa, types.int64, types.int64), emit


@intrinsic
def _read_run(_typing: Any, isa: Any, arena: Any, offset: Any, address: Any, index: Any, length: Any) -> Any:
    """y[offset : offset + length] = elements from `index` on of a float32 array that starts at `address`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tag, arena_type = signature.args[:2]
        element = tag.operands.y
        target = operand_pointer(context, builder, arena_type, args[1], element, args[2])
        source = _float_pointer(builder, args[3], args[4])
        if element == FLOAT32:
            cgutils.raw_memcpy(builder, target, source, args[5], element.bytes)
        else:
            with cgutils.for_range(builder, args[5]) as loop:
                value = builder.load(builder.gep(source, [loop.index]))
                write_element(builder, tag.isa, element, value, builder.gep(target, [loop.index]))
        return context.get_dummy_value()

    return types.void(isa, arena, *([types.int64] * 4)), emit


@intrinsic
def _write_run(_typing: Any, address: Any, index: Any, arena: Any, offset: Any, length: Any) -> Any:
    """Sets elements from `index` on of a float32 array that starts at `address` to arena[offset : offset + length]."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = element_pointer(context, builder, signature.args[2], args[2], args[3])
        cgutils.raw_memcpy(builder, _float_pointer(builder, args[0], args[1]), source, args[4], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, arena, types.int64, types.int64), emit


@jit
def _stored(isa: Any, weights: Any, step: Any, value: Any) -> Any:
    """What is stored of a number of the caller's: its quantisation, if y is of bytes."""
    if y_per_word(isa) == _BYTES_PER_WORD:
        steps = value / weights[step.scale]
        steps = step.low if not steps > step.low else step.high if steps > step.high else steps
        return np.rint(steps) + weights[step.scale + 1]
    return value


@jit
def _stored_vector(isa: Any, weights: Any, step: Any, vector: Any) -> Any:
    """`_stored` of a vector."""
    if y_per_word(isa) == _BYTES_PER_WORD:
        steps = div(vector, splat(isa, weights[step.scale]))
        return add(rounded(steps, splat(isa, step.low), splat(isa, step.high)), splat(isa, weights[step.scale + 1]))
    return vector


@jit
def import_f32(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """Arena y <- caller's float32 array x, quantised on the way if y is of bytes: weights[scale:] are its scale and
    zero point, `low` and `high` bounds in steps."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    begin, end = unit_rows(step, images, unit)
    address = io[step.io]
    for row in range(begin, end):
        image, h = divmod(row, step.out_h)
        x0, y0 = x_row_start(step, image, 0, h), y_row_start(step, image, 0, h)
        for channel in range(out_c):
            x, y = x0 + channel * x_channel, y0 + channel * y_channel
            for pixel in range(out_w):
                value = _read(address, x + pixel * x_pixel, np.float32(0))
                set_y(isa, arena, y + pixel * y_pixel, _stored(isa, weights, step, value))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def import_runs(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """`import_f32` where a row is runs of `length` elements that lie side by side in both arrays, one per x_pixel."""
    x_pixel, y_pixel, length = step.x_pixel, step.y_pixel, step.length
    runs = step.out_w * step.out_c // length
    begin, end = unit_rows(step, images, unit)
    address = io[step.io]
    for row in range(begin, end):
        image, h = divmod(row, step.out_h)
        x0, y0 = x_row_start(step, image, 0, h), y_row_start(step, image, 0, h)
        for run in range(runs):
            x, y = x0 + run * x_pixel, y0 + run * y_pixel
            if y_per_word(isa) == _BYTES_PER_WORD:
                for i in range(length):
                    set_y(isa, arena, y + i, _stored(isa, weights, step, _read(address, x + i, np.float32(0))))
            else:
                _read_run(isa, arena, y, address, x, length)
    zero_halo(isa, arena, step, begin * step.out_w, end * step.out_w, worker)


@jit
def import_planes_3(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """`import_f32` of three planes (x_pixel 1) into pixels of three channels without padding (y_pixel 3)."""
    lanes = lanes_of(isa)
    out_w, x_channel = step.out_w, step.x_channel
    begin, end = unit_rows(step, images, unit)
    address = io[step.io]
    for row in range(begin, end):
        image, h = divmod(row, step.out_h)
        x, y = x_row_start(step, image, 0, h), y_row_start(step, image, 0, h)
        whole = out_w - out_w % lanes
        for pixel in range(0, whole, lanes):
            first = _stored_vector(isa, weights, step, _read_vector(isa, address, x + pixel))
            second = _stored_vector(isa, weights, step, _read_vector(isa, address, x + x_channel + pixel))
            third = _stored_vector(isa, weights, step, _read_vector(isa, address, x + 2 * x_channel + pixel))
            store_y_interleaved(isa, arena, y + 3 * pixel, first, second, third)
        for pixel in range(whole, out_w):
            for channel in range(3):
                value = _read(address, x + channel * x_channel + pixel, np.float32(0))
                set_y(isa, arena, y + 3 * pixel + channel, _stored(isa, weights, step, value))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def import_u8(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """Arena y <- caller's uint8 pixels [image][row][pixel][channel], through a table of y's
    element type, [channel][256], among the weights."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, y_pixel, y_channel = step.x_pixel, step.y_pixel, step.y_channel
    table = step.weight * y_per_word(isa)
    begin, end = unit_rows(step, images, unit)
    address = io[step.io]
    for row in range(begin, end):
        image, h = divmod(row, step.out_h)
        x0, y0 = x_row_start(step, image, 0, h), y_row_start(step, image, 0, h)
        for pixel in range(out_w):
            for channel in range(out_c):
                level = _read(address, x0 + pixel * x_pixel + channel, np.uint8(0))
                y = y0 + pixel * y_pixel + channel * y_channel
                move_y(isa, arena, y, weights, table + channel * 256 + np.int64(level))
    zero_halo(isa, arena, step, begin * out_w, end * out_w, worker)


@jit
def export(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """Caller's array y <- arena x; option 1: the caller's array is int64 (indices are exact in float32), 2: uint8,
    3: int8, stored as uint8."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    option = step.option
    begin, end = unit_images(step, images, unit)
    address = io[step.io]
    for image in range(begin, end):
        for outer in range(step.outer):
            for row in range(step.out_h):
                x0, y0 = x_row_start(step, image, outer, row), y_row_start(step, image, outer, row)
                for channel in range(out_c):
                    x, y = x0 + channel * x_channel, y0 + channel * y_channel
                    for pixel in range(out_w):
                        value = get_x(isa, arena, x + pixel * x_pixel)
                        if option == 1:
                            _write(address, y + pixel * y_pixel, np.int64(value))
                        elif option == 2:
                            _write(address, y + pixel * y_pixel, np.uint8(value))
                        elif option == 3:
                            _write(address, y + pixel * y_pixel, np.int8(value - INT8_OFFSET))
                        else:
                            _write(address, y + pixel * y_pixel, value)


@jit
def export_runs(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """`export` of float32 where a row is runs of `length` elements that lie side by side in both arrays."""
    x_pixel, y_pixel, length = step.x_pixel, step.y_pixel, step.length
    runs = step.out_w * step.out_c // length
    begin, end = unit_images(step, images, unit)
    address = io[step.io]
    for image in range(begin, end):
        for row in range(step.out_h):
            x0, y0 = x_row_start(step, image, 0, row), y_row_start(step, image, 0, row)
            for run in range(runs):
                _write_run(address, y0 + run * y_pixel, arena, x0 + run * x_pixel, length)
