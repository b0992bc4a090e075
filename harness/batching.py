"""How issued query samples reach the instances: two ways, chosen by scenario and number of instances.

`AnswerInside`: on LoadGen's own thread, inside the issue callback. For the streams with one instance: no other query
can arrive meanwhile, no second thread has to be woken, and none competes with the instance for its cores.

`AnswerByWorkers`: one Python thread per instance, fed through a queue. The issue callback only enqueues, as Server
needs (latency counts from the scheduled time), and kernels release the GIL.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from .config import STREAMS, Scenario
from .sut import Answerer

_Waiting: TypeAlias = tuple[int, int, int]
"""Response id, sample index, time of issue in ns."""

MakeAnswerer: TypeAlias = Callable[[], Answerer]
"""Opens an instance on the thread that will run it."""


class Dispatcher(Protocol):
    """Takes LoadGen's queries."""

    def issue(self, response_ids: list[int], indices: list[int]) -> None:
        """LoadGen's issue callback; never raises."""

    def close(self) -> None:
        """End all threads; every issued sample must have been answered."""


def make_dispatcher(scenario: Scenario, instances: Sequence[MakeAnswerer], max_batch: int) -> Dispatcher:
    """Open all instances, one after the other. Raises: what opening an instance raises."""
    if scenario in STREAMS and len(instances) == 1:
        return AnswerInside(instances[0](), max_batch)
    return AnswerByWorkers(instances, max_batch)


class AnswerInside:
    """Answers a query before its issue callback returns."""

    def __init__(self, answerer: Answerer, max_batch: int) -> None:
        self._answerer = answerer
        self._max_batch = max_batch

    def issue(self, response_ids: list[int], indices: list[int]) -> None:
        """Answer in chunks of at most max_batch samples."""
        issued_ns = time.perf_counter_ns()
        for start in range(0, len(indices), self._max_batch):
            end = start + self._max_batch
            self._answerer.answer(response_ids[start:end], indices[start:end])
        self._answerer.record_response(issued_ns)
        self._answerer.record_service(issued_ns)

    def close(self) -> None:
        """Nothing to end: there is no thread."""


class AnswerByWorkers:
    """Workers share one queue; a free worker takes its share of what is waiting, at most max_batch samples.

    Its share is the waiting samples divided by the number of workers: taking them all would let one
    core work through a batch while others idle.
    """

    def __init__(self, instances: Sequence[MakeAnswerer], max_batch: int) -> None:
        self._max_batch = max_batch
        self._worker_count = len(instances)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        for number, make_answerer in enumerate(instances):
            opened: Future[None] = Future()
            thread = threading.Thread(
                target=self._work, args=(make_answerer, opened), name=f"instance-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
            opened.result()

    def issue(self, response_ids: list[int], indices: list[int]) -> None:
        """Enqueue only."""
        issued_ns = time.perf_counter_ns()
        for response_id, index in zip(response_ids, indices, strict=True):
            self._waiting.put((response_id, index, issued_ns))

    def close(self) -> None:
        """Let every worker finish and end."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, make_answerer: MakeAnswerer, opened: Future[None]) -> None:
        try:
            answerer = make_answerer()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits in __init__, which raises it
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (first := self._waiting.get()) is not None:
            begin_ns = time.perf_counter_ns()
            batch = [first, *self._take_share()]
            answerer.answer([response_id for response_id, _, _ in batch], [index for _, index, _ in batch])
            for issued_ns, count in Counter(issued_ns for _, _, issued_ns in batch).items():
                answerer.record_response(issued_ns, count)
            answerer.record_service(begin_ns)

    def _take_share(self) -> list[_Waiting]:
        """What a worker takes besides the sample it woke up for."""
        share = min(self._max_batch, -(-(self._waiting.qsize() + 1) // self._worker_count))
        taken: list[_Waiting] = []
        while len(taken) < share - 1:
            try:
                sample = self._waiting.get_nowait()
            except queue.Empty:
                break
            if sample is None:
                self._waiting.put(None)
                break
            taken.append(sample)
        return taken
