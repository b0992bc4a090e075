"""What a session owns: nothing is allocated while it runs, values share memory, nothing is left when it goes."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx_models import model, node
from plan_runner import MACHINE, plan_graph
from small_nets import Net

from backend import InferenceSession
from backend.graph.ir import Graph

_ROOT = Path(__file__).parent.parent.parent


def chain(length: int) -> Graph:
    """Convolutions one after the other, all of one size."""
    net = Net()
    x = net.input(16, 20, 20)
    for _ in range(length):
        x = net.conv(x, 16, (3, 3), pads=(1, 1, 1, 1), low=0.0)
    return net.graph(x)


def test_values_share_the_arena() -> None:
    """A long chain needs no more memory for values than a short one: what has been read makes room."""
    short, long = plan_graph(chain(3), 2), plan_graph(chain(30), 2)
    assert long.arena_size == short.arena_size
    assert long.weights.size > short.weights.size


def test_what_a_session_owns_is_what_its_plan_says() -> None:
    """Resident memory grows by the plan's figure and not by much more, and goes when the session goes."""
    weights = np.ones((512, 512, 3, 3), np.float32)
    proto = model([node("Conv", "x w", "y", pads=[1, 1, 1, 1])], {"x": ["N", 512, 28, 28]}, ["y"], {"w": weights})
    images = np.ones((4, 512, 28, 28), np.float32)
    InferenceSession(proto, threads=1, max_batch=4).run(None, {"x": images[:1]})  # compiles what the other one runs
    gc.collect()
    tracemalloc.start()
    try:
        session = InferenceSession(proto, threads=1, max_batch=4)
        owned = session.plan().owned_bytes(1)
        session.run(None, {"x": images})
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        del session
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert owned >= weights.nbytes + images.nbytes
    assert abs(held - owned) <= 0.05 * owned, f"{held >> 20} MiB are held, the plan says {owned >> 20}"
    assert left <= 0.01 * owned


def test_many_runs_leave_memory_as_it_is() -> None:
    proto = model([node("Conv", "x w", "c"), node("Softmax", "c", "y", axis=1)], {"x": ["N", 8, 16, 16]}, ["y"],
                  {"w": np.ones((64, 8, 3, 3), np.float32)})  # fmt: skip
    session = InferenceSession(proto, max_batch=2, threads=min(2, MACHINE.cores))
    images = np.ones((3, 8, 16, 16), np.float32)
    for _ in range(50):
        session.run(None, {"x": images})
    before = psutil.Process().memory_info().rss
    for _ in range(200):
        session.run(None, {"x": images})
    assert psutil.Process().memory_info().rss - before <= 4 << 20


COUNT = """
    import numba.core.runtime._nrt_python as nrt
    nrt.memsys_enable_stats()
    import numpy as np
    from onnx_models import model, node
    from backend import InferenceSession

    def allocations(nodes, threads):
        proto = model(nodes, {"x": ["N", 8, 8, 8]}, ["y"], {"w": np.ones((16, 8, 3, 3), np.float32)})
        session = InferenceSession(proto, max_batch=2, threads=threads)
        images = np.ones((2, 8, 8, 8), np.float32)
        session.run(None, {"x": images})
        before = nrt.memsys_get_stats_alloc()
        for _ in range(20):
            session.run(None, {"x": images})
        return (nrt.memsys_get_stats_alloc() - before) / 20

    long = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("MaxPool", "c", "m", kernel_shape=[2, 2]),
            node("Add", "m m", "a"), node("Transpose", "a", "t", perm=[0, 2, 3, 1]), node("Softmax", "t", "y", axis=1)]
    for threads in range(1, 3):
        print(allocations([node("Conv", "x w", "y")], threads), allocations(long, threads))
"""


@pytest.mark.skipif(MACHINE.cores < 2, reason="one CPU")
def test_compiled_code_allocates_nothing() -> None:
    """Numba's runtime counts a handle for each array that goes into a call, whatever the network, and nothing else."""
    search = f"import sys; sys.path[:0] = [{str(_ROOT)!r}, {str(_ROOT / 'tests' / 'backend')!r}]\n"
    script = search + textwrap.dedent(COUNT)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    bound = 2 * 2  # the caller's array and io, for one input and one output
    executed = 6  # kernels, arena, weights, tables, io, steps
    for line, counters_of_a_team in zip(done.stdout.splitlines(), (0, 1), strict=True):
        one_step, many_steps = (float(count) for count in line.split())
        assert one_step == many_steps <= bound + executed + counters_of_a_team
