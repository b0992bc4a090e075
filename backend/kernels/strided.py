"""Kernels over arbitrary strides: layout changes, broadcasting arithmetic, reductions over any axis.

They are the general path: correct for every shape and axis, scalar, off the hot path of the networks we care for
(there, the passes have fused or cancelled them). The loops are image, outer, row, pixel, channel; an operand that
is broadcast or reduced along one of them has stride 0 there. A unit is `step.rows` images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..simd.memory import get_b, get_x, get_y, set_y
from .halo import zero_halo
from .jit import jit


@jit
def image_units(step: Any, images: int) -> int:
    """Units of a strided step for so many images."""
    return (images + step.rows - 1) // step.rows


@jit
def unit_images(step: Any, images: int, unit: int) -> tuple[int, int]:
    """The images [begin, end) of a unit."""
    begin = unit * step.rows
    return begin, min(begin + step.rows, images)


@jit
def x_row_start(step: Any, image: int, outer: int, row: int) -> int:
    """Where a row of the operand x begins."""
    return step.x + image * step.x_image + outer * step.x_outer + row * step.x_row


@jit
def y_row_start(step: Any, image: int, outer: int, row: int) -> int:
    """Where a row of the result begins."""
    return step.y + image * step.y_image + outer * step.y_outer + row * step.y_row


@jit
def copy(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y <- x: transpositions, reshapes between layouts, the inside of a padding."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    begin, end = unit_images(step, images, unit)
    for image in range(begin, end):
        for outer in range(step.outer):
            for row in range(step.out_h):
                x0, y0 = x_row_start(step, image, outer, row), y_row_start(step, image, outer, row)
                for pixel in range(out_w):
                    for channel in range(out_c):
                        value = get_x(isa, arena, x0 + pixel * x_pixel + channel * x_channel)
                        set_y(isa, arena, y0 + pixel * y_pixel + channel * y_channel, value)


@jit
def fill(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y <- low, for every image whole (`length` elements)."""
    low = step.low
    begin, end = unit_images(step, images, unit)
    for image in range(begin, end):
        y = step.y + image * step.y_image
        for i in range(step.length):
            set_y(isa, arena, y + i, low)


@jit
def binary(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y <- clip(x op b, low, high); option 0 add, 1 sub, 2 mul, 3 div. A NaN stays a NaN."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    b_pixel, b_channel, low, high, option = step.b_pixel, step.b_channel, step.low, step.high, step.option
    begin, end = unit_images(step, images, unit)
    for image in range(begin, end):
        for outer in range(step.outer):
            for row in range(step.out_h):
                x0, y0 = x_row_start(step, image, outer, row), y_row_start(step, image, outer, row)
                b0 = step.b + image * step.b_image + outer * step.b_outer + row * step.b_row
                for pixel in range(out_w):
                    for channel in range(out_c):
                        x = get_x(isa, arena, x0 + pixel * x_pixel + channel * x_channel)
                        b = get_b(isa, arena, b0 + pixel * b_pixel + channel * b_channel)
                        if option == 0:
                            value = x + b
                        elif option == 1:
                            value = x - b
                        elif option == 2:
                            value = x * b
                        else:
                            value = x / b
                        if value < low:
                            value = low
                        if value > high:
                            value = high
                        set_y(isa, arena, y0 + pixel * y_pixel + channel * y_channel, value)
    pixels = step.out_h * step.out_w
    zero_halo(isa, arena, step, begin * pixels, end * pixels, worker)


@jit
def mean(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y <- y + x * low, over loops in which y may have stride 0: a mean, where low = 1 / count and a fill cleared y."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    low = step.low
    begin, end = unit_images(step, images, unit)
    for image in range(begin, end):
        for outer in range(step.outer):
            for row in range(step.out_h):
                x0, y0 = x_row_start(step, image, outer, row), y_row_start(step, image, outer, row)
                for pixel in range(out_w):
                    for channel in range(out_c):
                        value = get_x(isa, arena, x0 + pixel * x_pixel + channel * x_channel) * low
                        y = y0 + pixel * y_pixel + channel * y_channel
                        set_y(isa, arena, y, get_y(isa, arena, y) + value)


@jit
def softmax(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y <- exp(x - max) / sum along the axis (`length` elements, strides x_axis and y_axis); sums in float64."""
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    x_axis, y_axis, length = step.x_axis, step.y_axis, step.length
    begin, end = unit_images(step, images, unit)
    for image in range(begin, end):
        for outer in range(step.outer):
            for row in range(step.out_h):
                x0, y0 = x_row_start(step, image, outer, row), y_row_start(step, image, outer, row)
                for pixel in range(out_w):
                    for channel in range(out_c):
                        x = x0 + pixel * x_pixel + channel * x_channel
                        y = y0 + pixel * y_pixel + channel * y_channel
                        top = get_x(isa, arena, x)
                        for i in range(1, length):
                            top = max(top, get_x(isa, arena, x + i * x_axis))
                        total = 0.0
                        for i in range(length):
                            value = math.exp(get_x(isa, arena, x + i * x_axis) - top)
                            set_y(isa, arena, y + i * y_axis, value)
                            total += value
                        scale = np.float32(1.0 / total)
                        for i in range(length):
                            set_y(isa, arena, y + i * y_axis, get_y(isa, arena, y + i * y_axis) * scale)


@jit
def argmax(
    isa: Any, arena: Any, weights: Any, tables: Any, io: Any, step: Any, images: int, unit: int, worker: int
) -> None:  # fmt: skip
    """y <- index of the largest x along the axis, as float32; the first wins a tie, with option 1 the last.

    A NaN is larger than any number, as in NumPy: a broken result must not look like a class.
    """
    out_w, out_c = step.out_w, step.out_c
    x_pixel, x_channel, y_pixel, y_channel = step.x_pixel, step.x_channel, step.y_pixel, step.y_channel
    x_axis, length, option = step.x_axis, step.length, step.option
    begin, end = unit_images(step, images, unit)
    for image in range(begin, end):
        for outer in range(step.outer):
            for row in range(step.out_h):
                x0, y0 = x_row_start(step, image, outer, row), y_row_start(step, image, outer, row)
                for pixel in range(out_w):
                    for channel in range(out_c):
                        x = x0 + pixel * x_pixel + channel * x_channel
                        y = y0 + pixel * y_pixel + channel * y_channel
                        best = 0
                        for i in range(1, length):
                            value = get_x(isa, arena, x + i * x_axis)
                            top = get_x(isa, arena, x + best * x_axis)
                            value_nan, top_nan = value != value, top != top
                            larger = value > top or (value_nan and not top_nan)
                            equal = value == top or (value_nan and top_nan)
                            if larger or (option == 1 and equal):
                                best = i
                        set_y(isa, arena, y, best)
