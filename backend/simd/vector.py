"""One vector of float32 as a Numba value, and the operations on it: one intrinsic each, its scalar meaning beside it.

Vectors are of float32, whatever the elements of a value are in memory (`memory.py`), and as wide as the ISA says
(`Isa.lanes`). Kernels are ordinary Python with named vectors; LLVM sees vector IR, so the width is not left to its
auto-vectoriser (which prefers 256 bits on AVX-512 machines).

May import: simd.isa.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from .isa import Isa

F32 = ir.FloatType()
I8 = ir.IntType(8)
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)


class VectorType(types.Type):
    """`lanes` float32 side by side."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"f32x{lanes}")


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """A `VectorType` is an LLVM vector, in registers and in memory."""

    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, ir.VectorType(F32, vector.lanes))


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """LLVM pointer to element `offset` of a 1-D C-contiguous array; no bounds check."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def load_vector(builder: Any, pointer: Any, lanes: int, align_bytes: int = 4, scalar: Any = F32) -> Any:
    """IR that reads `lanes` scalars, of float32 unless said otherwise, from a pointer."""
    wide = builder.bitcast(pointer, ir.VectorType(scalar, lanes).as_pointer())
    return builder.load(wide, align=align_bytes)


def store_vector(builder: Any, vector: Any, pointer: Any, align_bytes: int = 4) -> None:
    """IR that writes a vector to where a pointer points."""
    builder.store(vector, builder.bitcast(pointer, vector.type.as_pointer()), align=align_bytes)


def splat_vector(builder: Any, scalar: Any, lanes: int) -> Any:
    """IR that repeats a scalar in every lane."""
    vector = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
    mask = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)


def fma_vector(builder: Any, isa: Isa, a: Any, b: Any, c: Any) -> Any:
    """IR of a * b + c: rounded once where the ISA has a fused multiply-add, twice where it has not."""
    if not isa.fma:
        return builder.fadd(builder.fmul(a, b), c)
    name = f"llvm.fma.v{a.type.count}f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def clip_vector(builder: Any, vector: Any, low: Any, high: Any) -> Any:
    """IR of min(max(v, low), high) in the form that keeps a NaN of v (and is one instruction each on x86)."""
    raised = builder.select(builder.fcmp_ordered("<", vector, low), low, vector)
    return builder.select(builder.fcmp_ordered(">", raised, high), high, raised)


def maximum_vector(builder: Any, a: Any, b: Any) -> Any:
    """IR of max(a, b) that keeps a NaN of either."""
    larger = builder.select(builder.fcmp_ordered("<", a, b), b, a)
    return builder.select(builder.fcmp_unordered("uno", b, b), b, larger)


@intrinsic
def load(_typing: Any, isa: Any, array: Any, offset: Any) -> Any:
    """array[offset : offset + lanes]"""
    vector = VectorType(isa.isa.lanes)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, signature.args[1], args[1], args[2])
        return load_vector(builder, pointer, vector.lanes)

    return vector(isa, array, types.intp), emit


@intrinsic
def store(_typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """array[offset : offset + lanes] = vector"""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        store_vector(builder, args[2], element_pointer(context, builder, signature.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic
def splat(_typing: Any, isa: Any, scalar: Any) -> Any:
    """[scalar] * lanes"""
    vector = VectorType(isa.isa.lanes)

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return splat_vector(builder, args[1], vector.lanes)

    return vector(isa, types.float32), emit


@intrinsic
def fma(_typing: Any, isa: Any, a: Any, b: Any, c: Any) -> Any:
    """[a[i] * b[i] + c[i] ...]"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return fma_vector(builder, isa.isa, args[1], args[2], args[3])

    return a(isa, a, b, c), emit


@intrinsic
def add(_typing: Any, a: Any, b: Any) -> Any:
    """[a[i] + b[i] ...]"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1])

    return a(a, b), emit


@intrinsic
def mul(_typing: Any, a: Any, b: Any) -> Any:
    """[a[i] * b[i] ...]"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], args[1])

    return a(a, b), emit


@intrinsic
def sub(_typing: Any, a: Any, b: Any) -> Any:
    """[a[i] - b[i] ...]"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fsub(args[0], args[1])

    return a(a, b), emit


@intrinsic
def div(_typing: Any, a: Any, b: Any) -> Any:
    """[a[i] / b[i] ...]"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fdiv(args[0], args[1])

    return a(a, b), emit


@intrinsic
def maximum(_typing: Any, a: Any, b: Any) -> Any:
    """[max(a[i], b[i]) ...]: a NaN of either stays"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return maximum_vector(builder, args[0], args[1])

    return a(a, b), emit


@intrinsic
def clip(_typing: Any, vector: Any, low: Any, high: Any) -> Any:
    """[min(max(v[i], low[i]), high[i]) ...]: a NaN of v stays"""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return clip_vector(builder, *args)

    return vector(vector, low, high), emit
