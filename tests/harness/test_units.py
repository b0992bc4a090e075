"""The small parts by themselves: placement, samples, batches, responses, hints, outputs, the run's folder."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from backend import detect, read_machine
from harness import estimates, placement, responses
from harness.batching import AnswerByWorkers, AnswerInside
from harness.errors import BadInputError
from harness.profiles import (
    PROFILES,
    RESNET50,
    TensorInfo,
    choose_output,
    doubt_about_input,
    not_the_official_model,
)
from harness.qsl import SampleLibrary
from harness.run_folder import RunFolder


class TestPlacement:
    CPUS = placement.Cpus((0, 2, 4, 6, 1, 3, 5, 7), (0,) * 8, cores=4, fast=4)
    """Four cores of two threads each: siblings last."""

    BOARD = placement.Cpus((4, 5, 6, 7, 0, 1, 2, 3), (0,) * 8, cores=8, fast=4)
    """big.LITTLE, big cores first."""

    @pytest.mark.parametrize(
        ("scenario", "instances", "threads", "expected"),
        [
            ("Offline", None, None, ((0,), (2,), (4,), (6,))),
            ("Server", None, None, ((0,), (2,), (4,), (6,))),
            ("SingleStream", None, None, ((0, 2, 4, 6),)),
            ("MultiStream", 2, None, ((0, 2), (4, 6))),
            ("Offline", None, 2, ((0, 2), (4, 6))),
            ("SingleStream", None, 8, ((0, 1, 2, 3, 4, 5, 6, 7),)),
            ("Offline", 8, 1, tuple((cpu,) for cpu in CPUS.order)),
        ],
    )
    def test_plan(self, scenario: Any, instances: int | None, threads: int | None, expected: Any) -> None:
        assert placement.plan(scenario, instances, threads, self.CPUS).cores == expected

    @pytest.mark.parametrize(
        ("scenario", "instances", "threads", "expected"),
        [
            ("SingleStream", None, None, ((4, 5, 6, 7),)),
            ("MultiStream", 2, None, ((4, 5), (6, 7))),
            ("Server", None, None, ((4,), (5,), (6,), (7,))),
            ("Offline", None, None, ((4,), (5,), (6,), (7,), (0,), (1,), (2,), (3,))),
            ("Offline", None, 4, ((4, 5, 6, 7), (0, 1, 2, 3))),
            ("SingleStream", None, 6, ((0, 1, 4, 5, 6, 7),)),
        ],
    )
    def test_small_cores(self, scenario: Any, instances: int | None, threads: int | None, expected: Any) -> None:
        """They work by default where nobody waits for the slowest, and last where they are asked for."""
        assert placement.plan(scenario, instances, threads, self.BOARD).cores == expected

    @pytest.mark.parametrize(
        ("instances", "threads", "expected"),
        [
            (2, 4, ((0, 1, 2, 3), (6, 7, 8, 9))),
            (3, 4, ((0, 1, 2, 3), (6, 7, 8, 9), (4, 5, 10, 11))),
            (4, 3, ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11))),
            (1, 8, ((0, 1, 2, 3, 4, 5, 6, 7),)),
            (2, 8, ((0, 1, 2, 3, 4, 5, 12, 13), (6, 7, 8, 9, 10, 11, 18, 19))),
            (13, 1, tuple((cpu,) for cpu in range(13))),
        ],
    )
    def test_an_instance_spans_nodes_only_where_it_must(self, instances: int, threads: int, expected: Any) -> None:
        """Two nodes of six cores of two threads: where cores suffice nobody gets a sibling, wherever it may be."""
        nodes = ((0,) * 6 + (1,) * 6) * 2
        cpus = placement.Cpus(tuple(range(24)), nodes, cores=12, fast=12)
        assert placement.plan("Offline", instances, threads, cpus).cores == expected

    def test_cores_of_a_machine_file(self, tmp_path: Path) -> None:
        """Big ones first, though CPU 0 is a small one; what the file does not name comes last."""
        allowed = sorted(os.sched_getaffinity(0))
        small, big = allowed[0], allowed[-1]
        kinds = f"[[clusters]]\ncpus = [{small}]\ncapacity = 400\n"
        if big != small:
            kinds += f"[[clusters]]\ncpus = [{big}]\ncapacity = 1024\n"
        (tmp_path / "board.toml").write_text(kinds)
        found = placement.available_cores(read_machine(tmp_path / "board.toml"), tmp_path)
        assert found.order[0] == big and set(found.order) == set(allowed)
        assert (found.cores, found.fast) == (len(allowed), 1)

    @pytest.mark.parametrize(("instances", "threads"), [(9, 1), (1, 9), (3, 3), (9, None), (None, 9)])
    def test_more_threads_than_cpus_are_refused_with_numbers(self, instances: int | None, threads: int | None) -> None:
        with pytest.raises(BadInputError, match=r"this process may use 8 CPUs \(4 cores\)"):
            placement.plan("Offline", instances, threads, self.CPUS)

    def test_cores_come_node_by_node_and_siblings_last(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two nodes of two cores with two threads each, numbered in turns as some firmware does."""
        for cpu in range(8):
            folder = tmp_path / f"cpu{cpu}"
            (folder / "topology").mkdir(parents=True)
            (folder / "topology/thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
            (folder / f"node{cpu % 2}").mkdir()
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
        alike = replace(detect(), clusters=())
        assert placement.available_cores(alike, tmp_path) == placement.Cpus(
            (0, 2, 1, 3, 4, 6, 5, 7), (0, 0, 1, 1, 0, 0, 1, 1), cores=4, fast=4
        )
        assert [placement.numa_node(cpu, tmp_path) for cpu in (0, 1, 6, 7)] == [0, 1, 0, 1]

    def test_a_pinned_thread_and_its_offspring_are_read_back(self) -> None:
        cpu = placement.available_cores(detect()).order[0]
        found: list[placement.PinnedInstance] = []
        release = threading.Event()

        def work() -> None:
            before = placement.threads_of_process()
            placement.pin_this_thread((cpu,))
            offspring = threading.Thread(target=release.wait)
            offspring.start()
            found.append(placement.read_back((cpu,), before))
            found.append(placement.read_back((cpu + 1,), before))
            release.set()
            offspring.join()

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        assert found[0] == placement.PinnedInstance((cpu,), 2, 0)
        assert found[1].stray_thread_count == 2


class TestSampleLibrary:
    IMAGES = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)

    def library(self) -> SampleLibrary:
        library = SampleLibrary(self.IMAGES, lambda images: images * 2)
        library.load([7, 3, 4, 9, 7])
        return library

    @pytest.mark.parametrize("indices", [[3], [7, 3, 4], [9, 7], [3, 3, 9], [4, 3]])
    def test_samples_come_in_the_order_asked_for(self, indices: list[int]) -> None:
        assert self.library().gather(indices).ravel().tolist() == [2 * index for index in indices]

    def test_neighbours_are_not_copied(self) -> None:
        library = self.library()
        assert np.shares_memory(library.gather([3, 4, 9]), library.gather([7, 3]))

    def test_unloaded_samples_are_gone(self) -> None:
        library = self.library()
        library.unload([7, 3, 4, 9, 7])
        with pytest.raises(KeyError):
            library.gather([3])

    def test_a_mapped_store_is_in_ram_only_as_the_copy(self, tmp_path: Path) -> None:
        """Judged by what the system counts as this process's pages of the file."""
        shape = (300, 64, 64, 3)
        pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        pixels.tofile(tmp_path / "images")
        images = np.memmap(tmp_path / "images", np.uint8, "r", shape=shape)
        library = SampleLibrary(images, lambda chosen: chosen)
        order = np.random.default_rng(2).permutation(300).tolist()
        library.load(order)
        (mapping,) = [m for m in psutil.Process().memory_maps() if m.path == str(tmp_path / "images")]
        assert mapping.rss < pixels.nbytes // 10
        assert np.array_equal(library.gather(order), pixels[order])

    def test_unloaded_samples_leave_ram(self) -> None:
        loaded: list[weakref.ref[npt.NDArray[np.uint8]]] = []

        def prepare(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
            samples = images * 2
            loaded.append(weakref.ref(samples))
            return samples

        library = SampleLibrary(self.IMAGES, prepare)
        library.load([1, 2])
        assert loaded[0]() is not None
        library.unload([1, 2])
        assert loaded[0]() is None


class Recorder:
    """Stands where an Answerer stands and keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.responses = 0

    def answer(self, response_ids: list[int], indices: list[int]) -> None:
        self.batches.append(list(zip(response_ids, indices, strict=True)))

    def record_response(self, issued_ns: int, count: int = 1) -> None:
        assert 0 < issued_ns <= time.perf_counter_ns()
        self.responses += count

    def record_service(self, begin_ns: int) -> None:
        assert 0 < begin_ns <= time.perf_counter_ns()


class TestBatching:
    SAMPLES = tuple(range(100, 123))

    def issue(self, dispatcher: AnswerInside | AnswerByWorkers) -> None:
        dispatcher.issue(list(self.SAMPLES), [sample - 100 for sample in self.SAMPLES])
        dispatcher.close()

    def check(self, batches: list[list[tuple[int, int]]], max_batch: int) -> None:
        assert sorted(sample for batch in batches for sample in batch) == [(s, s - 100) for s in self.SAMPLES]
        assert max(map(len, batches)) <= max_batch

    def test_inside(self) -> None:
        recorder = Recorder()
        self.issue(AnswerInside(recorder, 8))  # type: ignore[arg-type]
        self.check(recorder.batches, 8)
        assert [len(batch) for batch in recorder.batches] == [8, 8, 7]

    @pytest.mark.parametrize("workers", [1, 3])
    def test_workers(self, workers: int) -> None:
        recorders = [Recorder() for _ in range(workers)]
        self.issue(AnswerByWorkers([lambda r=r: r for r in recorders], 4))  # type: ignore[misc]
        self.check([batch for recorder in recorders for batch in recorder.batches], 4)

    def test_a_worker_leaves_the_others_their_share(self) -> None:
        """Two workers are held up with a sample each while six more arrive: none then takes more than half."""
        release = threading.Event()
        answered = threading.Semaphore(0)

        class HeldUp(Recorder):
            def answer(self, response_ids: list[int], indices: list[int]) -> None:
                super().answer(response_ids, indices)
                for _ in response_ids:
                    answered.release()
                release.wait()

        recorders = [HeldUp(), HeldUp()]
        dispatcher = AnswerByWorkers([lambda r=r: r for r in recorders], 8)  # type: ignore[misc]
        for sample in (1, 2):
            dispatcher.issue([sample], [sample])
            answered.acquire()
        dispatcher.issue([3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8])
        release.set()
        for _ in range(6):
            answered.acquire()
        dispatcher.close()
        sizes = [len(batch) for recorder in recorders for batch in recorder.batches[1:]]
        assert sum(sizes) == 6
        assert max(sizes) == 3

    def test_an_instance_that_cannot_open_raises_where_it_is_made(self) -> None:
        def fail() -> Any:
            raise BadInputError("no")

        with pytest.raises(BadInputError, match="no"):
            AnswerByWorkers([fail], 1)


def test_responses_are_little_endian_float32_and_come_back() -> None:
    payload = responses.encode(np.array([27, 999], np.int64))
    assert payload.tobytes().hex() == "0000d841" + "00c07944"
    assert responses.decode("0000D841") == 27
    with pytest.raises(ValueError, match="0 bytes"):
        responses.decode("")


class TestOutputs:
    SCORES = TensorInfo("softmax_tensor:0", (None, 1001), "tensor(float)")
    CLASSES = TensorInfo("ArgMax:0", (None,), "tensor(int64)")

    def test_the_official_models_argmax_is_preferred_and_shifted(self) -> None:
        output = choose_output([self.CLASSES, self.SCORES], "m.onnx")
        assert (output.name, output.kind, output.label_offset) == ("ArgMax:0", "classes", -1)
        assert output.read(np.array([1, 1000])).tolist() == [0, 999]

    @pytest.mark.parametrize(("width", "offset"), [(1000, 0), (1001, -1)])
    def test_scores_of_any_trailing_shape(self, width: int, offset: int) -> None:
        output = choose_output([TensorInfo("scores", (None, width, 1, 1), "tensor(float)")], "m.onnx")
        values: npt.NDArray[np.float32] = np.zeros((2, width, 1, 1), np.float32)
        values[0, 5], values[1, width - 1] = 1, 1
        assert output.read(values).tolist() == [5 + offset, 999]

    def test_an_offset_is_never_guessed(self) -> None:
        with pytest.raises(BadInputError, match="label offset is unknown"):
            choose_output([self.CLASSES], "m.onnx")


class TestProfiles:
    """Facts from MLPerf's rules and Zenodo's records are repeated here by hand."""

    PUBLISHED = ("f6a4da60cd5f084d97efc2c1ddb10beb", "a638cf028b5870da29e09ccc2f7182e7")

    def test_the_benchmark_asks_for_99_percent_of_the_reference(self) -> None:
        assert RESNET50.least_accuracy_percent == pytest.approx(75.6954, abs=1e-9)
        assert RESNET50.md5 == self.PUBLISHED
        readme = (Path(__file__).parents[2] / "README.md").read_text()
        assert all(md5 in readme for md5 in self.PUBLISHED)

    def test_a_model_is_official_to_the_byte_or_not_at_all(self, tmp_path: Path) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(b"abc")
        md5_of_abc = "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, appendix A.5
        resnet50 = PROFILES["resnet50"]
        official = replace(resnet50, official=replace(RESNET50, md5=(md5_of_abc,)))
        assert not_the_official_model(official, path) is None
        reason = not_the_official_model(resnet50, path)
        assert reason == f"m.onnx (md5 {md5_of_abc}) is none of the published resnet50_v1.onnx files"
        assert not_the_official_model(PROFILES["mobilenet"], path) is None

    def test_an_input_of_another_profile_raises_a_doubt(self) -> None:
        assert doubt_about_input(PROFILES["resnet50"], "input_tensor:0") is None
        assert doubt_about_input(PROFILES["mobilenet"], "input") is None
        assert "add --profile mobilenet" in str(doubt_about_input(PROFILES["resnet50"], "input"))
        assert "use --profile resnet50" in str(doubt_about_input(PROFILES["mobilenet"], "input_tensor:0"))


class TestEstimates:
    """LoadGen prepares 2 * duration / latency queries (streams) and 1.1 * duration * rate samples (Offline)."""

    def test_enough_queries_for_a_run_as_fast_as_measured(self) -> None:
        hint = estimates.stream_latency("SingleStream", {"min_duration_ms": 600_000}, 0.004)
        queries = 2 * 600e9 / hint["single_stream_expected_latency_ns"]
        assert queries >= 600 / 0.004
        rate = estimates.offline_rate({"min_duration_ms": 600_000}, 25.0)["offline_expected_qps"]
        assert 25.0 < rate < 50.0

    def test_memory_stays_bounded_for_an_engine_that_takes_no_time(self) -> None:
        hint = estimates.stream_latency("MultiStream", {"min_duration_ms": 600_000}, 1e-9)
        assert 2 * 600e9 / hint["multi_stream_expected_latency_ns"] <= 2e6
        rate = estimates.offline_rate({"min_duration_ms": 600_000}, 1e9)["offline_expected_qps"]
        assert 600 * rate <= 2e6


class TestRunFolder:
    def test_an_abandoned_claim_leaves_nothing(self, tmp_path: Path) -> None:
        folder = RunFolder.claim(tmp_path / "a/b/c")
        folder.release()
        assert list(tmp_path.iterdir()) == []

    def test_two_abandoned_claims_share_parents(self, tmp_path: Path) -> None:
        """The first to go leaves what the second is in, without an error, and its own folder free."""
        first = RunFolder.claim(tmp_path / "runs/SingleStream/performance")
        second = RunFolder.claim(tmp_path / "runs/Offline/performance")
        first.release()
        assert list(tmp_path.rglob("performance")) == [second.path]
        RunFolder.claim(first.path).release()
        second.release()
        assert list(tmp_path.rglob("performance")) == []

    def test_a_claim_excludes_others_until_released(self, tmp_path: Path) -> None:
        folder = RunFolder.claim(tmp_path / "run")
        with pytest.raises(BadInputError, match="a run is going on"):
            RunFolder.claim(tmp_path / "run")
        folder.begin()
        folder.write({"status": "running"})
        with pytest.raises(BadInputError, match="a run is going on"):
            RunFolder.claim(tmp_path / "run")
        folder.release()
        RunFolder.claim(tmp_path / "run").release()
        assert json.loads((tmp_path / "run/run.json").read_text()) == {"status": "running"}

    def test_earlier_runs_move_aside_whole_and_none_is_lost(self, tmp_path: Path) -> None:
        asides = []
        for number in range(3):
            folder = RunFolder.claim(tmp_path / "run")
            asides.append(folder.begin())
            folder.write({"number": number, "started_utc": "2026-08-01T12:00:00Z"})
            folder.release()
        assert asides == [None, tmp_path / "run.20260801T120000Z", tmp_path / "run.20260801T120000Z.2"]
        found = [json.loads((path / "run.json").read_text())["number"] for path in sorted(tmp_path.iterdir())]
        assert found == [2, 0, 1]
