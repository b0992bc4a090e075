"""The array store: what it holds, that no interruption harms it, and that it refuses what is not its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import PIL
import pytest
from pictures import jpeg, scenery

import preprocessing
from preprocessing import (
    IMAGENET,
    MOBILENET,
    ImageError,
    StoreError,
    ValMap,
    build_store,
    open_store,
    preprocess,
    read_val_map,
)

COUNT = 24

BUILDER = """
import resource, sys, time
from preprocessing import IMAGENET, build_store, read_val_map
dataset, folder, pause_s, limit_bytes = sys.argv[1:]
if limit_bytes != "none":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit_bytes), resource.RLIM_INFINITY))

def progress(finished, total):
    print(finished, flush=True)
    time.sleep(float(pause_s))

try:
    build_store(folder, IMAGENET, read_val_map(dataset), workers=2, progress=progress)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of COUNT small photographs; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("dataset")
    for index in range(COUNT):
        (folder / f"{index}.JPEG").write_bytes(jpeg(scenery(60 + index, 90 - index, seed=index)))
    (folder / "val_map.txt").write_text("".join(f"{index}.JPEG {index % 7}\n" for index in range(COUNT)))
    return folder


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the data set, built without interruption; not to be changed."""
    folder = tmp_path_factory.mktemp("stores") / "finished"
    build_store(folder, IMAGENET, read_val_map(dataset), workers=1)
    return folder


@pytest.fixture
def copy(dataset: Path, finished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A data set and its store, free to be changed."""
    shutil.copytree(dataset, tmp_path / "dataset")  # keeps modification times
    shutil.copytree(finished, tmp_path / "store")
    return tmp_path / "dataset", tmp_path / "store"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def start_builder(dataset: Path, folder: Path, pause_s: float = 0.0, limit: str = "none") -> subprocess.Popen[str]:
    root = Path(preprocessing.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(dataset), str(folder), str(pause_s), limit],
        cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def read_progress(builder: subprocess.Popen[str], until: int) -> None:
    assert builder.stdout is not None
    for line in builder.stdout:
        if int(line) >= until:
            return
    pytest.fail(f"the builder ended early: {builder.communicate()[1]}")


def interrupted_build(dataset: Path, folder: Path, after: int) -> None:
    """A build that Ctrl-C ends after so many pictures."""

    def progress(finished: int, _total: int) -> None:
        if finished == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(folder, IMAGENET, read_val_map(dataset), workers=1, progress=progress)


def resume(dataset: Path, folder: Path) -> list[int]:
    """Finish a store; the numbers that the progress callback saw."""
    seen: list[int] = []
    build_store(folder, IMAGENET, read_val_map(dataset), progress=lambda done, _total: seen.append(done))
    return seen


def test_holds_the_preprocessed_images(dataset: Path, finished: Path) -> None:
    val_map = read_val_map(dataset)
    store = open_store(finished, IMAGENET, val_map, verify="everything")
    assert store.images.shape == (COUNT, 224, 224, 3)
    assert store.images.dtype == np.uint8
    assert not store.images.flags.writeable
    assert store.files == val_map.files
    assert store.labels.tolist() == [index % 7 for index in range(COUNT)]
    for index, file in enumerate(val_map.files):
        np.testing.assert_array_equal(store.images[index], preprocess(dataset / file, IMAGENET))


def test_manifest_records_recipe_files_and_source_digests(dataset: Path, finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["recipe_digest"] == IMAGENET.digest()
    assert manifest["files"] == [f"{index}.JPEG" for index in range(COUNT)]
    for file, record in zip(manifest["files"], manifest["records"], strict=True):
        assert record["source_sha256"] == hashlib.sha256((dataset / file).read_bytes()).hexdigest()
    assert not (finished / "journal.jsonl").exists()


def test_number_of_workers_does_not_matter(dataset: Path, finished: Path, tmp_path: Path) -> None:
    build_store(tmp_path / "store", IMAGENET, read_val_map(dataset), workers=5)
    assert contents(tmp_path / "store") == contents(finished)


def test_building_again_does_nothing(dataset: Path, copy: tuple[Path, Path]) -> None:
    _, folder = copy
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}
    assert resume(dataset, folder) == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"} == before


def test_progress_counts_up(dataset: Path, tmp_path: Path) -> None:
    assert resume(dataset, tmp_path / "store") == list(range(1, COUNT + 1))


@pytest.mark.parametrize("kill_at", [1, 9, 18, COUNT])
def test_kill_9_then_resume_is_byte_identical(kill_at: int, dataset: Path, finished: Path, tmp_path: Path) -> None:
    """The builder pauses after each picture, so that the later kills come after one and two commits to the journal."""
    folder = tmp_path / "store"
    builder = start_builder(dataset, folder, pause_s=0.12)
    read_progress(builder, kill_at)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    kept = (folder / "journal.jsonl").read_bytes().count(b"\n")
    assert resume(dataset, folder) == list(range(kept + 1, COUNT + 1))
    assert kept >= (kill_at - 9) // 2  # one commit a second, eight pictures a second
    assert contents(folder) == contents(finished)


def test_kill_9_while_starting_then_resume(dataset: Path, finished: Path, tmp_path: Path) -> None:
    """At whatever point of the start it hits: before the folder exists, while it is prepared, in the first pictures."""
    folder = tmp_path / "store"
    for delay_s in (0.3, 0.6, 0.9, 1.2):
        builder = start_builder(dataset, folder, pause_s=0.2)
        time.sleep(delay_s)
        builder.send_signal(signal.SIGKILL)
        builder.communicate()
    resume(dataset, folder)
    assert contents(folder) == contents(finished)


def test_interrupt_keeps_what_is_finished(dataset: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    interrupted_build(dataset, folder, after=10)
    with pytest.raises(StoreError, match=r"only 10 of 24 images are preprocessed; build the store, which continues"):
        open_store(folder, IMAGENET, read_val_map(dataset))
    assert open_store(folder, IMAGENET, read_val_map(dataset, 10)).images.shape[0] == 10
    assert resume(dataset, folder) == list(range(11, COUNT + 1))
    assert contents(folder) == contents(finished)


def test_torn_journal_costs_only_its_torn_part(dataset: Path, finished: Path, tmp_path: Path) -> None:
    interrupted_build(dataset, tmp_path / "interrupted", after=4)
    journal = (tmp_path / "interrupted" / "journal.jsonl").read_bytes()
    lines = journal.splitlines(keepends=True)
    assert len(lines) == 4
    torn = {
        "nothing left": (b"", 0),
        "in the first line": (lines[0][:20], 0),
        "before a line's end": (journal[:-1], 3),
        "in the last line": (journal[:-30], 3),
        "between lines": (b"".join(lines[:2]), 2),
        "zeros after a power cut": (b"".join(lines[:2]) + bytes(300), 2),
        "rubbish in the middle": (lines[0] + b'{"index": 1}\n' + lines[2], 1),
        "an index out of range": (lines[0] + lines[1].replace(b'"index": 1', b'"index": -1') + lines[2], 1),
    }
    for case, (remains, kept) in torn.items():
        folder = tmp_path / case
        shutil.copytree(tmp_path / "interrupted", folder)
        (folder / "journal.jsonl").write_bytes(remains)
        assert resume(dataset, folder)[0] == kept + 1, case
        assert contents(folder) == contents(finished), case


def test_leftovers_of_a_crash_at_the_end_are_cleared(dataset: Path, finished: Path, copy: tuple[Path, Path]) -> None:
    """Killed after the manifest was replaced, before the journal was removed; and while replacing it once more."""
    _, folder = copy
    record = json.loads((folder / "manifest.json").read_text())["records"][3]
    (folder / "journal.jsonl").write_text(json.dumps({"index": 3, **record}) + "\n")
    (folder / "manifest.json.new").write_text('{"format": "loadg')
    assert open_store(folder, IMAGENET, read_val_map(dataset)).images.shape[0] == COUNT
    assert resume(dataset, folder) == []
    assert contents(folder) == contents(finished)


def test_a_store_grows_and_serves_its_beginning(dataset: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    build_store(folder, IMAGENET, read_val_map(dataset, 5))
    assert resume(dataset, folder) == list(range(6, COUNT + 1))
    assert contents(folder) == contents(finished)
    fewer = build_store(folder, IMAGENET, read_val_map(dataset, 3))
    assert fewer.images.shape[0] == 3
    assert contents(folder) == contents(finished)


def test_two_builders_at_once_and_the_lock_of_a_dead_one(dataset: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    builder = start_builder(dataset, folder, pause_s=5)
    read_progress(builder, 1)
    with pytest.raises(StoreError, match=rf"process {builder.pid} is building this store; wait for it or end it$"):
        build_store(folder, IMAGENET, read_val_map(dataset))
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    resume(dataset, folder)
    assert contents(folder) == contents(finished)


def test_a_bad_image_ends_the_build_and_keeps_the_rest(copy: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, _ = copy
    good = (dataset / "13.JPEG").read_bytes()
    (dataset / "13.JPEG").write_bytes(good[:-100])
    folder = tmp_path / "new"
    with pytest.raises(ImageError, match=r"13\.JPEG: truncated"):
        build_store(folder, IMAGENET, read_val_map(dataset), workers=1)
    (dataset / "13.JPEG").write_bytes(good)
    assert resume(dataset, folder) == list(range(14, COUNT + 1))


def test_full_disk_at_the_start_leaves_nothing_in_the_way(dataset: Path, finished: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: the space for all pictures is reserved before the first is made."""
    folder = tmp_path / "store"
    builder = start_builder(dataset, folder, limit=str(10 * 224 * 224 * 3))
    output, errors = builder.communicate()
    assert output == ""
    assert errors.startswith(f"StoreError: {folder}: File too large; make room and run again"), errors
    assert sum(len(data) for data in contents(folder).values()) == 0
    resume(dataset, folder)
    assert contents(folder) == contents(finished)


def test_full_disk_at_the_manifest(dataset: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "manifest.json.new").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"No space left on device; make room and run again: what is finished is kept"):
        build_store(folder, IMAGENET, read_val_map(dataset))
    resume(dataset, folder)
    assert contents(folder) == contents(finished)


def replace_source(dataset: Path) -> None:
    (dataset / "5.JPEG").write_bytes((dataset / "6.JPEG").read_bytes())


def change_source_keeping_its_size(dataset: Path) -> None:
    path = dataset / "5.JPEG"
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


def reorder(dataset: Path) -> None:
    lines = (dataset / "val_map.txt").read_text().splitlines(keepends=True)
    (dataset / "val_map.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))


def relabel(dataset: Path) -> None:
    text = (dataset / "val_map.txt").read_text()
    (dataset / "val_map.txt").write_text(text.replace("2.JPEG 2\n", "2.JPEG 3\n", 1))


def cut_images(store: Path) -> None:
    os.truncate(store / "images.u8", 1000)


def remove_images(store: Path) -> None:
    (store / "images.u8").unlink()


def garble_manifest(store: Path) -> None:
    (store / "manifest.json").write_text((store / "manifest.json").read_text()[:-50])


def foreign_manifest(store: Path) -> None:
    (store / "manifest.json").write_text('{"name": "an app", "icons": []}')


def list_manifest(store: Path) -> None:
    (store / "manifest.json").write_text("[1]")


def later_format(store: Path) -> None:
    text = (store / "manifest.json").read_text()
    (store / "manifest.json").write_text(text.replace("format 1", "format 2", 1))


def unequal_lists(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["labels"][3]
    (store / "manifest.json").write_text(json.dumps(manifest))


CHANGED_DATASETS = [
    (
        replace_source,
        r"stale store: .*5\.JPEG has changed since it was preprocessed; delete the folder and build again",
    ),
    (change_source_keeping_its_size, r"stale store: .*5\.JPEG has changed since it was preprocessed"),
    (reorder, r"stale store: its sample 0 is 0\.JPEG of class 0, in .* it is 1\.JPEG of class 1; delete"),
    (relabel, r"stale store: its sample 2 is 2\.JPEG of class 2, in .* it is 2\.JPEG of class 3; delete"),
]
DAMAGED_STORES = [
    (cut_images, r"images\.u8 has 1000 bytes instead of 3612672; delete the folder and build the store again"),
    (remove_images, r"images\.u8 has 0 bytes instead of 3612672; delete"),
    (garble_manifest, r"manifest\.json: not the manifest of a store \(JSONDecodeError: .*\); choose another folder"),
    (foreign_manifest, r"manifest\.json: not the manifest of a store \(KeyError: 'format'\); choose another folder"),
    (list_manifest, r"manifest\.json: not the manifest of a store \(TypeError: .*\); choose another folder"),
    (later_format, r"unknown format 'loadgen-numba preprocessed images, format 2', expected .*; delete the folder"),
    (unequal_lists, r"not the manifest of a store \(ValueError: lists of different lengths\)"),
]


@pytest.mark.parametrize(
    ("harm", "text"), CHANGED_DATASETS + DAMAGED_STORES, ids=lambda value: getattr(value, "__name__", "")
)
def test_stale_or_damaged_stores_are_refused(harm: Callable[[Path], None], text: str, copy: tuple[Path, Path]) -> None:
    dataset, store = copy
    harm(dataset if (harm, text) in CHANGED_DATASETS else store)
    before = contents(store)
    for use in (open_store, build_store):
        with pytest.raises(StoreError, match=text) as caught:
            use(store, IMAGENET, read_val_map(dataset))
        assert str(caught.value).startswith(str(store))
        assert "\n" not in str(caught.value)
    assert contents(store) == before


def test_another_recipe_is_refused(dataset: Path, finished: Path) -> None:
    for use in (open_store, build_store):
        with pytest.raises(
            StoreError,
            match=r"a store made by recipe imagenet \(\w{12}\), not imagenet_mobilenet \(\w{12}\): if the pro",
        ):
            use(finished, MOBILENET, read_val_map(dataset))


def test_foreign_folders_are_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(
        StoreError, match=r"not a store .* \(it holds thesis\.tex, but no manifest\.json\); choose an empty"
    ):
        build_store(tmp_path, IMAGENET, read_val_map(dataset))
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_opening_what_is_not_there(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store of preprocessed images; build it first"):
        open_store(tmp_path / "none", IMAGENET, read_val_map(dataset))
    (tmp_path / "file").touch()
    for use in (open_store, build_store):
        with pytest.raises(StoreError, match=r"/file: a file, not a folder; name a folder for the store"):
            use(tmp_path / "file", IMAGENET, read_val_map(dataset))


def test_touched_or_moved_sources_pass(copy: tuple[Path, Path]) -> None:
    dataset, folder = copy
    for path in dataset.iterdir():
        os.utime(path, ns=(1, 1))
    moved = dataset.rename(dataset.parent / "moved")
    assert open_store(folder, IMAGENET, read_val_map(moved)).images.shape[0] == COUNT


def test_verify_finds_what_the_cheap_check_cannot(copy: tuple[Path, Path]) -> None:
    dataset, folder = copy
    source = dataset / "5.JPEG"
    status = source.stat()
    change_source_keeping_its_size(dataset)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    val_map = read_val_map(dataset)
    open_store(folder, IMAGENET, val_map)
    with pytest.raises(StoreError, match=r"5\.JPEG has changed since it was preprocessed"):
        open_store(folder, IMAGENET, val_map, verify="everything")
    open_store(folder, IMAGENET, val_map, verify="pictures")
    with (folder / "images.u8").open("r+b") as images:
        images.seek(2 * 224 * 224 * 3 + 99)
        byte = images.read(1)
        images.seek(-1, os.SEEK_CUR)
        images.write(bytes([byte[0] ^ 1]))
    open_store(folder, IMAGENET, val_map)
    with pytest.raises(StoreError, match=r"picture 2 \(2\.JPEG\) in images\.u8 is damaged: .*; delete the folder"):
        open_store(folder, IMAGENET, ValMap(dataset, val_map.files[:5], val_map.labels[:5]), verify="pictures")
    open_store(folder, IMAGENET, ValMap(dataset, val_map.files[:2], val_map.labels[:2]), verify="pictures")


def test_a_source_that_is_gone_is_named(copy: tuple[Path, Path]) -> None:
    dataset, folder = copy
    val_map = read_val_map(dataset)
    (dataset / "4.JPEG").unlink()
    for use in (open_store, build_store):
        with pytest.raises(ImageError, match=r"4\.JPEG: no such image"):
            use(folder, IMAGENET, val_map)


@pytest.fixture(autouse=True)
def no_threads_stay_behind() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("preprocess")] == []


def test_manifest_says_what_made_the_pictures(dataset: Path, copy: tuple[Path, Path]) -> None:
    """Versions as the packages state them; a store begun by another installation keeps that one's entry, and opens."""
    own = json.loads((copy[1] / "manifest.json").read_text())["made_with"]
    assert len(own) == 1
    assert own[0].startswith(f"resizer numba {numba.__version__}, Pillow {PIL.__version__}, libjpeg-turbo ")
    val_map = read_val_map(dataset)
    folder = copy[1].parent / "grown"
    half = ValMap(val_map.dataset_path, val_map.files[:9], val_map.labels[:9])
    build_store(folder, IMAGENET, half)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["made_with"] = ["resizer numpy 1.26.0, Pillow 10.0.0, libjpeg-turbo 2.1.0"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    build_store(folder, IMAGENET, half)  # nothing to do: nobody joins
    assert json.loads((folder / "manifest.json").read_text())["made_with"] == manifest["made_with"]
    build_store(folder, IMAGENET, val_map)
    assert json.loads((folder / "manifest.json").read_text())["made_with"] == [*manifest["made_with"], *own]


def test_a_store_from_before_that_was_written_down_opens(copy: tuple[Path, Path]) -> None:
    dataset, folder = copy
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["made_with"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert len(open_store(folder, IMAGENET, read_val_map(dataset)).images) == COUNT
