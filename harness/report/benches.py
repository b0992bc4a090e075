"""A JSON file of `bench` -> what a report says of it. The file's schema is documented in `harness/bench/record.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..bench.config import OURS
from ..bench.record import SCHEMA
from ..errors import BadInputError
from .intervals import ROUNDS, of_quantile
from .parsing import mapping, not_negative, parsing, positive, text_or_none
from .records import Bench, BenchRow, EngineRate, Layer, Quantity, Roofline


def read_bench(path: Path) -> Bench:
    """Raises: BadInputError if the file is damaged or of another schema."""
    with parsing(path):
        content = mapping(json.loads(path.read_text(encoding="utf-8")), "a bench")
        if content["schema"] != SCHEMA:
            raise BadInputError(f"{path} has schema {content['schema']!r}, this version knows {SCHEMA!r}")
        if not content["rows"]:
            raise ValueError("it has no row")
        software = mapping(content["software"], "software")
        model, started = Path(content["model"]["path"]).name, str(content["started"])
        # settings.precision is what was asked for; nothing was where the engine took the model's own.
        precision = str(content["rows"][0]["engines"][OURS]["settings"]["precision"])
        complete, commit = bool(content["complete"]), text_or_none(software["commit"])
        versions = {str(name): str(version) for name, version in mapping(software["versions"], "versions").items()}
        machine = {k: v for k, v in mapping(content["machine"], "machine").items() if not isinstance(v, dict)}
        rows = [_parse_row(mapping(row, "a row")) for row in content["rows"]]
    return Bench(
        file=str(path),
        model=model,
        precision=precision,
        started=started,
        complete=complete,
        rows=tuple(map(_row, rows)),
        versions=versions,
        commit=commit,
        machine=machine,
    )


@dataclass(frozen=True)
class _Engine:
    """rates: images/s, one per round. ratios: of ours to it, one per round; None for ours."""

    name: str
    rates: tuple[float, ...]
    ratios: tuple[float, ...] | None


@dataclass(frozen=True)
class _ParsedRow:
    batch: int
    threads: int
    rounds: int
    engines: tuple[_Engine, ...]
    roofline: Roofline | None


def _parse_row(row: Mapping[str, Any]) -> _ParsedRow:
    engines = tuple(
        _Engine(
            str(name),
            _each(engine["images_per_s"], "images_per_s"),
            None if name == OURS else _each(row["ratios"][name]["ours_to_peer"], "ours_to_peer"),
        )
        for name, engine in mapping(row["engines"], "engines").items()
    )
    roofline = None if row["layers"] is None else _parse_roofline(mapping(row["layers"], "layers"))
    rounds = len(row["engines"][OURS]["images_per_s"])
    return _ParsedRow(int(row["batch"]), int(row["threads"]), rounds, engines, roofline)


def _each(values: Any, name: str) -> tuple[float, ...]:
    found = tuple(positive(value, name) for value in values)
    if not found:
        raise ValueError(f"{name} has no round")
    return found


def _parse_roofline(layers: Mapping[str, Any]) -> Roofline:
    if not layers["layers"]:
        raise ValueError("layers are none")
    return Roofline(
        peak_gflops=positive(layers["peak_gflops"], "peak_gflops"),
        bandwidth_gb_s=positive(layers["bandwidth_gb_s"], "bandwidth_gb_s"),
        layers=tuple(_parse_layer(layer) for layer in layers["layers"]),
    )


def _parse_layer(layer: Mapping[str, Any]) -> Layer:
    operations = int(not_negative(layer["operations"], "operations"))
    total_bytes = int(sum(not_negative(layer[name], name) for name in ("weight_bytes", "activation_bytes")))
    rate = positive if operations and total_bytes else not_negative
    return Layer(
        node=str(layer["node"]),
        kernel=str(layer["kernel"]),
        shape=str(layer["shape"]),
        seconds=positive(layer["seconds"], "seconds"),
        operations=operations,
        total_bytes=total_bytes,
        gflops=rate(layer["gflops"], "gflops"),
        intensity=rate(layer["intensity"], "intensity"),
        percent_of_roof=not_negative(layer["percent_of_roof"], "percent_of_roof"),
    )


def _row(row: _ParsedRow) -> BenchRow:
    return BenchRow(row.batch, row.threads, row.rounds, tuple(map(_engine, row.engines)), row.roofline)


def _engine(engine: _Engine) -> EngineRate:
    interval = of_quantile(engine.rates, 0.5, ROUNDS)
    return EngineRate(
        engine=engine.name,
        images_per_s=Quantity("median throughput", median(engine.rates), "images/s", "higher", interval),
        ratio=None if engine.ratios is None else median(engine.ratios),
        ratio_interval=None if engine.ratios is None else of_quantile(engine.ratios, 0.5, ROUNDS),
    )
