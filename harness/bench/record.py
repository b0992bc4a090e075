"""The JSON of a bench, and what it says about machine and software.

Written after every row, so that an interrupted bench keeps what it has. Schema "loadgen-numba bench 1":

    schema, complete    the name above; false until the last row is there
    started             UTC, ISO 8601
    model               {path, bytes, sha256}
    settings            {rounds, slice_s, seed, peers, precision, isa and plan file asked for, or null}
    machine             {processor, architecture, logical_cpus, physical_cores, memory_bytes, system, isa, best_isa,
                         l1d_bytes, l2_bytes, l3_bytes, sources of these}
    software            {versions by distribution, commit and uncommitted_changes or null where not in a git checkout}
    environment         variables OMP_*, GOMP_*, KMP_*, NUMBA_*: they change how threads wait and what is compiled
    load_average        over 1, 5, 15 minutes when the bench began
    rows                one per (batch, threads):
      batch, threads, cpus
      engines           by name: {settings, threads_started, images_per_s, images_per_s_summary, inference_ms,
                         cpu_share, output_difference, output_steps}
                         images_per_s: one per round; summary: median, minimum, low_quartile, high_quartile, maximum
                         inference_ms: per round, the median of a single inference
                         cpu_share: per round, CPU time got / (wall clock * CPUs); for one thread, less than 1 means
                         that other work took the CPU
                         output_difference: from our outputs, max |difference| / max |value|; output_steps: of a
                         quantised model, max |difference| / step; null for ours, and where nothing can be compared
      ratios            by peer: {ours_to_peer: one per round, summary}; pairs are within one round
      better_peer       the one against which the median ratio is lowest, or null
      idle_share_max    CPU time of the waiting engines during any one turn, as a share of the turn
      layers            null without --layers, else {peak_gflops, bandwidth_gb_s, profile_rounds, layers}; a layer:
                         {node, kernel, shape, seconds, operations, weight_bytes, activation_bytes, gflops, gb_s,
                         intensity, percent_of_peak, percent_of_roof}; see `layers.py`
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .. import provenance
from ..errors import BadInputError
from .config import DEFAULT_FOLDER, OURS, BenchConfig
from .layers import gb_s, gflops, intensity, percent_of_peak, percent_of_roof
from .messages import Layers
from .rounds import SEED, Row
from .statistics import Summary, better_peer, paired_ratios, summarize

if TYPE_CHECKING:
    from backend import Machine

SCHEMA: Final = "loadgen-numba bench 1"
Revision: TypeAlias = Mapping[str, str | bool | None]
"""commit, uncommitted_changes."""

_ENVIRONMENT: Final = ("OMP_", "GOMP_", "KMP_", "NUMBA_")


@dataclass(frozen=True)
class Bench:
    """A bench so far; complete: it has all its rows. revision: of the sources when it began."""

    config: BenchConfig
    started: datetime
    revision: Revision
    machine: Machine
    load_average: tuple[float, float, float]
    rows: tuple[Row, ...]
    complete: bool


def ratios(row: Row) -> dict[str, list[float]]:
    """Ours / peer per round, by peer."""
    ours = row.engines[OURS].rates
    return {name: paired_ratios(ours, engine.rates) for name, engine in row.engines.items() if name != OURS}


def ratio_summaries(row: Row) -> dict[str, Summary]:
    """Of `ratios`."""
    return {peer: summarize(values) for peer, values in ratios(row).items()}


def as_json(bench: Bench) -> dict[str, Any]:
    """The schema of the module's docstring."""
    config, machine = bench.config, bench.machine
    content = config.model.read_bytes()
    return {
        "schema": SCHEMA,
        "complete": bench.complete,
        "started": bench.started.isoformat(timespec="seconds"),
        "model": {
            "path": str(config.model),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        },
        "settings": {
            "precision": config.precision,
            "rounds": config.rounds,
            "slice_s": config.slice_s,
            "seed": SEED,
            "peers": list(config.peers),
            "isa": config.isa,
            "plan": None if config.plan is None else str(config.plan),
        },
        "machine": {
            **provenance.machine(),
            "isa": machine.isa.name,
            "best_isa": machine.best_isa.name,
            "l1d_bytes": machine.l1d_bytes,
            "l2_bytes": machine.l2_bytes,
            "l3_bytes": machine.l3_bytes,
            "sources": dict(machine.sources),
        },
        "software": {"versions": provenance.versions(), **bench.revision},
        "environment": thread_environment(),
        "load_average": list(bench.load_average),
        "rows": [_row(row) for row in bench.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    summaries = ratio_summaries(row)
    return {
        "batch": row.batch,
        "threads": row.threads,
        "cpus": list(row.cpus),
        "engines": {
            name: {
                "settings": dict(engine.settings),
                "threads_started": engine.pinned.thread_count,
                "images_per_s": engine.rates,
                "images_per_s_summary": asdict(summarize(engine.rates)),
                "inference_ms": [1e3 * seconds for seconds in engine.inference_s],
                "cpu_share": engine.cpu_shares,
                "output_difference": engine.difference and engine.difference.share,
                "output_steps": engine.difference and engine.difference.steps,
            }
            for name, engine in row.engines.items()
        },
        "ratios": {
            peer: {"ours_to_peer": values, "summary": asdict(summaries[peer])} for peer, values in ratios(row).items()
        },
        "better_peer": better_peer(summaries),
        "idle_share_max": max(row.idle_shares),
        "layers": None if row.layers is None else _layers(row.layers),
    }


def _layers(layers: Layers) -> dict[str, Any]:
    return {
        "peak_gflops": layers.peak_gflops,
        "bandwidth_gb_s": layers.bandwidth_gb_s,
        "profile_rounds": layers.profile_rounds,
        "layers": [
            {
                **asdict(layer),
                "gflops": gflops(layer),
                "gb_s": gb_s(layer),
                "intensity": intensity(layer),
                "percent_of_peak": percent_of_peak(layer, layers),
                "percent_of_roof": percent_of_roof(layer, layers),
            }
            for layer in layers.layers
        ],
    }


def thread_environment() -> dict[str, str]:
    """The variables that change how OpenMP and Numba behave."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)}


def source_revision(package: Path = Path(__file__).parent.parent) -> Revision:
    """Commit of the git checkout that the package's folder lies directly in, and whether files differ from it."""
    unknown = {"commit": None, "uncommitted_changes": None}
    try:
        top = _git(package, "rev-parse", "--show-toplevel")
        if top is None or Path(top) != package.resolve().parent:
            return unknown
        return {
            "commit": _git(package, "rev-parse", "HEAD"),
            "uncommitted_changes": bool(_git(package.parent, "status", "--porcelain")),
        }
    except FileNotFoundError:  # no git on this machine
        return unknown


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def json_path(config: BenchConfig, started: datetime) -> Path:
    """Where the JSON goes; its folder is made. Raises: BadInputError if nothing can be written there."""
    asked = "" if config.precision is None else f"-{config.precision}"
    name = f"{config.model.stem}{asked}-{started:%Y%m%dT%H%M%SZ}.json"
    path = config.json_path or DEFAULT_FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"--json {path}: cannot make its folder: {error.strerror}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise BadInputError(f"--json {path}: is a folder, or its folder cannot be written: choose another file")
    return path


def write_json(bench: Bench, path: Path) -> None:
    """Replaces the file as a whole: it is never half-written."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(as_json(bench), indent=1) + "\n", encoding="utf-8")
    part.replace(path)
