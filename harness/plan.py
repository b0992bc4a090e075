"""A plan made, or read, checked and described. Called by `cli`; nothing of the model is compiled or run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend import BackendError, Roofs, plan_model, usable_threads

from .config import Precision
from .errors import BadInputError
from .progress import Progress


@dataclass(frozen=True)
class PlanConfig:
    """threads: None for all CPUs. isa: None for the best. precision: None for the model's. plan: a file to follow.
    json_path: where to write it.
    """

    model: Path
    max_batch: int
    threads: int | None
    isa: str | None
    precision: Precision | None
    plan: Path | None
    json_path: Path | None


def describe_plan(config: PlanConfig, progress: Progress) -> str:
    """The plan's table, with times expected from this machine's peak and bandwidth, measured now; writes the JSON.

    Raises: BadInputError for a model, setting or plan file that cannot be used, or a JSON file that cannot be written.
    """
    try:
        progress.phase("planning")
        plan = plan_model(
            config.model,
            precision=config.precision or "auto",
            max_batch=config.max_batch,
            isa=config.isa,
            plan=config.plan,
        )
        threads = usable_threads(config.threads, plan.machine)
        from backend import peak  # the plan has settled the process's ISA

        progress.phase("measuring this machine's peak and bandwidth")
        roofs = Roofs(
            peak.measure_peak_gflops(plan.machine, threads, plan.multiplied),
            peak.measure_bandwidth_gb_s(plan.machine, threads),
            threads,
        )
    except BackendError as error:
        raise BadInputError(" ".join(str(error).split())) from error
    text = plan.text(threads, roofs)
    if config.json_path is None:
        return text
    try:
        plan.record.write(config.json_path)
    except OSError as error:
        raise BadInputError(f"--json {config.json_path}: cannot be written: {error.strerror}") from error
    return f"{text}\nJSON: {config.json_path}"
