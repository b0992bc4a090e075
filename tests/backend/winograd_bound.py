"""F(4x4, 3x3) as matrices, and how far from the exact sum it may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial
from small_nets import UNIT_ROUNDOFF

from backend.graph.ir import Conv, Graph


@dataclass(frozen=True)
class Matrices:
    """Y = A' [(G g G') * (B' d B)] A."""

    b: np.ndarray
    g: np.ndarray
    a: np.ndarray


# Lavin and Gray 2016, section 4.3, as printed there.
LAVIN_AND_GRAY = Matrices(
    b=np.array(
        [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]]
    ).T,
    g=np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    a=np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).T,
)  # fmt: skip


def toom_cook(*points: float) -> Matrices:
    """For five points and infinity, by the textbook: Lagrange's polynomials in B, powers of the points in A and G.

    Blahut, "Fast Algorithms for Signal Processing", 2010, chapter 5; the transposed form of Toom and Cook's.
    """
    b, g = np.zeros((6, 6)), np.zeros((6, 3))
    for row, number in enumerate(points):
        others = [other for other in points if other != number]
        b[row, :5] = polynomial.polyfromroots(others)
        g[row] = [number**power / np.prod([number - other for other in others]) for power in range(3)]
    b[5], g[5, 2] = polynomial.polyfromroots(points), 1
    a = np.array([[number**power for power in range(4)] for number in points] + [[0, 0, 0, 1]])
    return Matrices(b.T, g, a)


BFLOAT16 = toom_cook(0.0, 0.625, -0.625, 1.5, -1.5)


def magnitude(graph: Graph, inputs: dict[str, np.ndarray], matrices: Matrices) -> np.ndarray:
    """|A|' [sum over channels (|G| |g| |G|') * (|B|' |d| |B|)] |A| + the same of bias and residual.

    Each factor of the exact identity replaced by its magnitude.
    """
    (op,) = graph.ops
    assert isinstance(op, Conv)
    b, g, a = (np.abs(matrix) for matrix in (matrices.b, matrices.g, matrices.a))
    weight = np.abs(graph.constants[op.weight].astype(np.float64))
    picture = np.abs(inputs[op.x].astype(np.float64))
    top, left, bottom, right = op.pads
    out_h, out_w = picture.shape[2] + top + bottom - 2, picture.shape[3] + left + right - 2
    below, beside = bottom - out_h % -4, right - out_w % -4  # the last patches overhang
    padded = np.pad(picture, ((0, 0), (0, 0), (top, below), (left, beside)))
    transformed = np.einsum("ir,ocrs,js->ocij", g, weight, g)
    total = np.zeros((len(picture), len(weight), out_h - out_h % -4, out_w - out_w % -4))
    for row in range(0, out_h, 4):
        for column in range(0, out_w, 4):
            patch = padded[:, :, row : row + 6, column : column + 6]
            d = np.einsum("ri,ncrs,sj->ncij", b, patch, b)
            m = np.einsum("ocij,ncij->noij", transformed, d)
            total[:, :, row : row + 4, column : column + 4] = np.einsum("ri,norc,cj->noij", a, m, a)
    total = total[:, :, :out_h, :out_w]
    if op.bias:
        total += np.abs(graph.constants[op.bias]).reshape(1, -1, 1, 1)
    if op.epilogue.residual:
        total += np.abs(inputs[op.epilogue.residual])
    return total


def gamma(channels: int, in_a_line: int = 6) -> float:
    """n u / (1 - n u) (Higham 2002, section 3.1), n the roundings on the longest way from input to output.

    They are C in the sum, so many in each of four one-dimensional transforms, and weights, bias, add.
    """
    n = (channels + 4 * in_a_line + 4) * UNIT_ROUNDOFF
    return n / (1 - n)
