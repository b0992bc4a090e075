"""A bench's JSON, and runs whose names are out to break a page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness.bench.record import SCHEMA as BENCH_SCHEMA

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


def bench_json(node: str = "conv_0") -> dict[str, Any]:
    """As `bench` writes it, as far as a report reads it."""
    layer = {"node": node, "kernel": "conv_gemm_12x2", "shape": "(1, 32)", "seconds": 1e-5, "operations": 900_000,
             "weight_bytes": 100, "activation_bytes": 1000, "gflops": 90.0, "intensity": 818.2,
             "percent_of_roof": 60.0}  # fmt: skip
    moves = {**layer, "node": "pool_1", "kernel": "max_pool", "operations": 0, "weight_bytes": 0,
             "activation_bytes": 600, "gflops": 0.0, "intensity": 0.0}  # fmt: skip
    row = {
        "batch": 1,
        "threads": 2,
        "engines": {"numba": {"images_per_s": OURS}, "onnxruntime": {"images_per_s": PEER}},
        "ratios": {"onnxruntime": {"ours_to_peer": [a / b for a, b in zip(OURS, PEER, strict=True)]}},
        "layers": {"peak_gflops": 150.0, "bandwidth_gb_s": 9.5, "layers": [layer, moves]},
    }
    return {
        "schema": BENCH_SCHEMA,
        "complete": True,
        "started": "2026-08-01T12:00:00+00:00",
        "model": {"path": "/m/net.onnx"},
        "settings": {"precision": "fp32"},
        "machine": {"processor": "A CPU", "isa": "avx512", "sources": {}},
        "software": {"versions": {"numpy": "2.0"}, "commit": None},
        "rows": [row],
    }
