"""One row of a bench: all engines open at once, taking turns on the same CPUs. The parent's side of `worker.py`."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Final, TypeVar

import psutil

from ..errors import BadInputError, RunFailedError
from ..placement import PinnedInstance
from ..progress import Progress
from ..supervisor import ChildTraceback, start_without_sigint
from . import worker
from .compare import Difference, check_agreement
from .config import OURS, BenchConfig, EngineName
from .messages import EngineTask, Layers, MeasureLayers, Opened, Refused, RunSlice, Settings, Slice
from .statistics import turn_order

if TYPE_CHECKING:
    from backend import QuantizedEnds

SEED: Final = 20240229
"""Of the input that all engines get."""

_SETTLE_S: Final = 0.05
"""Between two turns: time for the worker threads of the last engine to stop spinning and sleep."""

_EXIT_GRACE_S: Final = 5.0

_Reply = TypeVar("_Reply")


@dataclass(frozen=True)
class EngineRow:
    """One engine in one row: a slice per round. difference: of its outputs from ours, None for ours."""

    settings: Settings
    pinned: PinnedInstance
    slices: tuple[Slice, ...]
    difference: Difference | None

    @property
    def rates(self) -> list[float]:
        """images/s per round."""
        return [piece.images / piece.seconds for piece in self.slices]

    @property
    def inference_s(self) -> list[float]:
        """Median seconds of an inference per round; hardly moved by other work that takes the CPU now and then."""
        return [piece.inference_s for piece in self.slices]

    @property
    def cpu_shares(self) -> list[float]:
        """CPU time got per round, as a share of all the time of all CPUs of the row; spinning counts as work."""
        return [piece.cpu_seconds / (piece.seconds * len(self.pinned.cores)) for piece in self.slices]


@dataclass(frozen=True)
class Row:
    """One (batch, threads). idle_shares: per turn, CPU time of the engines that waited / time of the turn."""

    batch: int
    threads: int
    cpus: tuple[int, ...]
    engines: Mapping[EngineName, EngineRow]
    idle_shares: tuple[float, ...]
    layers: Layers | None


class _EngineProcess:
    """An engine's process as the parent talks to it."""

    def __init__(self, name: EngineName, process: BaseProcess, pipe: Connection) -> None:
        self.name = name
        self._process = process
        self._pipe = pipe
        self._usage = psutil.Process(process.pid)

    def cpu_seconds(self) -> float:
        """CPU time that all its threads have had so far; the system counts in hundredths."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)

    def ask(self, message: RunSlice | MeasureLayers, reply: type[_Reply]) -> _Reply:
        """Raises: as `receive` does."""
        with suppress(BrokenPipeError):  # it has died: `receive` tells what it said last, or its exit status
            self._pipe.send(message)
        return self.receive(reply)

    def receive(self, expected: type[_Reply]) -> _Reply:
        """The next message. Raises: BadInputError or RunFailedError if the engine cannot go on, or died."""
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_EXIT_GRACE_S)
            status = self._process.exitcode
            raise RunFailedError(f"the process of {self.name} ended with exit status {status}") from None
        if isinstance(message, Refused):
            kind = BadInputError if message.bad_input else RunFailedError
            raise kind(f"{self.name}: {message.text}") from ChildTraceback(message.traceback)
        if not isinstance(message, expected):
            raise TypeError(f"{self.name} answered {type(message).__name__} in place of {expected.__name__}")
        return message


@contextmanager
def _started(task: EngineTask) -> Iterator[_EngineProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=worker.main, args=(task, theirs), daemon=True)
    try:
        start_without_sigint(process)
        theirs.close()
        yield _EngineProcess(task.engine, process, ours)
    finally:
        ours.close()
        if process.pid is not None:
            process.kill()  # it has nothing to lose, and may be in the middle of a slice when an error ends the bench
            process.join()


def measure_row(
    config: BenchConfig,
    ends: QuantizedEnds | None,
    batch: int,
    threads: int,
    cpus: tuple[int, ...],
    progress: Progress,
) -> Row:
    """Open all engines, compare their outputs, let them take turns. ends: of a quantised model, else None.

    Raises: BadInputError, RunFailedError: an engine cannot run the model, broke, or computes something else.
    """
    title = f"batch {batch}, threads {threads}"
    with ExitStack() as stack:
        engines: list[_EngineProcess] = []
        opened: list[Opened] = []
        differences: list[Difference | None] = []
        ranges = {} if ends is None else ends.input_ranges
        for name in config.engines:
            progress.phase(f"{title}: opening {name}")
            task = EngineTask(
                name, config.model, config.precision, batch, threads, cpus, config.isa, SEED, config.plan, ranges
            )
            engines.append(stack.enter_context(_started(task)))
            opened.append(engines[-1].receive(Opened))
            differences.append(None if name == OURS else _check(opened[0], opened[-1], name, ends))

        slices: list[list[Slice]] = [[] for _ in engines]
        idle_shares: list[float] = []
        for round_index in range(config.rounds):
            progress.update(f"{title}: round {round_index + 1} of {config.rounds}")
            for turn in turn_order(len(engines), round_index):
                time.sleep(_SETTLE_S)
                piece, idle_share = _take_turn(engines, turn, config.slice_s)
                slices[turn].append(piece)
                idle_shares.append(idle_share)

        layers = None
        if config.layers:
            progress.phase(f"{title}: layers, and the machine's peak and bandwidth")
            layers = engines[0].ask(MeasureLayers(), Layers)
    return Row(
        batch=batch,
        threads=threads,
        cpus=cpus,
        engines={
            engine.name: EngineRow(state.settings, state.pinned, tuple(pieces), difference)
            for engine, state, pieces, difference in zip(engines, opened, slices, differences, strict=True)
        },
        idle_shares=tuple(idle_shares),
        layers=layers,
    )


def _check(ours: Opened, peer: Opened, name: EngineName, ends: QuantizedEnds | None) -> Difference:
    if ours.inputs != peer.inputs:
        raise RunFailedError(f"inputs differ: ours are {ours.inputs}, {name}'s {peer.inputs}")
    return check_agreement(ours.outputs, peer.outputs, name, str(ours.settings["precision"]), ends)


def _take_turn(engines: list[_EngineProcess], turn: int, seconds: float) -> tuple[Slice, float]:
    """What the engine did, and how much CPU time the others took meanwhile, as a share of the wall clock."""
    waiting = [engine for index, engine in enumerate(engines) if index != turn]
    before = sum(engine.cpu_seconds() for engine in waiting)
    begin = time.perf_counter()
    piece = engines[turn].ask(RunSlice(seconds), Slice)
    elapsed = time.perf_counter() - begin
    return piece, (sum(engine.cpu_seconds() for engine in waiting) - before) / elapsed
