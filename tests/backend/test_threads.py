"""Teams of threads: refused where OpenMP does not give them, pinned where they run, harmless beside others.

What changes a process for good (environment, threading layer, affinity) happens in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from onnx_models import model, node
from plan_runner import MACHINE, plan_graph, run_plan
from small_nets import Net, random_inputs

pytestmark = pytest.mark.skipif(MACHINE.cores < 2, reason="one CPU: no team of two")

MODEL = model([node("Relu", "x", "y")], {"x": ["N", 3]}, ["y"]).SerializeToString()
SESSION = f"""
    import numpy as np
    from backend import BackendError, InferenceSession

    def session(threads):
        return InferenceSession({MODEL!r}, threads=threads)

    def refusal(threads):
        try:
            session(threads)
        except BackendError as error:
            return type(error).__name__ + ": " + str(error)
        return "no refusal"
"""


def run_script(body: str, **environment: str) -> str:
    """What a script prints that begins with SESSION, in a process with more environment variables."""
    root = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SESSION) + textwrap.dedent(body)],
        env={**os.environ, "PYTHONPATH": root, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"OMP_THREAD_LIMIT": "1"}, "threads=2, but OpenMP gave 1: something in this process limits it"),
        ({"NUMBA_NUM_THREADS": "1"}, "threads=2, but Numba was started with 1 (NUMBA_NUM_THREADS): ask for fewer"),
    ],
    ids=["OMP_THREAD_LIMIT", "NUMBA_NUM_THREADS"],
)
def test_fewer_threads_than_asked_for_is_an_error(environment: dict[str, str], message: str) -> None:
    """And one thread still works there."""
    output = run_script("print(refusal(2)); print(refusal(1))", **environment).splitlines()
    assert output[0].startswith("MachineError: ") and message in output[0]
    assert output[1] == "no refusal"


def test_another_threading_layer_in_use_is_an_error() -> None:
    """A library that ran parallel Numba code on workqueue came first: it is neither fast nor thread-safe."""
    body = """
        import numba
        numba.config.THREADING_LAYER = "workqueue"

        @numba.njit(parallel=True)
        def fill(array):
            for i in numba.prange(len(array)):
                array[i] = i

        fill(np.zeros(8))
        print(refusal(2))
    """
    assert run_script(body) == (
        "MachineError: Numba's threading layer 'workqueue' is in use in this process, but several threads per "
        "inference need 'omp': create the session before other parallel Numba code runs, or use threads=1"
    )


def test_a_missing_openmp_names_the_package() -> None:
    body = """
        import sys
        sys.modules["numba.np.ufunc.omppool"] = None  # as if libgomp could not be loaded
        print(refusal(2))
    """
    output = run_script(body)
    assert output.startswith("MachineError: several threads per inference need OpenMP, which Numba cannot load")
    assert "apt-get install libgomp1" in output


def test_other_troubles_of_numba_are_not_a_missing_openmp() -> None:
    body = """
        import numba
        numba.config.THREADING_LAYER_PRIORITY = ["omp"]
        print(refusal(2))
    """
    output = run_script(body)
    assert output.startswith(
        "MachineError: Numba cannot start a team of 2 threads: THREADING_LAYER_PRIORITY invalid: ['omp']"
    )
    assert "libgomp" not in output and "\n" not in output


def test_pinning_binds_each_thread_and_reads_it_back() -> None:
    """Masks as /proc shows them, for one thread and two; impossible ones are refused in words."""
    body = """
        import os
        from pathlib import Path

        def masks():
            tasks = Path("/proc/self/task").iterdir()
            lines = [line for task in tasks for line in (task / "status").read_text().splitlines()]
            return [line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")]

        first, second = sorted(os.sched_getaffinity(0))[:2]
        pair = session(2)
        print(pair.pin([second, first]) == [{second}, {first}], masks().count(str(first)), masks().count(str(second)))
        pair.run(None, {"x": np.ones((1, 3), np.float32)})
        for cpus in ([first], [first, first], [first, 4000], [first, -1]):
            try:
                pair.pin(cpus)
            except BackendError as error:
                print(f"{type(error).__name__}: {error}")
    """
    lines = run_script(body).splitlines()
    agreed, on_first, on_second = lines[0].split()
    assert agreed == "True" and int(on_first) >= 1 and int(on_second) >= 1
    assert len(lines) == 5 and all(line.startswith("MachineError: ") for line in lines[1:])
    assert "one each is needed" in lines[1] and "one each is needed" in lines[2]
    assert "cannot be pinned to CPU 4000" in lines[3] and "cannot be pinned to CPU -1" in lines[4]


def test_pinning_one_thread_binds_the_caller() -> None:
    body = """
        import os
        cpu = max(os.sched_getaffinity(0))
        print(session(1).pin([cpu]) == [{cpu}], os.sched_getaffinity(0) == {cpu})
        print(refusal(2))
    """
    pinned, refused = run_script(body).splitlines()
    assert pinned == "True True"
    assert refused == (
        "MachineError: threads=2, but this thread may run on 1 of the machine's CPUs (`pin` binds a thread for good): "
        "ask for 1 to 1, or create the session in another thread"
    )


def test_a_forked_process_is_refused_a_team_and_may_go_on_alone() -> None:
    """Threads do not follow a fork, and OpenMP's cannot be started anew: Numba would kill the process for trying."""
    body = """
        import os
        from multiprocessing import get_context
        pair, alone, x = session(2), session(1), {"x": -np.ones((1, 3), np.float32)}

        def told(call):
            try:
                return call()
            except BackendError as error:
                return f"{type(error).__name__}: {error}"

        def look():
            for call in (lambda: pair.run(None, x), lambda: pair.profile(x), lambda: pair.pin([0, 1]),
                         lambda: pair.sibling(2), lambda: alone.run(None, x)[0].tolist(),
                         lambda: session(1).run(None, x)[0].tolist()):
                print(told(call), flush=True)

        child = get_context("fork").Process(target=look)
        child.start()
        child.join(60)
        print(child.exitcode, pair.run(None, x)[0].tolist())
    """
    lines = run_script(body).splitlines()
    used = "MachineError: a session of 2 threads cannot be used in a forked process, which has none of its threads: "
    assert len(lines) == 7 and all(line.startswith(used) for line in lines[:3])
    assert lines[3].startswith("MachineError: this process was forked from one in which OpenMP had been started, ")
    assert all("by 'spawn'" in line for line in lines[:4])
    assert lines[4:] == ["[[0.0, 0.0, 0.0]]"] * 2 + ["0 [[0.0, 0.0, 0.0]]"]


def test_importing_opencv_costs_no_thread() -> None:
    """OpenCV may change OpenMP's settings when it is imported; the team is counted, so two are two."""
    pytest.importorskip("cv2")
    body = """
        import cv2
        image = cv2.resize(np.zeros((64, 64, 3), np.uint8), (32, 32))
        print(refusal(2))
    """
    assert run_script(body) == "no refusal"


def test_a_plan_may_run_in_another_thread_than_its_team_was_opened_in() -> None:
    """Every Python thread gets a team of its own; the bits are the same."""
    net = Net()
    graph = net.graph(net.conv(net.input(5, 9, 9), 40, (3, 3), pads=(1, 1, 1, 1)))
    inputs, plan = random_inputs(graph, 2), plan_graph(graph, 2)
    expected = run_plan(plan, inputs)[0].tobytes()
    answers: list[bytes] = []
    workers = [
        threading.Thread(target=lambda: answers.append(run_plan(plan, inputs, 2)[0].tobytes())) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert answers == [expected] * 3


def test_more_threads_than_cpus_at_once_still_finish() -> None:
    """Four sessions of two threads on whatever CPUs there are: waiting threads give way."""
    body = """
        import threading
        sessions = [session(2) for _ in range(4)]
        done = []

        def work(one):
            for _ in range(200):
                one.run(None, {"x": np.ones((1, 3), np.float32)})
            done.append(one)

        workers = [threading.Thread(target=work, args=(one,)) for one in sessions]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(len(done))
    """
    assert run_script(body) == "4"
