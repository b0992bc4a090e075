r"""Moves Transpose ops behind the ops that work element by element, until they meet their inverse or an op that minds.

    before                                                  after
    x -> Transpose p -> Clip -> y                           x -> Clip -> Transpose p -> y
    x -> Transpose p -> Pad -> y                            x -> Pad (sides moved) -> Transpose p -> y
    x -> Transpose p -> Mean (axes) -> y                    x -> Mean (axes moved) -> Transpose of what is left -> y
    a -> Transpose p --\                                    a --\
                        Binary -> y                              Binary -> Transpose p -> y
    b -> Transpose p --/                                    b --/

TensorFlow computes in NHWC: its exporters put a Transpose on each side of a convolution and leave the ReLU, add or mean
between two of them. Moved down, one of a pair meets the other, and `drop_identity` removes both.
A Binary with a constant transposes the constant instead.

May import: ir, prune, rewrite, shapes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..ir import Binary, Clip, Graph, Mean, Op, Pad, Transpose, Value
from ..prune import rebuild
from ..shapes import output_value
from .rewrite import fresh


def sink_transpose(graph: Graph) -> Graph:
    """The graph with transposes as late as possible; see the module's docstring."""
    sinking = _Sinking(graph)
    for op in graph.ops:
        moved = sinking.before_transpose(op)
        if moved is None:
            sinking.append(op)
        else:
            sinking.append_transposed(op, *moved)
    return rebuild(graph, sinking.ops.values(), sinking.values, sinking.constants)


class _Sinking:
    """The ops written so far, by output, and the values and constants that they use."""

    def __init__(self, graph: Graph) -> None:
        self.values = dict(graph.values)
        self.constants = dict(graph.constants)
        self.ops: dict[str, Op] = {}

    def append(self, op: Op) -> None:
        self.ops[op.output] = op

    def append_transposed(self, op: Op, moved: Op, perm: tuple[int, ...]) -> None:
        """`moved`, under a name of its own, then a Transpose that writes what `op` wrote."""
        inner = fresh(f"{op.output}.sunk", self.values)
        moved = replace(moved, output=inner)
        self.values[inner] = output_value(moved, self.values)
        self.append(moved)
        self.append(Transpose(f"{op.name}.transpose", inner, op.output, perm))

    def before_transpose(self, op: Op) -> tuple[Op, tuple[int, ...]] | None:
        """(op on the values before their Transpose, perm that then gives op's output), if `op` lets it through."""
        if isinstance(op, Binary):
            return self._binary(op)
        if not isinstance(op, (Clip, Pad, Mean)):
            return None
        transpose = self.ops.get(op.x)
        if not isinstance(transpose, Transpose):
            return None
        perm = transpose.perm
        if isinstance(op, Clip):
            return replace(op, x=transpose.x), perm
        if isinstance(op, Pad):
            pads = tuple(op.pads[perm.index(axis)] for axis in range(len(perm)))
            return replace(op, x=transpose.x, pads=pads), perm
        axes = tuple(sorted(perm[axis] for axis in op.axes))
        if not op.keepdims:
            left = [perm[axis] for axis in range(len(perm)) if axis not in op.axes]
            perm = tuple(sorted(left).index(axis) for axis in left)
        return replace(op, x=transpose.x, axes=axes), perm

    def _binary(self, op: Binary) -> tuple[Op, tuple[int, ...]] | None:
        a, b = self.ops.get(op.a), self.ops.get(op.b)
        if isinstance(a, Transpose) and isinstance(b, Transpose):
            return (replace(op, a=a.x, b=b.x), a.perm) if a.perm == b.perm else None
        if isinstance(a, Transpose) and self._is_small_constant(op.b, op, a):
            return replace(op, a=a.x, b=self._transposed_back(op.b, a.perm)), a.perm
        if isinstance(b, Transpose) and self._is_small_constant(op.a, op, b):
            return replace(op, b=b.x, a=self._transposed_back(op.a, b.perm)), b.perm
        return None

    def _is_small_constant(self, name: str, op: Binary, transpose: Transpose) -> bool:
        """A constant that is broadcast to the transposed value, whose shape the result keeps."""
        return name in self.constants and self.values[op.output].shape == self.values[transpose.output].shape

    def _transposed_back(self, constant: str, perm: tuple[int, ...]) -> str:
        array: npt.NDArray[np.generic] = self.constants[constant]
        aligned = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
        back = np.ascontiguousarray(np.transpose(aligned, np.argsort(perm)))
        back.setflags(write=False)
        name = fresh(f"{constant}.transposed", self.values)
        self.constants[name] = back
        self.values[name] = Value(name, back.shape)
        return name
