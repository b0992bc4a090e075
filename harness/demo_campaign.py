"""`loadgen-numba run` without a model: the demo's model and images through every scenario, in both modes.

Official settings would take hours; the short ones are in conf/demo.conf. Server's rate and latency bound are set from
the Offline throughput R measured just before, with so much room that a busy machine still meets them:

    rate  = 0.4 * R                 no queue builds up before half of the machine is taken away by others
    bound = 20 * inference + 10 s   inference = instances / R; first the queue at such a load, then a standstill

A single late query among the 460 that early stopping needs makes a test INVALID, hence the second term of the bound:
while other programs hold the machine for ten seconds, queries wait for as long. What was measured is shown beside it.
The accuracy run has no bound to meet and is issued at 0.9 * R, or it would take as long as all others together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.errors import BackendError

from .config import Mode, RunConfig, Scenario
from .dataset import cache_folder
from .demo.assets import DEFAULT_VAL_COUNT, DemoAssets, ensure_demo
from .errors import BadInputError
from .progress import Numbered, Progress
from .run import RunOutcome, run
from .settings import CONF_FOLDER

DEMO_CONF: Final = CONF_FOLDER / "demo.conf"
DEMO_NAME: Final = "demo"
DEMO_SCENARIOS: Final[tuple[Scenario, ...]] = ("SingleStream", "Offline", "Server", "MultiStream")
"""In this order: Server's settings follow from Offline's result."""

_SERVER_LOAD: Final = 0.4
_SERVER_ACCURACY_LOAD: Final = 0.9
"""Server's rate as a fraction of Offline's throughput."""
_SERVER_BOUND_INFERENCES: Final = 20
_STANDSTILL_S: Final = 10.0
"""Server's latency bound: so many durations of one inference on one instance, and a time that others may take away."""
_HIGHEST_SERVER_QPS: Final = 1000.0
"""Above it (the null backend) the log would only grow."""


@dataclass(frozen=True)
class DemoRuns:
    """Which tests of the demo were asked for."""

    scenarios: tuple[Scenario, ...]
    modes: tuple[Mode, ...]


def make_demo(progress: Progress, isa: str | None = None, count: int | None = None) -> DemoAssets:
    """The demo's model and images in the user's cache, made if they are not there. Raises: BadInputError.

    count: of images; None for as many as the demo runs on.
    """
    try:
        return ensure_demo(cache_folder() / DEMO_NAME, progress, val_count=count or DEFAULT_VAL_COUNT, isa=isa)
    except BackendError as error:
        raise BadInputError(str(error)) from error


def demo_config(assets: DemoAssets, backend: str, output: Path) -> RunConfig:
    """The record that all runs of the demo share."""
    return RunConfig(
        name=DEMO_NAME,
        profile="resnet50",
        scenario="SingleStream",
        mode="performance",
        backend=backend,
        model=assets.model_path,
        dataset_path=assets.dataset_path,
        output=output,
        user_conf=DEMO_CONF,
        not_submittable=("the demo's model and images, made on this machine",),
    )


def run_demo(config: RunConfig, runs: DemoRuns, progress: Progress) -> Iterator[RunOutcome]:
    """Run the tests one after the other and yield each outcome. Raises: as `run`; later tests are then not run.

    config: as `demo_config` made it. If Server is asked for, Offline is measured before it in any case.
    """
    scenarios = [scenario for scenario in DEMO_SCENARIOS if scenario in runs.scenarios]
    tests = [(scenario, mode) for scenario in scenarios for mode in runs.modes]
    if "Server" in scenarios and ("Offline", "performance") not in tests:
        tests.insert([scenario for scenario, _ in tests].index("Server"), ("Offline", "performance"))
    offline: RunOutcome | None = None
    for number, (scenario, mode) in enumerate(tests, start=1):
        test = replace(config, scenario=scenario, mode=mode)
        if scenario == "Server" and offline is not None:
            test = _server_config(test, offline)
        outcome = run(test, Numbered(progress, f"[{number}/{len(tests)}] "))
        if (scenario, mode) == ("Offline", "performance"):
            offline = outcome
        yield outcome


def _server_config(config: RunConfig, offline: RunOutcome) -> RunConfig:
    """Rate and latency bound from Offline's throughput."""
    assert offline.result.metric is not None
    inference_s = offline.instances / offline.result.metric
    load = _SERVER_ACCURACY_LOAD if config.mode == "accuracy" else _SERVER_LOAD
    return replace(
        config,
        target_qps=min(round(load * offline.result.metric, 2), _HIGHEST_SERVER_QPS),
        max_latency_s=round(_SERVER_BOUND_INFERENCES * inference_s + _STANDSTILL_S, 3),
    )
