"""Atomic counters in int64 arrays, and how to wait for one: what threads of one inference meet at.

May import: nothing of ours.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_SY: Final = ir.Constant(ir.IntType(32), 15)
"""The one option that ISB has."""


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def atomic_add(_typing: Any, array: Any, index: Any, amount: Any) -> Any:
    """array[index] += amount for all threads, in one total order; returns the old value."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), emit


@intrinsic
def atomic_load(_typing: Any, array: Any, index: Any) -> Any:
    """array[index], seeing all that was written before the value was."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(context, builder, signature.args[0], args[0], args[1]), "acquire", 8)

    return types.int64(array, types.intp), emit


@intrinsic
def pause_cpu(_typing: Any) -> Any:
    """For a loop that only waits: x86's PAUSE, which leaves the core to its other hyper-thread, or Arm's ISB.

    Most of Arm's cores take YIELD for a NOP; ISB holds a core up for about as long as PAUSE does, so Rust's
    `hint::spin_loop` emits it since rust-lang/rust#84725, and RocksDB, jemalloc and WiredTiger likewise.
    """

    def emit(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        void, triple = ir.VoidType(), builder.module.triple
        if triple.startswith("x86_64"):
            pause = cgutils.get_or_insert_function(builder.module, ir.FunctionType(void, []), "llvm.x86.sse2.pause")
            builder.call(pause, [])
        elif triple.startswith("aarch64"):
            barrier = ir.FunctionType(void, [ir.IntType(32)])
            builder.call(cgutils.get_or_insert_function(builder.module, barrier, "llvm.aarch64.isb"), [_SY])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def yield_cpu(_typing: Any) -> Any:
    """sched_yield(2): lets another thread run that needs this CPU."""

    def emit(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), emit
