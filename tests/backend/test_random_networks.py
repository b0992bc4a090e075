"""Seeded random networks, before and after the passes, against the NumPy twins of the graph as it was made."""

from __future__ import annotations

import numpy as np
import pytest
from plan_runner import MACHINE, plan_graph, run_plan
from small_nets import UNIT_ROUNDOFF, Net, oracle, random_inputs

from backend.graph.ir import BATCH, Conv, Dense, Graph
from backend.graph.passes import run_passes

_NETWORKS = 40


def random_graph(seed: int) -> Graph:
    """Five to nine random ops over one picture, and a head; every fourth graph is of fixed shapes, two images."""
    rng = np.random.default_rng(seed)
    net = Net(seed)
    size = [int(n) for n in rng.integers(6, 20, 2)]
    x = net.input(int(rng.integers(1, 24)), *size, batch=BATCH if seed % 4 else 2)
    seen = [x]
    for _ in range(int(rng.integers(5, 10))):
        x = _random_op(net, x, rng, seen)
        seen.append(x)
    images, channels = net.shape(x)[:2]
    outputs = [x]
    if rng.random() < 0.5:
        flat = net.reshape(net.mean(x, (2, 3)), images, channels)
    else:
        flat = net.reshape(x, images, int(np.prod(net.shape(x)[1:])))
    logits = net.dense(flat, int(rng.integers(1, 40)))
    outputs += [logits, net.softmax(logits, 1)]
    return net.graph(*outputs)


def _random_op(net: Net, x: str, rng: np.random.Generator, seen: list[str]) -> str:
    channels, height, width = net.shape(x)[1:]
    kernel = (int(rng.integers(1, min(5, height) + 1)), int(rng.integers(1, min(5, width) + 1)))
    pads = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel))
    strides = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    choice = rng.choice(["conv", "conv", "same", "depthwise", "group", "max", "average", "norm", "clip", "add", "mul"])
    if choice == "conv":
        return net.conv(x, int(rng.integers(1, 50)), kernel, strides=strides, pads=pads)
    if choice == "same":  # what Winograd, residuals and dilations like
        filters = int(rng.integers(1, 4)) * 16
        return net.conv(x, filters, (3, 3), pads=(1, 1, 1, 1)) if rng.random() < 0.5 else net.conv(x, filters)
    if choice == "depthwise":
        return net.conv(x, channels, kernel, group=channels, pads=pads)
    if choice == "group":
        group = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        return net.conv(x, group * int(rng.integers(1, 7)), (1, 1), group=group)
    if choice in ("max", "average"):
        return net.pool(str(choice), x, kernel, strides=strides, pads=pads)
    if choice == "norm":
        return net.batch_norm(x)
    if choice == "clip":
        return net.clip(x, 0.0, float(rng.choice([6.0, np.inf])))
    partners = [name for name in seen if net.shape(name) == net.shape(x)]
    return net.binary(str(choice), x, str(rng.choice(partners)))


def tolerance(graph: Graph) -> float:
    """Each op's sum of K terms adds at most K u of its size (gamma(K), to first order); 8 for growth on the way."""
    terms = sum(graph.constants[op.weight][0].size if isinstance(op, Conv) else 4 for op in graph.ops)
    terms += sum(len(graph.constants[op.weight]) for op in graph.ops if isinstance(op, Dense))
    return 8 * terms * UNIT_ROUNDOFF


@pytest.mark.parametrize("seed", range(_NETWORKS))
def test_random_network(seed: int) -> None:
    """As it is and after the passes, for part of a batch: near float64, and equal bits with two threads."""
    graph = random_graph(seed)
    inputs = random_inputs(graph, 2, seed)
    expected = oracle(graph, inputs)
    max_batch = 3 if seed % 4 else 1
    for candidate in (graph, run_passes(graph)):
        got = run_plan(plan_graph(candidate, max_batch), inputs)
        for ours, twin in zip(got, expected, strict=True):
            error = np.abs(ours - twin).max() / max(np.abs(twin).max(), 1e-30)
            assert error <= tolerance(graph), f"{error:.2g}: {[type(op).__name__ for op in candidate.ops]}"
        if MACHINE.cores > 1:
            both = run_plan(plan_graph(candidate, max_batch), inputs, threads=2)
            assert [array.tobytes() for array in both] == [array.tobytes() for array in got]
