"""The one list of kernels, and the addresses of their compiled code.

Every kernel has the same signature, so the executor calls them through a table of addresses: a process compiles
only the kernels that its plan uses, each by itself, and a new kernel is one more row here.

    kernel(tag, arena, weights, tables, io, step, images, unit, worker)

tag: ISA, tile and element types of the operands. arena, weights: float32 to Numba, 64-byte aligned; what lies there
may have other element types, and is read and written through the tag. tables: int32. io:
int64, the addresses of the caller's arrays. step: one record of `step.STEP`. images: how many. unit: which part of
the work. worker: which member of the team runs it, for scratch memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

from ..simd.isa import Isa
from ..simd.tags import TagType
from . import io, quantized, rows, strided
from .conv_gemm import conv_gemm
from .depthwise import depthwise, depthwise_3x3
from .depthwise_u8 import depthwise_3x3_u8, depthwise_u8
from .jit import entry_point
from .step import STEP, KernelKey, KernelName
from .winograd import conv_winograd

KERNELS: Final[Mapping[KernelName, Any]] = {
    "import_f32": io.import_f32,
    "import_runs": io.import_runs,
    "import_planes_3": io.import_planes_3,
    "import_u8": io.import_u8,
    "export": io.export,
    "export_runs": io.export_runs,
    "conv_gemm": conv_gemm,
    "conv_winograd": conv_winograd,
    "depthwise": depthwise,
    "depthwise_3x3": depthwise_3x3,
    "depthwise_u8": depthwise_u8,
    "depthwise_3x3_u8": depthwise_3x3_u8,
    "quantize": quantized.quantize,
    "dequantize": quantized.dequantize,
    "quantized_add": quantized.quantized_add,
    "quantized_average": quantized.quantized_average,
    "max_pool_u8": quantized.max_pool_u8,
    "max_pool": rows.max_pool,
    "average_pool": rows.average_pool,
    "global_average": rows.global_average,
    "affine": rows.affine,
    "copy": strided.copy,
    "fill": strided.fill,
    "binary": strided.binary,
    "mean": strided.mean,
    "softmax": strided.softmax,
    "argmax": strided.argmax,
}


def _array(dtype: Any) -> Any:
    return types.Array(dtype, 1, "C")


_RECORD: Final = numba.from_dtype(STEP)

_MEMORY: Final = (_array(types.float32), _array(types.float32), _array(types.int32), _array(types.int64))
"""arena, weights, tables, io"""

_ARGUMENTS: Final = (
    *_MEMORY,
    _RECORD,
    types.int64,
    types.int64,
    types.int64,
)


def executor_arguments(isa: Isa) -> tuple[Any, ...]:
    """Numba types of what the executor's functions have in common: isa, addresses, memory, steps, three integers."""
    return (TagType(isa), _array(types.int64), *_MEMORY, _array(_RECORD), types.int64, types.int64, types.int64)


def kernel_addresses(isa: Isa, keys: tuple[KernelKey, ...]) -> npt.NDArray[np.int64]:
    """Compiles the kernels, or loads them from the disk cache; their addresses, valid for the process's life."""
    return np.array([_address(isa, key) for key in keys], np.int64)


def _address(isa: Isa, key: KernelKey) -> int:
    signature = (TagType(isa, key.tile, key.operands), *_ARGUMENTS)
    dispatcher = KERNELS[key.name]
    dispatcher.compile(signature)
    compiled = dispatcher.overloads[signature]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def compiled_binds(dtypes: Iterable[np.dtype[Any]]) -> dict[np.dtype[Any], Callable[..., None]]:
    """`io.bind` by the dtype of the caller's array, compiled; called as bind(io, index, 1-D array)."""
    return {
        dtype: entry_point(io.bind, (_array(types.int64), types.int64, _array(numba.from_dtype(dtype))))
        for dtype in dtypes
    }


@intrinsic
def call_kernel(
    _typing: Any,
    address: Any,
    isa: Any,
    arena: Any,
    weights: Any,
    tables: Any,
    io: Any,
    step: Any,
    images: Any,
    unit: Any,
    worker: Any,
) -> Any:
    """Calls the kernel at `address` by Numba's own convention. Tags carry no data, so `isa` stands for any tag."""
    arguments = (isa, arena, weights, tables, io, step, images, unit, worker)

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        convention = context.call_conv
        function = builder.inttoptr(args[0], convention.get_function_type(types.none, arguments).as_pointer())
        convention.call_function(builder, function, types.none, arguments, args[1:])
        return context.get_dummy_value()

    return types.void(address, *arguments), emit
