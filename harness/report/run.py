"""From paths to report.html, report.json and report.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from ..errors import BadInputError, RunFailedError
from ..run_folder import utc_now, write_atomically
from . import page
from .benches import read_bench
from .comparison import compare
from .intervals import METHODS
from .records import SCHEMA, Bench, Comparison, Interval, Report, Run
from .runs import read_run
from .sources import find_sources

PAGE: Final = "report.html"
JSON: Final = "report.json"
CSV: Final = "report.csv"


def make_report(paths: Sequence[Path], output: Path) -> Report:
    """Read all that the paths hold, and write the three files to the folder `output`, in place of an earlier report.

    Raises: BadInputError if something cannot be read, or if `output` holds anything else, and nothing is changed then;
    or if the files cannot be written.
    """
    _check_output(output)
    sources = find_sources(paths)
    runs = tuple(read_run(number, source) for number, source in enumerate(sources.runs, start=1))
    benches = tuple(read_bench(path) for path in sources.benches)
    comparisons, not_compared = compare(runs)
    report = Report(
        made_utc=utc_now(),
        version=metadata.version("loadgen-numba"),
        runs=runs,
        comparisons=comparisons,
        not_compared=not_compared,
        benches=benches,
        left_out=tuple(map(str, sources.left_out)),
        intervals=_explained(runs, comparisons, benches),
    )
    _write(output, {PAGE: page.render(report), JSON: as_json(report), CSV: as_csv(runs)})
    return report


def as_json(report: Report) -> str:
    """The records, the schema's name first. Raises: BadInputError if a number is not finite, which JSON has not."""
    try:
        return json.dumps({"schema": SCHEMA, **asdict(report)}, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise BadInputError(f"a run or bench holds a number that is not finite ({error}): make it again") from error


def as_csv(runs: Sequence[Run]) -> str:
    """One row per run; lists are joined by semicolons, absent values are empty, texts like formulas get a leading '."""
    rows = [_row(run) for run in runs]
    written = io.StringIO()
    # Texts in quotes: without them a carriage return in a name would be written as it is, and end the row.
    writer = csv.DictWriter(
        written, list(rows[0]) if rows else ["run"], lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return written.getvalue()


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""With which a cell begins that spreadsheets take for a formula (OWASP, CSV injection)."""


def _cell(value: Any) -> Any:
    """Text from files is shown by a spreadsheet, never computed: what it would compute gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _row(run: Run) -> dict[str, Any]:
    latency, compared = run.latency, run.compared
    interval = None if compared is None else compared.interval
    within = None if latency is None else latency.interval
    return {
        "run": run.number,
        "folder": run.folder,
        "scenario": run.scenario,
        "mode": run.mode,
        "backend": run.backend,
        "precision": run.precision,
        "model": run.model,
        "status": run.status,
        "why": run.why,
        "verdict": run.verdict,
        "invalid_reasons": "; ".join(run.invalid_reasons),
        "official": str(run.official).lower(),
        "deviations": "; ".join(run.deviations),
        "result": None if run.result is None else run.result.value,
        "result_name": None if run.result is None else run.result.name,
        "result_unit": None if run.result is None else run.result.unit,
        "compared": None if compared is None else compared.value,
        "compared_name": None if compared is None else compared.name,
        "compared_unit": None if compared is None else compared.unit,
        "compared_low": None if interval is None else interval.low,
        "compared_high": None if interval is None else interval.high,
        "interval_method": None if interval is None else interval.method,
        "query_count": run.query_count,
        "percentile": None if latency is None else latency.percentile,
        "percentile_ms": None if latency is None else latency.percentile_ms,
        "percentile_low_ms": None if within is None else within.low,
        "percentile_high_ms": None if within is None else within.high,
        "early_stopping_ms": None if latency is None else latency.early_stopping_ms,
        "bound_ms": None if latency is None else latency.bound_ms,
        "late_queries": None if latency is None else latency.late_queries,
        "allowed_late_queries": None if latency is None else latency.allowed_late_queries,
        "accuracy_percent": None if run.accuracy is None else run.accuracy.percent,
        "accuracy_total": None if run.accuracy is None else run.accuracy.total,
        "started_utc": run.started_utc,
        "ended_utc": run.ended_utc,
        "processor": run.provenance.machine.get("processor"),
        "instances": len(run.provenance.instances),
        "threads": sum(instance.threads for instance in run.provenance.instances),
        "max_batch": run.provenance.max_batch,
        "plan_sha256": run.provenance.plan_sha256,
    }


def _explained(runs: Sequence[Run], comparisons: Sequence[Comparison], benches: Sequence[Bench]) -> Mapping[str, str]:
    """METHODS, as far as they occur."""
    used = {interval.method for interval in _intervals(runs, comparisons, benches) if interval is not None}
    return {method: meaning for method, meaning in METHODS.items() if method in used}


def _intervals(
    runs: Sequence[Run], comparisons: Sequence[Comparison], benches: Sequence[Bench]
) -> Iterator[Interval | None]:
    for run in runs:
        yield run.compared.interval if run.compared else None
        yield run.latency.interval if run.latency else None
    for comparison in comparisons:
        yield from (ratio.interval for ratio in comparison.ratios)
        for backend in comparison.backends:
            yield from (backend.mean.interval, backend.ratio_interval)
    for row in (row for bench in benches for row in bench.rows):
        for engine in row.engines:
            yield from (engine.images_per_s.interval, engine.ratio_interval)


def _check_output(output: Path) -> None:
    if output.is_dir():
        strange = sorted(path.name for path in output.iterdir() if path.name not in (PAGE, JSON, CSV))
        if strange:
            raise BadInputError(f"--output {output} holds {strange[0]!r}, which is no report's: choose another folder")
    elif output.exists() or output.is_symlink():
        raise BadInputError(f"--output {output} is not a folder: choose another")


def _write(output: Path, files: Mapping[str, str]) -> None:
    """Each file is the earlier one or the whole new one, whatever happens; nothing else in `output` is touched.

    Raises: BadInputError.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(output / name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    except (OSError, RunFailedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(f"cannot write the report to {output}: {reason}; choose another --output") from error
