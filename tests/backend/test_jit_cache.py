"""The disk cache of compiled kernels: named by the sources, used by the next process, never silently elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx_models import model, node

import backend
from backend.kernels import jit
from backend.kernels.conv_gemm import conv_gemm_units

_PACKAGE = Path(backend.__file__).parent


def run_copy(folder: Path, body: str, **environment: str) -> str:
    """What a script prints that imports the copy of the package in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of the package that a test may change."""
    shutil.copytree(_PACKAGE, tmp_path / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def digest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The name of the cache folder as it follows from the sources of the copy."""
    monkeypatch.setattr(jit, "_PACKAGE", copy / "backend")
    return jit._source_digest


def append(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / "backend" / path).open("a") as file:
            file.write("\n# changed\n")

    return change


def add_kernel(folder: Path) -> None:
    (folder / "backend" / "kernels" / "another.py").write_text("")


@pytest.mark.parametrize(
    "change",
    [append("kernels/rows.py"), append("simd/vector.py"), append("plan/executor.py"), add_kernel],
    ids=["kernel", "vector-operation", "executor", "new-kernel"],
)
def test_a_changed_source_changes_the_folder(
    change: Callable[[Path], None], copy: Path, digest: Callable[[], str]
) -> None:
    """Numba itself looks at the file of the function that it loads, not at its callees'."""
    before = digest()
    assert before == jit.CACHE_DIR.name, "the copy has the sources of the original"
    change(copy)
    assert digest() != before


def test_what_is_not_compiled_leaves_the_folder_alone(copy: Path, digest: Callable[[], str]) -> None:
    before = digest()
    append("reference.py")(copy)
    append("plan/blocking.py")(copy)
    assert digest() == before


RUN = """
    import numpy as np
    from backend.graph.builder import GraphBuilder
    from backend.graph.ir import Clip, Value
    from backend.kernels.jit import CACHE_DIR, prepare_cache
    from backend.machine import detect
    from backend.plan.planner import make_plan
    from backend.errors import MachineError

    builder = GraphBuilder(13)
    builder.values["x"] = Value("x", (-1, 3))
    builder.emit(Clip("clip", "x", "y", 0.0, 1.0))
    plan = make_plan(builder.graph("g", ("x",), ("y",)), detect(), 1)
    try:
        prepare_cache()
    except MachineError as error:
        raise SystemExit(print(error))
    from backend.kernels.table import KERNELS, kernel_addresses
    kernel_addresses(detect().isa, plan.kernels)
    stats = [KERNELS[key.name].stats for key in plan.kernels]
    print(sum(sum(s.cache_hits.values()) for s in stats), sum(sum(s.cache_misses.values()) for s in stats))
"""


def test_the_next_process_compiles_nothing(copy: Path) -> None:
    """Three kernels (in, clip, out) are compiled once, then loaded; all that is written lies under the cache folder."""
    home = {"XDG_CACHE_HOME": str(copy / "cache")}
    assert run_copy(copy, RUN, **home) == "0 3"
    assert run_copy(copy, RUN, **home) == "3 0"
    assert list((copy / "cache").rglob("*.nbc"))
    assert not list((copy / "backend").rglob("*.nbc"))


STORE = """
    import sys
    import time
    from pathlib import Path
    import numpy as np
    from numba.core import caching
    from backend.kernels.jit import jit_entry

    def met(self, load=caching.IndexDataCacheFile._load_index):
        found = load(self)
        Path(sys.argv[1]).touch()
        end = time.monotonic() + 5
        while len(list(Path().glob("read-*"))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        return found

    def met_at_the_second_time(self, load=caching.IndexDataCacheFile._load_index):
        caching.IndexDataCacheFile._load_index = met  # to store: the first time it looked for the function
        return load(self)

    @jit_entry
    def doubled(x):
        return x + x

    if sys.argv[1].startswith("read-"):
        caching.IndexDataCacheFile._load_index = met_at_the_second_time
    print(doubled(getattr(np, sys.argv[2])(1.5)), doubled.nopython_signatures[0].return_type, *doubled.stats.cache_hits)
"""


def test_processes_that_store_at_once_keep_their_code_apart(copy: Path) -> None:
    """Numba's own cache gives both files one name, if both have read the index of the function before either writes.

    So each waits there for the other, which the lock keeps from coming.
    """
    script = copy / "store.py"
    script.write_text(textwrap.dedent(STORE))
    environment = {**os.environ, "PYTHONPATH": str(copy), "XDG_CACHE_HOME": str(copy / "cache")}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), *arguments]
        return subprocess.Popen(command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True)

    def printed(process: subprocess.Popen[str]) -> str:
        try:
            return process.communicate(timeout=120)[0].strip()
        finally:
            process.kill()

    storing = [start("read-1", "int32"), start("read-2", "float32")]
    assert [printed(process) for process in storing] == ["2 int64", "3.0 float32"]
    assert printed(start("load", "int32")) == "2 int64 (int32,)"
    assert printed(start("load", "float32")) == "3.0 float32 (float32,)"


def test_what_only_compiled_code_calls_is_no_entry_point() -> None:
    """Its code has no way in from Python: a call would end the process."""
    with pytest.raises(TypeError, match="conv_gemm_units is compiled for compiled code only"):
        jit.entry_point(conv_gemm_units, ())


def test_a_cache_that_cannot_be_written_is_an_error(copy: Path) -> None:
    """Numba would fall back to the sources' own folder in silence; we say what to set."""
    blocked = copy / "a file where the folder should be"
    blocked.write_text("")
    output = run_copy(copy, RUN, XDG_CACHE_HOME=str(blocked))
    assert output.startswith(f"compiled kernels cannot be kept in {blocked}")
    assert output.endswith("set XDG_CACHE_HOME to a folder that can be written to")


def test_folders_unused_for_a_month_are_removed(copy: Path) -> None:
    """Of other versions only; the folder in use counts as used today, and what cannot be removed does no harm."""
    home = {"XDG_CACHE_HOME": str(copy / "cache")}
    assert run_copy(copy, RUN, **home) == "0 3"
    (own,) = (copy / "cache" / "loadgen-numba" / "kernels").iterdir()
    day_s = 24 * 3600
    for name, days in (("old", 31), (".removed-older-1", 400), ("recent", 29), (own.name, 500)):
        folder = own.parent / name
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / "kernel.nbc").write_text("")
        os.utime(folder, (time.time() - days * day_s,) * 2)
    note = own.parent / "a file.txt"
    note.write_text("")
    os.utime(note, (0, 0))
    assert run_copy(copy, RUN, **home) == "3 0"
    assert {path.name for path in own.parent.iterdir()} == {"recent", own.name, note.name}
    assert time.time() - own.stat().st_mtime < day_s


def test_a_folder_that_cannot_be_removed_stays(tmp_path: Path) -> None:
    """A real refusal, and also for root: another process's folder of the same name is in the way."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, 0))
    blocked = tmp_path / f".removed-one-{os.getpid()}"
    (blocked / "inside").mkdir(parents=True)
    jit._remove_unused(tmp_path, 1.0)
    assert {path.name for path in tmp_path.iterdir()} == {"one", blocked.name}


THEIRS = """
    import numpy as np
    import theirs_before, numba
    from pathlib import Path
    set_before = numba.config.CACHE_DIR
    from backend import InferenceSession
    from backend.kernels.jit import CACHE_DIR
    InferenceSession("model.onnx", threads=1).run(None, {"x": np.ones((1, 3), np.float32)})
    import theirs_after
    assert theirs_before.one(1) + theirs_after.one(1) == 4
    assert numba.config.CACHE_DIR == set_before
    print(theirs_before.one.stats.cache_path)
    print(theirs_after.one.stats.cache_path)
    print(len(list(CACHE_DIR.rglob("theirs*"))), len(list(CACHE_DIR.rglob("*.nbi"))) > 2)
"""


@pytest.mark.parametrize("chosen", [None, "numba's"], ids=["default", "NUMBA_CACHE_DIR"])
def test_a_users_own_functions_keep_their_cache(chosen: str | None, copy: Path) -> None:
    """His functions, decorated before and after a session was made, are where Numba puts them without us."""
    for name in ("before", "after"):
        (copy / f"theirs_{name}.py").write_text(
            "import numba\n\n@numba.njit(cache=True)\ndef one(x):\n    return x + 1\n"
        )
    onnx.save(model([node("Relu", "x", "y")], {"x": ["N", 3]}, ["y"]), copy / "model.onnx")
    environment = {} if chosen is None else {"NUMBA_CACHE_DIR": str(copy / chosen)}
    output = run_copy(copy, THEIRS, XDG_CACHE_HOME=str(copy / "cache"), **environment).splitlines()
    for path in output[:2]:
        assert Path(path).is_relative_to(copy / "__pycache__" if chosen is None else copy / chosen)
        assert list(Path(path).glob("theirs*.nbi"))
    assert output[2] == "0 True"
