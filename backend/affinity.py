"""Binding threads to CPUs, and reading back what the system made of it.

May import: errors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .errors import MachineError


def pin_threads(tids: Sequence[int], cpus: Sequence[int]) -> list[set[int]]:
    """Binds each thread to the CPU beside it; the masks read back from the system. tids: 0 is the calling thread.

    Raises: MachineError if there are too few CPUs, one that the process may not use, or a mask did not take effect.
    """
    if len(set(cpus[: len(tids)])) < len(tids):
        raise MachineError(f"{len(tids)} threads cannot be pinned to the CPUs {list(cpus)}: one each is needed")
    for tid, cpu in zip(tids, cpus, strict=False):
        try:
            os.sched_setaffinity(tid, {cpu})
        except (OSError, ValueError) as error:
            raise MachineError(f"thread {tid} cannot be pinned to CPU {cpu}: {error}") from error
    masks = [set(os.sched_getaffinity(tid)) for tid in tids]
    for tid, cpu, mask in zip(tids, cpus, masks, strict=False):
        if mask != {cpu}:
            raise MachineError(f"thread {tid} was pinned to CPU {cpu}, but the system reports {sorted(mask)}")
    return masks
