"""The cache of the demo: nothing half-built is taken for finished, two builders build once, same bytes every time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.demo import assets
from harness.demo.images import CLASSES
from harness.errors import BadInputError
from harness.progress import Quiet
from preprocessing import read_val_map

SEED = 5
REPOSITORY = Path(__file__).parents[2]


class Phases(Quiet):
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def phase(self, text: str) -> None:
        self.texts.append(text)


def in_other_process(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path\nfrom harness.demo import assets\n{code}"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_second_call_builds_nothing(tmp_path: Path) -> None:
    progress = Phases()
    first = assets.ensure_images(tmp_path, progress, count=5, seed=SEED)
    assert len(progress.texts) == 1
    assert assets.ensure_images(tmp_path, progress, count=5, seed=SEED) == first
    assert len(progress.texts) == 1
    other, _ = assets.ensure_images(tmp_path, progress, count=6, seed=SEED)
    assert len(progress.texts) == 2 and other != first[0]


def test_killed_build_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    count = 60
    builder = in_other_process(
        "from harness.progress import Quiet\n"
        f"assets.ensure_images(Path({str(tmp_path)!r}), Quiet(), count=5000, seed={SEED})"
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*/*.JPEG"))) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    leftover = {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.glob("*/*.JPEG"))) >= count
    assert all(name.endswith((".partial", ".lock")) for name in leftover)

    # The same asset again: a leftover of the killed build, made to belong to a smaller one, is swept away.
    (partial,) = tmp_path.glob("*.partial")
    folder, _ = assets.ensure_images(tmp_path / "other", Quiet(), count=4, seed=SEED)
    expected = contents(folder)
    shutil.rmtree(folder)
    partial.rename(folder.with_name(f"{folder.name}.partial"))
    rebuilt, _ = assets.ensure_images(tmp_path / "other", Quiet(), count=4, seed=SEED)
    assert contents(rebuilt) == expected
    assert not list(rebuilt.parent.glob("*.partial"))


def test_two_builders_build_once(tmp_path: Path) -> None:
    progress = Phases()
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: assets.ensure_images(tmp_path, progress, count=20, seed=SEED), range(4), timeout=60)
        )
    assert all(result == results[0] for result in results)
    assert len(progress.texts) == 1
    assert len(read_val_map(results[0][0]).labels) == 20


def test_failed_build_leaves_no_folder(tmp_path: Path) -> None:
    class Full(Quiet):
        def update(self, _text: str) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(BadInputError, match=r"No space left on device.*needs 1 MB.*free some space"):
        assets.ensure_images(tmp_path, Full(), count=3, seed=SEED)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInputError, match=r"file.*cannot be stored there.*choose another folder"):
        assets.ensure_images(tmp_path / "file", Quiet(), count=1, seed=SEED)


def test_damaged_record_is_one_line(tmp_path: Path) -> None:
    folder, _ = assets.ensure_images(tmp_path, Quiet(), count=1, seed=SEED)
    (folder / assets.RECORD_NAME).write_text('{"asset": ')
    with pytest.raises(BadInputError, match=r"damaged.*delete the folder"):
        assets.ensure_images(tmp_path, Quiet(), count=1, seed=SEED)


def test_same_model_bytes_with_another_number_of_threads(tmp_path: Path) -> None:
    """A small model built here and in a process with one CPU, where BLAS and the engine share work out differently."""
    counts = f"fitting_count={len(CLASSES)}, held_out_count={len(CLASSES)}, seed={SEED}"
    other = in_other_process(
        "import os\n"
        "from harness.progress import Quiet\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        f"print(assets.ensure_model(Path({str(tmp_path / 'one')!r}), Quiet(), {counts})[0])",
        OPENBLAS_NUM_THREADS="1",
    )
    here, record = assets.ensure_model(
        tmp_path / "all", Quiet(), seed=SEED, fitting_count=len(CLASSES), held_out_count=len(CLASSES)
    )
    there = Path(other.communicate()[0].strip())
    assert other.returncode == 0
    assert there.name == here.name == f"model-{here.name.removeprefix('model-')}"
    assert contents(there) == contents(here)
    assert record["isa"] in (here / assets.RECORD_NAME).read_text()


def test_another_isa_is_chosen_before_anything_is_compiled(tmp_path: Path) -> None:
    """With a cold cache, images are resized, by compiled code, before the engine opens. Ends when that has opened."""
    process = in_other_process(
        "from harness.demo import fit\n"
        "from harness.progress import Quiet\n"
        "class UntilOpen(Quiet):\n"
        "    def phase(self, text):\n"
        "        if 'computing features' in text: raise SystemExit(text)\n"
        "fit.fit_model(1, 1, 1, UntilOpen(), isa='generic')",
        XDG_CACHE_HOME=str(tmp_path),
    )
    _, complaint = process.communicate(timeout=120)
    assert complaint.strip() == "demo model: computing features of 1 images"
