"""One LoadGen test inside its process: settings, instances, samples and LoadGen brought together.

Called by `child.py` only. Knows no terminal and no verdict; what it learns goes to the parent as messages.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from backend.errors import BackendError
from preprocessing import PreprocessingError

from . import estimates, loadgen, placement, settings
from .backends import find_backend
from .backends.protocol import Runner, RunnerRequest
from .batching import Dispatcher, make_dispatcher
from .config import RunConfig
from .dataset import open_images
from .errors import BadInputError
from .messages import Counters, Ended, Failed, Go, Opened, Task
from .placement import PinnedInstance
from .profiles import PROFILES
from .qsl import SampleLibrary
from .sut import Answerer, Failure, guarded_load
from .timings import Cells, Recorder

NO_AUDIT_CONF = "audit.config"
"""Name, inside the log folder, of a file that does not exist: what LoadGen is told when nobody asked for an audit."""

_TIMED_REPEATS = 5
_BYTES_PER_KIB = 1024


@dataclass
class _Instance:
    """What is known of an instance once it is open. seconds: of one inference, by number of images."""

    runner: Runner
    pinned: PinnedInstance
    seconds: dict[int, float]


@dataclass(frozen=True)
class _OpenTest:
    """Everything LoadGen needs, warm and ready."""

    loaded: loadgen.LoadedSettings
    dispatcher: Dispatcher
    library: SampleLibrary
    sample_count: int
    message: Opened


def run(task: Task, counters: Counters, timings: Cells, parent: Connection) -> None:
    """Open, report, wait for Go, run the test, report. Raises: BadInputError for what cannot be opened."""
    failure = Failure(lambda text, trace: parent.send(Failed(text, trace)))
    try:
        test = _open(task, counters, timings, failure)
    except (BackendError, PreprocessingError) as error:
        raise BadInputError(str(error)) from error
    parent.send(test.message)
    if not isinstance(parent.recv(), Go):
        return
    loadgen.run_test(
        test.loaded,
        issue=test.dispatcher.issue,
        load=guarded_load(test.library, failure),
        unload=test.library.unload,
        sample_count=test.sample_count,
        performance_sample_count=test.sample_count,
        log_folder=task.log_folder,
        audit_conf=settings.audit_file(task.config) or task.log_folder / NO_AUDIT_CONF,
    )
    test.dispatcher.close()
    if not failure.happened:
        parent.send(Ended(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_KIB))


def _open(task: Task, counters: Counters, timings: Cells, failure: Failure) -> _OpenTest:
    config = task.config
    profile = PROFILES[config.profile]
    user_settings = settings.read_user_conf(task.user_conf, profile.loadgen_model)
    loaded = loadgen.load_settings(task.user_conf, profile.loadgen_model, config.scenario, config.mode)
    loadgen.override(loaded, settings.overrides(config))

    images = open_images(task.dataset)
    instances: list[_Instance] = []
    library = SampleLibrary(images, lambda chosen: instances[0].runner.prepare(chosen))

    def open_instance(slot: int) -> Answerer:
        request = RunnerRequest(
            model=config.model,
            image_shape=images.shape[1:],
            spec=profile.spec,
            cores=task.placement.cores[slot],
            max_batch=task.max_batch,
            isa=config.isa,
            plan=config.plan,
            kernels=config.kernels,
            machine=config.machine,
            precision=config.precision,
            sibling=_on_same_node(task.placement.cores, instances, slot),
        )
        instances.append(_open_instance(config.backend, request))
        return Answerer(instances[slot].runner, library, failure, counters, slot, Recorder(timings, slot))

    dispatcher = make_dispatcher(
        config.scenario, [partial(open_instance, slot) for slot in range(task.placement.instances)], task.max_batch
    )
    estimated = _estimate_hints(config, loaded, user_settings, instances, task.max_batch)
    loadgen.override(loaded, estimated)
    message = Opened(
        backend=dict(instances[0].runner.describe()),
        instances=tuple(instance.pinned for instance in instances),
        official_settings=loaded.official,
        effective_settings=loaded.effective(),
        estimated_settings=tuple(estimated),
    )
    return _OpenTest(loaded, dispatcher, library, len(images), message)


def _on_same_node(cores: Sequence[Sequence[int]], opened: Sequence[_Instance], slot: int) -> Runner | None:
    """The first of the instances opened so far, in the order of slots, whose memory is where that of `slot` will be."""
    node = placement.numa_node(cores[slot][0])
    same = (
        instance.runner
        for earlier, instance in zip(cores, opened, strict=False)
        if placement.numa_node(earlier[0]) == node
    )
    return next(same, None)


def _open_instance(backend: str, request: RunnerRequest) -> _Instance:
    """Pin the calling thread, open a runner on it, and look where its threads really are."""
    before = placement.threads_of_process()
    placement.pin_this_thread(request.cores)
    runner = find_backend(backend)(request)
    seconds = {batch: _time_inference(runner, request, batch) for batch in sorted({1, request.max_batch})}
    return _Instance(runner, placement.read_back(request.cores, before), seconds)


def _time_inference(runner: Runner, request: RunnerRequest, batch: int) -> float:
    """Least seconds of one warm inference of a batch of black images: what it takes when nothing disturbs it."""
    samples = runner.prepare(np.zeros((batch, *request.image_shape), np.uint8))
    durations = []
    for _ in range(_TIMED_REPEATS):
        begin = time.perf_counter()
        runner.predict(samples)
        durations.append(time.perf_counter() - begin)
    return min(durations)


def _estimate_hints(
    config: RunConfig,
    loaded: loadgen.LoadedSettings,
    user_settings: tuple[settings.UserSetting, ...],
    instances: list[_Instance],
    max_batch: int,
) -> dict[str, int | float]:
    """The hint that sizes LoadGen's query list, if neither a flag nor user.conf gave it."""
    effective = loaded.effective()
    slowest_s = {batch: max(instance.seconds[batch] for instance in instances) for batch in instances[0].seconds}
    if config.scenario == "Offline":
        if config.target_qps is not None or settings.is_set(user_settings, "Offline", "target_qps"):
            return {}
        return estimates.offline_rate(effective, len(instances) * max_batch / slowest_s[max_batch])
    if config.scenario == "Server":
        return {}
    if config.max_latency_s is not None or settings.is_set(user_settings, config.scenario, "target_latency"):
        return {}
    samples = int(effective["multi_stream_samples_per_query"]) if config.scenario == "MultiStream" else 1
    batches = -(-samples // (max_batch * len(instances)))
    return estimates.stream_latency(config.scenario, effective, batches * slowest_s[min(samples, max_batch)])
