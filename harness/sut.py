"""The system under test: an `Answerer` per instance, which turns query samples into completed responses.

A query that was issued is always completed, otherwise LoadGen waits for ever. If its inference failed, it is
completed with an empty response, the failure is reported once, and the run is failed: no empty answer is ever scored.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TypeAlias

from . import loadgen, responses
from .backends.protocol import Runner
from .messages import Counters
from .qsl import SampleLibrary
from .timings import RESPONSE, SERVICE, Recorder

ReportFailure: TypeAlias = Callable[[str, str], None]
"""Takes the error in one line and its traceback."""


class Failure:
    """The first thing that went wrong while LoadGen was running; later ones are consequences and are not reported."""

    def __init__(self, report: ReportFailure) -> None:
        self._report = report
        self._lock = threading.Lock()
        self.happened = False

    def record(self, error: Exception) -> None:
        """Report the first error; thread-safe."""
        with self._lock:
            if not self.happened:
                self.happened = True
                text = " ".join(f"{type(error).__name__}: {error}".split())
                self._report(text, "".join(traceback.format_exception(error)))


class Answerer:
    """One instance at work: batch of samples in, completed responses out."""

    def __init__(
        self,
        runner: Runner,
        library: SampleLibrary,
        failure: Failure,
        counters: Counters,
        slot: int,
        recorder: Recorder,
    ) -> None:
        self._runner = runner
        self._library = library
        self._failure = failure
        self._counters = counters
        self._slot = slot
        self._recorder = recorder

    def answer(self, response_ids: Sequence[int], indices: Sequence[int]) -> None:
        """Infer one batch and complete it. Never raises."""
        payload = None
        if not self._failure.happened:
            try:
                classes = self._runner.predict(self._library.gather(indices))
                if classes.shape != (len(indices),):
                    raise ValueError(
                        f"the backend answered {len(indices)} samples with an array of shape {classes.shape}"
                    )
                payload = responses.encode(classes)
            except Exception as error:  # noqa: BLE001 - any exception leaving a LoadGen callback crashes the process
                self._failure.record(error)
        if payload is None:
            loadgen.complete_empty(response_ids)
        else:
            loadgen.complete(response_ids, payload)
        self._counters[self._slot] += len(response_ids)

    def record_service(self, begin_ns: int) -> None:
        """Note that the instance was busy with a batch since then, by `time.perf_counter_ns`, and is free now."""
        self._recorder.record(SERVICE, time.perf_counter_ns() - begin_ns)

    def record_response(self, issued_ns: int, count: int = 1) -> None:
        """Note that queries issued then, by `time.perf_counter_ns`, have their answer now."""
        self._recorder.record(RESPONSE, time.perf_counter_ns() - issued_ns, count)


def guarded_load(library: SampleLibrary, failure: Failure) -> Callable[[list[int]], None]:
    """LoadGen's load callback: an exception becomes the run's failure instead of leaving the callback."""

    def load(indices: list[int]) -> None:
        try:
            library.load(indices)
        except Exception as error:  # noqa: BLE001 - any exception leaving a LoadGen callback crashes the process
            failure.record(error)

    return load
