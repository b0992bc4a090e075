"""What a report says. The JSON is these records, field by field, under "schema": "loadgen-numba report 1".

Fields keep their names and units; one that changes its meaning changes the number. Units are in the names: `_ms`,
`_ns`, `_s`; a share is of 1; a field `unit` names the unit of the numbers beside it. Absent values are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

SCHEMA: Final = "loadgen-numba report 1"

Status: TypeAlias = Literal["finished", "failed", "interrupted", "unfinished"]
"""unfinished: run.json says that the test is running; so it is, or it was killed."""
Better: TypeAlias = Literal["lower", "higher"]


@dataclass(frozen=True)
class Interval:
    """low to high holds the true value with this confidence; method: how it was found, a key of `intervals.METHODS`."""

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Quantity:
    """A measured value. interval: None where one run cannot tell how sure it is."""

    name: str
    value: float
    unit: str
    better: Better
    interval: Interval | None


@dataclass(frozen=True)
class Latency:
    """LoadGen's latencies, of queries, from its logs.

    percentile: the share that counts in the scenario; interval: of percentile_ms. early_stopping_ms: what streams
    report for it, a bound that holds with 99 % confidence. bound_ms, late_queries, allowed_late_queries: Server's; the
    last is early stopping's. loadgen_ms: everything LoadGen states, by its own names. early_stopping: its words.
    """

    percentile: float
    percentile_ms: float | None
    interval: Interval | None
    early_stopping_ms: float | None
    bound_ms: float | None
    late_queries: int | None
    allowed_late_queries: int | None
    loadgen_ms: Mapping[str, float]
    early_stopping: str


@dataclass(frozen=True)
class Distribution:
    """A histogram by the harness's clock: counts[i] lie from edges_ms[i] to edges_ms[i + 1].

    of: "query", from issue to answer; in Offline "batch", how long one kept its instance busy.
    """

    of: Literal["query", "batch"]
    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """Accuracy of an accuracy run."""

    percent: float
    good: int
    total: int


@dataclass(frozen=True)
class Setting:
    """One of LoadGen's settings. estimated: nobody gave it, it was measured before the test."""

    name: str
    official: int | float | bool | str
    effective: int | float | bool | str
    estimated: bool


@dataclass(frozen=True)
class Instance:
    """Where an inference session ran: its logical CPUs, its threads, and those found elsewhere."""

    cpus: tuple[int, ...]
    threads: int
    stray_threads: int


@dataclass(frozen=True)
class Provenance:
    """Where and with what a run was made, as run.json has it. engine: what the backend says of itself."""

    versions: Mapping[str, str]
    loadgen: str | None
    machine: Mapping[str, str | int | None]
    engine: Mapping[str, str | int | float]
    plan_sha256: str | None
    instances: tuple[Instance, ...]
    max_batch: int
    images: int
    settings: tuple[Setting, ...]
    user_conf: str


@dataclass(frozen=True)
class Run:
    """One LoadGen test. number: what tables and plots call it.

    mode: performance, accuracy, find_peak, tuning, or its compliance test. why: of a status that is not "finished".
    verdict: LoadGen's, with its reasons; advice: what to change.
    official: nothing is recorded that keeps it from submission; deviations: what is. result: LoadGen's metric.
    compared: what runs of one scenario are compared by, above 0; latency, distribution: of performance tests.
    """

    number: int
    folder: str
    scenario: str
    mode: str
    backend: str
    model: str | None
    precision: str | None
    status: Status
    why: str | None
    started_utc: str
    ended_utc: str | None
    verdict: str | None
    invalid_reasons: tuple[str, ...]
    advice: tuple[str, ...]
    official: bool
    deviations: tuple[str, ...]
    warnings: tuple[str, ...]
    result: Quantity | None
    compared: Quantity | None
    query_count: int | None
    peak_qps: float | None
    latency: Latency | None
    distribution: Distribution | None
    accuracy: Scored | None
    provenance: Provenance


@dataclass(frozen=True)
class RunRatio:
    """A run's compared quantity over that of its scenario's first run. differences: what else is not equal."""

    run: int
    baseline: int
    name: str
    better: Better
    ratio: float
    interval: Interval | None
    differences: tuple[str, ...]


@dataclass(frozen=True)
class BackendMean:
    """Repeats: runs of a scenario between which nothing that was recorded differs.

    mean: geometric; ratio: of it to that of the first repeats, from which differences tell what else is not equal.
    """

    backend: str
    model: str | None
    precision: str | None
    runs: tuple[int, ...]
    mean: Quantity
    ratio: float
    ratio_interval: Interval | None
    differences: tuple[str, ...]


@dataclass(frozen=True)
class NotCompared:
    """A performance or tuning run that is in no comparison, and why."""

    run: int
    why: str


@dataclass(frozen=True)
class Comparison:
    """The VALID performance runs of one scenario; there are at least two."""

    scenario: str
    ratios: tuple[RunRatio, ...]
    backends: tuple[BackendMean, ...]


@dataclass(frozen=True)
class Layer:
    """As `bench` writes it. intensity: operations per byte."""

    node: str
    kernel: str
    shape: str
    seconds: float
    operations: int
    total_bytes: int
    gflops: float
    intensity: float
    percent_of_roof: float


@dataclass(frozen=True)
class Roofline:
    """Layers of our engine under two measured roofs: min(peak_gflops, intensity * bandwidth_gb_s)."""

    peak_gflops: float
    bandwidth_gb_s: float
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class EngineRate:
    """images/s of an engine: the median over rounds. ratio: of ours to it, the median over pairs; None for ours."""

    engine: str
    images_per_s: Quantity
    ratio: float | None
    ratio_interval: Interval | None


@dataclass(frozen=True)
class BenchRow:
    """One batch size and number of threads."""

    batch: int
    threads: int
    rounds: int
    engines: tuple[EngineRate, ...]
    roofline: Roofline | None


@dataclass(frozen=True)
class Bench:
    """One JSON file of `bench`."""

    file: str
    model: str
    precision: str
    started: str
    complete: bool
    rows: tuple[BenchRow, ...]
    versions: Mapping[str, str]
    commit: str | None
    machine: Mapping[str, str | int | None]


@dataclass(frozen=True)
class Report:
    """Everything. made_utc: when. left_out: earlier runs, which a later one of the same folder has replaced."""

    made_utc: str
    version: str
    runs: tuple[Run, ...]
    comparisons: tuple[Comparison, ...]
    not_compared: tuple[NotCompared, ...]
    benches: tuple[Bench, ...]
    left_out: tuple[str, ...]
    intervals: Mapping[str, str]
    """What the methods of intervals mean, for those that occur."""
