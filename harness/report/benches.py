"""A JSON file of `bench` -> what a report says of it. The file's schema is documented in `harness/bench/record.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from ..bench.config import OURS
from ..bench.record import SCHEMA
from ..errors import BadInputError
from .intervals import ROUNDS, of_quantile
from .records import Bench, BenchRow, EngineRate, Layer, Quantity, Roofline


def read_bench(path: Path) -> Bench:
    """Raises: BadInputError if the file is damaged or of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise BadInputError(f"{path} has schema {content['schema']!r}, this version knows {SCHEMA!r}")
        return Bench(
            file=str(path),
            model=Path(content["model"]["path"]).name,
            precision=str(content["settings"]["precision"]),
            started=str(content["started"]),
            complete=bool(content["complete"]),
            rows=tuple(_row(row) for row in content["rows"]),
            versions={str(name): str(version) for name, version in content["software"]["versions"].items()},
            commit=content["software"]["commit"],
            machine={name: value for name, value in content["machine"].items() if not isinstance(value, dict)},
        )
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _row(row: Mapping[str, Any]) -> BenchRow:
    engines = []
    for name, engine in row["engines"].items():
        rates = [float(rate) for rate in engine["images_per_s"]]
        pairs = None if name == OURS else [float(ratio) for ratio in row["ratios"][name]["ours_to_peer"]]
        engines.append(
            EngineRate(
                engine=str(name),
                images_per_s=Quantity(
                    "median throughput", median(rates), "images/s", "higher", of_quantile(rates, 0.5, ROUNDS)
                ),
                ratio=None if pairs is None else median(pairs),
                ratio_interval=None if pairs is None else of_quantile(pairs, 0.5, ROUNDS),
            )
        )
    rounds = len(row["engines"][OURS]["images_per_s"])
    roofline = None if row["layers"] is None else _roofline(row["layers"])
    return BenchRow(int(row["batch"]), int(row["threads"]), rounds, tuple(engines), roofline)


def _roofline(layers: Mapping[str, Any]) -> Roofline:
    return Roofline(
        peak_gflops=float(layers["peak_gflops"]),
        bandwidth_gb_s=float(layers["bandwidth_gb_s"]),
        layers=tuple(
            Layer(
                node=str(layer["node"]),
                kernel=str(layer["kernel"]),
                shape=str(layer["shape"]),
                seconds=float(layer["seconds"]),
                operations=int(layer["operations"]),
                total_bytes=int(layer["weight_bytes"]) + int(layer["activation_bytes"]),
                gflops=float(layer["gflops"]),
                intensity=float(layer["intensity"]),
                percent_of_roof=float(layer["percent_of_roof"]),
            )
            for layer in layers["layers"]
        ),
    )
