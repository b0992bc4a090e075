"""The parent's side of one LoadGen test: starts the child, watches it, ends it.

The parent owns signals. LoadGen cannot abort a test, so a signal or a failed inference ends the child's process; what
it has written so far stays where it is, and the caller marks it.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final

from . import child, live
from .errors import BadInputError, RunFailedError, RunInterruptedError
from .history import History
from .messages import Ended, Failed, FromChild, Go, Opened, Refused, Task
from .progress import UPDATE_INTERVAL_S, Progress
from .timings import RESPONSE, SERVICE, SLOTS_PER_INSTANCE, Durations

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT_GRACE_S: Final = 5.0
"""How long a child that has said its last word may take to exit."""


@dataclass(frozen=True)
class Watch:
    """What the progress line is made of. goal: None if it is not known, as in a search of many trials."""

    title: str
    goal: live.Goal | None


@dataclass(frozen=True)
class Supervised:
    """A test that has ended. responses, service: durations of its queries and of its inferences."""

    ended: Ended
    history: History
    responses: Durations
    service: Durations


def supervise(task: Task, begin: Callable[[Opened], Watch], progress: Progress) -> Supervised:
    """Run a test to its end in a process of its own.

    begin: called when the child is ready, before the test starts; makes the log folder.
    Raises: BadInputError (nothing was begun), RunFailedError, RunInterruptedError (`begin` may have been called).
    """
    context = multiprocessing.get_context("spawn")
    counters = context.RawArray("q", task.placement.instances)
    timings = context.RawArray("q", task.placement.instances * SLOTS_PER_INSTANCE)
    ours, theirs = context.Pipe()
    process = context.Process(target=child.main, args=(task, counters, timings, theirs), daemon=True)
    with _signals_as_errors(), ours:
        try:
            progress.phase(f"{task.config.scenario} {task.config.mode}: opening {task.config.backend}, warming up")
            start_without_sigint(process)
            theirs.close()
            opened = _receive(ours, process, lambda: None)
            if not isinstance(opened, Opened):
                raise _as_error(opened, process)
            watch = begin(opened)
            history = History(watch.goal)
            ours.send(Go())
            clock = _Clock()

            def look() -> str:
                completed = sum(counters)
                responses, service = Durations.of(timings, RESPONSE), Durations.of(timings, SERVICE)
                seen = live.Seen(clock.read(running=completed > 0), completed, responses, service)
                told = history.add(seen)
                if watch.goal is None:
                    return f"{watch.title}: {completed} samples, {seen.elapsed_s:.0f} s"
                return f"{watch.title}: {live.line(watch.goal, seen, told)}"

            last = _receive(ours, process, lambda: progress.update(look()))
            if not isinstance(last, Ended):
                raise _as_error(last, process)
            look()
            process.join(_EXIT_GRACE_S)
            return Supervised(last, history, Durations.of(timings, RESPONSE), Durations.of(timings, SERVICE))
        finally:
            if process.pid is not None:  # else it was never started, and cannot be joined
                process.kill()
                process.join()


def start_without_sigint(process: BaseProcess) -> None:
    """A terminal sends Ctrl-C to parent and child; the child is born with it blocked, so that only the parent acts.

    A Ctrl-C meanwhile acts when the child has started: in the middle of that it would leave a child half-fed, and a
    signal can come in by any thread, so that blocking it in this one does not keep it out.
    """
    resource_tracker.ensure_running()  # started by the first spawn otherwise, and then it unblocks SIGINT too early
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: arrived.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, handler)
    if arrived:
        signal.raise_signal(signal.SIGINT)


def _receive(ours: connection.Connection, process: BaseProcess, show: Callable[[], None]) -> FromChild | None:
    """The child's next message; None if it died without one."""
    while True:
        ready = connection.wait([ours, process.sentinel], timeout=UPDATE_INTERVAL_S)
        if ours in ready or (ready and ours.poll()):
            try:
                message: FromChild = ours.recv()
            except EOFError:
                return None
            return message
        if ready:
            return None
        show()


def _as_error(message: FromChild | None, process: BaseProcess) -> Exception:
    """What went wrong, as an exception; the child's traceback is its cause."""
    if isinstance(message, Refused | Failed):
        error = (BadInputError if isinstance(message, Refused) else RunFailedError)(message.text)
        error.__cause__ = ChildTraceback(message.traceback)
        return error
    process.join(_EXIT_GRACE_S)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return RunFailedError(f"the LoadGen process was ended by {name}{hint}")
    return RunFailedError(f"the LoadGen process ended by itself with exit status {code}")


class ChildTraceback(Exception):  # noqa: N818 - carries a text, as in concurrent.futures
    """The traceback of an exception in the child, shown with --debug as the cause."""

    def __init__(self, text: str) -> None:
        super().__init__("\n" + text)


@contextmanager
def _signals_as_errors() -> Iterator[None]:
    """Within the block the first of SIGINT, SIGTERM, SIGHUP raises RunInterruptedError; later ones are ignored."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise RunInterruptedError(f"interrupted by {signal.Signals(number).name}", number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Clock:
    """Seconds since the test began, which is when the first sample is completed but for one look at it.

    Before that LoadGen has samples loaded, which may take long and says nothing of the test's rate.
    """

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def read(self, *, running: bool) -> float:
        """running: whether a sample has been completed."""
        now_s = time.monotonic()
        if not running:
            self._began_s = now_s
        return now_s - self._began_s
