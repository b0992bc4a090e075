"""timings.json of a run: the histograms of `timings.py` when a performance test had ended. Written by `run.py`.

    format                  1
    shortest_ns, growth     bucket 0 takes what is shorter than shortest_ns, bucket b > 0 what lies between
                            shortest_ns * growth^(b - 1) and growth times that
    response                {first_bucket, counts}: from issue to answer of each query, or of each sample in Server and
                            Offline, by the harness's clock; all other buckets are empty
    service                 the same of how long each batch kept its instance busy

LoadGen's logs hold a few percentiles and no distribution. Results are LoadGen's; this file is for looking at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import BadInputError
from .timings import GROWTH, SHORTEST_NS, Durations

TIMINGS_FILE: Final = "timings.json"
_FORMAT: Final = 1


@dataclass(frozen=True)
class Histogram:
    """counts int64 [n], at least one of them positive; edges_ns float64 [n + 1], ascending, where buckets end."""

    edges_ns: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Timings:
    """What the file holds; None for a histogram without any duration."""

    response: Histogram | None
    service: Histogram | None


def timings_text(response: Durations, service: Durations) -> str:
    """The file's content."""
    content = {
        "format": _FORMAT,
        "shortest_ns": SHORTEST_NS,
        "growth": GROWTH,
        "response": _as_json(response),
        "service": _as_json(service),
    }
    return json.dumps(content) + "\n"


def read_timings(folder: Path) -> Timings | None:
    """Of a run's folder; None if it has no such file. Raises: BadInputError if it is damaged or of another format."""
    path = folder / TIMINGS_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise BadInputError(f"{path} has format {content['format']}, this version knows {_FORMAT}")
        return Timings(_histogram(content, "response"), _histogram(content, "service"))
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInputError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _as_json(durations: Durations) -> dict[str, Any]:
    filled = np.flatnonzero(durations.counts)
    if filled.size == 0:
        return {"first_bucket": 0, "counts": []}
    first, last = int(filled[0]), int(filled[-1])
    return {"first_bucket": first, "counts": durations.counts[first : last + 1].tolist()}


def _histogram(content: dict[str, Any], name: str) -> Histogram | None:
    """Raises: KeyError, TypeError, ValueError, OverflowError."""
    first, counts = int(content[name]["first_bucket"]), np.array(content[name]["counts"], dtype=np.int64)
    if counts.size == 0:
        return None
    if counts.ndim != 1 or counts.min() < 0 or counts.sum() == 0 or first < 0:
        raise ValueError(f"{name}: expected counts of durations")
    growth = float(content["growth"])
    edges_ns = float(content["shortest_ns"]) * growth ** np.arange(first - 1, first + counts.size, dtype=np.float64)
    if not (growth > 1 and edges_ns[0] > 0 and np.isfinite(edges_ns).all()):
        raise ValueError(f"{name}: expected shortest_ns above 0 and growth above 1")
    if first == 0:
        edges_ns[0] = 0.0
    return Histogram(edges_ns, counts)
