"""The C library's team of threads: that it sleeps and wakes, and what becomes of it when its process ends or forks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from llvmlite import binding as llvm
from llvmlite import ir
from plan_runner import KERNELS

from backend.simd.atomics import pause_cpu

_TESTS = Path(__file__).parent.parent


def test_numbas_members_pause_by_isb() -> None:
    """As those of the C library do; YIELD would be a NOP."""
    module = ir.Module()
    module.triple = "aarch64-unknown-linux-gnu"
    builder = ir.IRBuilder(ir.Function(module, ir.FunctionType(ir.VoidType(), []), "wait").append_basic_block())
    pause_cpu._defn(None)[1](SimpleNamespace(get_dummy_value=lambda: None), builder, None, [])
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(module.triple).create_target_machine()
    assert "\tisb\n" in machine.emit_assembly(llvm.parse_assembly(str(module)))


@pytest.mark.skipif(KERNELS != "neon", reason="needs a compiler for Arm: tools/arm64/test --kernels")
def test_members_fall_asleep_and_wake() -> None:
    """Each unit of each run is done once, whether the run finds members awake or asleep."""
    from neon_runner import EMULATOR, FEATURES, NATIVE, program

    team = program(_TESTS / "neon" / "team_driver.c", FEATURES)
    done = subprocess.run(
        [*([] if NATIVE else EMULATOR), str(team)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_a_team_is_closed_by_its_own_process_and_not_at_exit() -> None:
    """Joining threads would hang in a forked process, which has none, and at exit, if one is inside the library.

    The library is a stand-in that any CPU can load.
    """
    script = """
        import gc, os
        from plan_runner import plan_graph
        from small_nets import Net
        from backend.neon import executor

        class Library:
            ln_kernel_named = staticmethod(lambda name: 1)
            ln_team_open = staticmethod(lambda threads: 7)
            ln_team_tids = staticmethod(lambda team, tids: None)
            ln_team_close = staticmethod(lambda team: print("closed in", "parent" if os.getpid() == own else "child"))

        own = os.getpid()
        executor.build_library, executor.load_library = lambda features: None, lambda path: Library()
        net = Net()
        plan = plan_graph(net.graph(net.conv(net.input(3, 5, 5), 16, (1, 1))))
        kept, dropped = executor.NeonExecutor(plan, 2), executor.NeonExecutor(plan, 2)
        child = os.fork()
        if not child:
            del kept, dropped
            gc.collect()
            print("forked", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        del dropped
        gc.collect()
        print("exit")
    """
    done = subprocess.run(
        [sys.executable, "-u", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), str(_TESTS.parent.parent)])},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["forked", "closed in parent", "exit"], done.stderr
