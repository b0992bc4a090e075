"""What the process that runs LoadGen and its parent tell each other. Plain picklable records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from .config import RunConfig
from .dataset import Dataset
from .placement import PinnedInstance, Placement


class Counters(Protocol):
    """Samples completed by each instance; shared memory, of which every slot has one writer."""

    def __getitem__(self, slot: int) -> int: ...

    def __setitem__(self, slot: int, value: int) -> None: ...


@dataclass(frozen=True)
class Task:
    """Everything the child needs. user_conf: the file to read. log_folder: exists once the parent says Go."""

    config: RunConfig
    dataset: Dataset
    placement: Placement
    max_batch: int
    user_conf: Path
    log_folder: Path


@dataclass(frozen=True)
class Opened:
    """Child: all instances are open and warm, settings are known; waiting for Go."""

    backend: dict[str, str | int | float]
    instances: tuple[PinnedInstance, ...]
    official_settings: dict[str, int | float | bool | str]
    effective_settings: dict[str, int | float | bool | str]
    estimated_settings: tuple[str, ...]
    """Names of those effective settings that nobody gave and that were measured instead."""


@dataclass(frozen=True)
class Go:
    """Parent: the log folder is there, start the test."""


@dataclass(frozen=True)
class Refused:
    """Child: the input cannot be run; nothing has been written."""

    text: str
    traceback: str


@dataclass(frozen=True)
class Failed:
    """Child: something broke; if the test had begun, every query is being answered empty until the parent ends it."""

    text: str
    traceback: str


@dataclass(frozen=True)
class Ended:
    """Child: LoadGen has returned and closed its logs. peak_memory_bytes: resident, of the child's whole life."""

    peak_memory_bytes: int


FromChild: TypeAlias = Opened | Refused | Failed | Ended
