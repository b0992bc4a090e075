"""A bench from its settings to its record: the way in, called by `cli`."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from backend import BackendError, detect, read_quantized_ends

from ..errors import BadInputError
from ..placement import available_cores
from ..progress import Progress
from .config import BenchConfig
from .record import Bench, json_path, source_revision, write_json
from .rounds import measure_row


def run_bench(config: BenchConfig, progress: Progress) -> tuple[Bench, Path]:
    """Measure all rows; the result, and where its JSON is.

    The CPUs are the first of `placement.available_cores`: fast cores, and one of each before any siblings.

    Raises: BadInputError, RunFailedError: see `rounds.measure_row`; rows measured before that are in the JSON.
    """
    try:
        machine = detect(config.isa)
        ends = read_quantized_ends(config.model)
    except BackendError as error:
        raise BadInputError(" ".join(str(error).split())) from error
    cpus = available_cores(machine).order
    if max(config.threads) > len(cpus):
        raise BadInputError(
            f"--threads {max(config.threads)}: this process may use {len(cpus)} CPUs, ask for at most {len(cpus)}"
        )
    started = datetime.now(timezone.utc)
    path = json_path(config, started)
    bench = Bench(config, started, source_revision(), machine, os.getloadavg(), rows=(), complete=False)
    shapes = [(batch, threads) for batch in config.batches for threads in config.threads]
    for batch, threads in shapes:
        row = measure_row(config, ends, batch, threads, tuple(sorted(cpus[:threads])), progress)
        bench = replace(bench, rows=(*bench.rows, row))
        bench = replace(bench, complete=len(bench.rows) == len(shapes))
        write_json(bench, path)
    return bench, path
