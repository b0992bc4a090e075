"""A bench's JSON by the bench's own writer, and runs whose names are out to break a page."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backend import detect
from harness.bench.config import BenchConfig, EngineName
from harness.bench.messages import Layers, LayerTime, Slice
from harness.bench.record import Bench, as_json
from harness.bench.rounds import EngineRow, Row
from harness.placement import PinnedInstance

HOSTILE = "</style><script>alert(1)</script><img src=//x onerror=alert(2)> {{7*7}} $\\frac{$ &amp; \"'"
"""HTML, a template, mathematics: one who names a model, a folder or a machine may write any of it."""


def hostile_runs(runs: Path, place: Path) -> None:
    """A copy of a scenario's runs in which every name that a report shows is HOSTILE."""
    shutil.copytree(runs, place)
    for path in place.glob("*/run.json"):
        record = json.loads(path.read_text())
        record["config"] |= {"model": f"/models/{HOSTILE.replace('/', '|')}", "backend": HOSTILE}
        record["machine"]["processor"] = HOSTILE
        record["backend"] |= {"engine": HOSTILE, "precision": HOSTILE, HOSTILE: 1}
        record["versions"][HOSTILE] = HOSTILE
        record["not_submittable"] = [HOSTILE]
        record["warnings"] = [HOSTILE]
        record["user_conf"]["text"] = HOSTILE
        record["started_utc"] = HOSTILE
        path.write_text(json.dumps(record))


OURS = [20.0, 22, 21, 24, 19, 23, 20.5, 21.5, 22.5]
PEER = [10.0, 12, 10, 11, 10, 12, 10, 11, 10.2]


def bench_json(folder: Path, node: str = "conv_0", precision: str = "fp32") -> dict[str, Any]:
    """Of a bench without --precision: nine rounds, two layers, one of which only moves data. folder: gets its model."""
    model = folder / "net.onnx"
    model.write_bytes(b"a bench's writer only hashes it")
    rates: dict[EngineName, list[float]] = {"numba": OURS, "onnxruntime": PEER}
    engines = {
        name: EngineRow(
            settings={"precision": precision},
            pinned=PinnedInstance((0, 1), 2, 0),
            slices=tuple(Slice(round(100 * rate), 100.0, 1 / rate, 200.0) for rate in values),
            difference=None,
        )
        for name, values in rates.items()
    }
    layers = (
        LayerTime(node, "conv_gemm_12x2", "(1, 32)", 1e-5, 900_000, weight_bytes=100, activation_bytes=1000),
        LayerTime("pool_1", "max_pool", "(1, 32)", 1e-5, 0, weight_bytes=0, activation_bytes=600),
    )
    row = Row(1, 2, (0, 1), engines, (0.0,), Layers(layers, peak_gflops=150.0, bandwidth_gb_s=9.5, profile_rounds=5))
    config = BenchConfig(model, None, (1,), (2,), ("onnxruntime",), rounds=len(OURS), layers=True)
    began = datetime(2026, 8, 1, 12, tzinfo=timezone.utc)
    revision = {"commit": None, "uncommitted_changes": None}
    bench = Bench(config, began, revision, detect(), (0.0, 0.0, 0.0), (row,), complete=True)
    written: dict[str, Any] = json.loads(json.dumps(as_json(bench)))
    return written
