"""The process of one engine: opens it on its CPUs, then does what the parent asks, one message at a time.

Started by `rounds.py`; ends when the parent closes the pipe or dies. Imports nothing that imports Numba: see
`messages.py`.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, Final

import numpy as np

from .. import placement
from ..errors import BadInputError, RunFailedError
from .engines import open_engine
from .messages import EngineTask, MeasureLayers, Opened, Refused, RunSlice, Slice, random_inputs

_WARM_UP_SHARE: Final = 0.1
"""Of a slice's time, before it, untimed: wakes this engine's threads and brings its memory back into the caches."""


def main(task: EngineTask, parent: Connection) -> None:
    """Entry point of the process."""
    try:
        _serve(task, parent)
    except (EOFError, BrokenPipeError):
        return  # the parent is done with us, or gone
    except Exception as error:  # noqa: BLE001 - the process ends here: whatever it was becomes the parent's to tell
        bad_input = isinstance(error, BadInputError)
        name = "" if bad_input else f"{type(error).__name__}: "
        parent.send(Refused(name + " ".join(str(error).split()), traceback.format_exc(), bad_input))


def _serve(task: EngineTask, parent: Connection) -> None:
    before = placement.threads_of_process()
    placement.pin_this_thread(task.cpus)
    engine = open_engine(task)
    feed = random_inputs(engine.inputs, task.seed, task.input_ranges)
    infer = engine.bind(feed)
    outputs = tuple(np.array(output) for output in infer())
    pinned = placement.read_back(task.cpus, before)
    if pinned.stray_thread_count:
        raise RunFailedError(
            f"{pinned.stray_thread_count} of {pinned.thread_count} threads may leave CPUs {list(task.cpus)}: "
            "the comparison would not be on equal terms"
        )
    parent.send(Opened(engine.inputs, outputs, engine.settings(), pinned))
    gc.collect()
    gc.disable()
    while True:
        message = parent.recv()
        if isinstance(message, RunSlice):
            parent.send(run_slice(infer, task.batch, message.seconds))
        elif isinstance(message, MeasureLayers) and engine.measure_layers is not None:
            parent.send(engine.measure_layers(feed))
        else:
            raise TypeError(f"{task.engine} cannot answer {message}")


def run_slice(infer: Callable[[], Any], batch: int, seconds: float) -> Slice:
    """Inferences for at least `seconds` of wall clock, at least one, after an untimed warm-up of at least one."""
    begin = time.perf_counter()
    infer()
    while time.perf_counter() - begin < seconds * _WARM_UP_SHARE:
        infer()
    durations: list[float] = []
    cpu_begin = time.process_time()
    begin = now = time.perf_counter()
    while now - begin < seconds:
        start = now
        infer()
        now = time.perf_counter()
        durations.append(now - start)
    cpu_seconds = time.process_time() - cpu_begin
    return Slice(len(durations) * batch, now - begin, median(durations), cpu_seconds)
