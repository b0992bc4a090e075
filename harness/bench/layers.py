"""Where the time of our engine goes, layer by layer, against two measured roofs.

A layer can take no less than the greater of operations / peak and bytes / bandwidth (the roofline model, Williams,
Waterman and Patterson 2009); the share of that in the time it took is its percentage of the roof. Layers that
find their data in a cache may exceed the roof of memory, so more than 100 % is no error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from .messages import Array, Layers, LayerTime

if TYPE_CHECKING:
    from backend import InferenceSession

_PROFILE_S: Final = 2.0
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 101


def measure_layers(session: InferenceSession, feed: Mapping[str, Array]) -> Layers:
    """Times each layer over the batch in `feed`, medians over some rounds, and measures this machine's roofs."""
    from backend import peak  # a session exists, so the process's ISA is settled

    begin = time.perf_counter()
    session.run(None, feed)
    rounds = int(_PROFILE_S / (time.perf_counter() - begin))
    rounds = min(max(rounds, _LEAST_ROUNDS), _MOST_ROUNDS)
    layers = tuple(
        LayerTime(
            node=step.info.node,
            kernel=step.info.kernel,
            shape=step.info.shape,
            seconds=step.seconds,
            operations=2 * step.info.macs * step.images,
            weight_bytes=step.info.weight_bytes,
            activation_bytes=step.info.activation_bytes * step.images,
        )
        for step in session.profile(feed, rounds=rounds)
    )
    return Layers(
        layers=layers,
        peak_gflops=peak.measure_peak_gflops(session.machine, session.threads, session.plan().multiplied),
        bandwidth_gb_s=peak.measure_bandwidth_gb_s(session.machine, session.threads),
        profile_rounds=rounds,
    )


def total(layers: Layers) -> LayerTime:
    """All layers as one: sums of times, operations and bytes."""
    return LayerTime(
        node="total",
        kernel="",
        shape="",
        seconds=sum(layer.seconds for layer in layers.layers),
        operations=sum(layer.operations for layer in layers.layers),
        weight_bytes=sum(layer.weight_bytes for layer in layers.layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers.layers),
    )


def gflops(layer: LayerTime) -> float:
    """Billions of operations per second."""
    return 1e-9 * layer.operations / layer.seconds


def gb_s(layer: LayerTime) -> float:
    """Billions of bytes per second, if everything moved once."""
    return 1e-9 * layer.total_bytes / layer.seconds


def intensity(layer: LayerTime) -> float:
    """Operations per byte; 0 for a layer that moves none."""
    return layer.operations / layer.total_bytes if layer.total_bytes else 0.0


def percent_of_peak(layer: LayerTime, layers: Layers) -> float:
    """Operations against the measured peak."""
    return 100 * gflops(layer) / layers.peak_gflops


def percent_of_roof(layer: LayerTime, layers: Layers) -> float:
    """The least time that peak and bandwidth allow, as a share of the time taken.

    For a layer with operations this is its GFLOP/s against min(peak, intensity * bandwidth).
    """
    compute_s = 1e-9 * layer.operations / layers.peak_gflops
    memory_s = 1e-9 * layer.total_bytes / layers.bandwidth_gb_s
    return 100 * max(compute_s, memory_s) / layer.seconds
