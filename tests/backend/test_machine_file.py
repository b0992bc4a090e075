"""Machines described by a file: what is written holds, what is not is detected, what is wrong is refused."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from onnx_models import model, node

from backend import InferenceSession, MachineError, detect, machine_file, plan_model, read_machine, usable_threads
from backend.simd.isa import EXTENSIONS

BOARD = """
cpu = "Cortex-A76"
isa = "neon"
extensions = ["asimddp"]
cores = 4
l1d_bytes = 65536
l2_bytes = 524288
l3_bytes = 2097152
"""


MODEL = model([node("Conv", "x w", "y")], {"x": ["N", 3, 8, 8]}, ["y"], {"w": np.ones((8, 3, 3, 3), np.float32)})


def write(folder: Path, text: str) -> Path:
    path = folder / "board.toml"
    path.write_text(text)
    return path


def test_a_board_that_is_elsewhere(tmp_path: Path) -> None:
    found = read_machine(write(tmp_path, BOARD))
    assert (found.cpu, found.cores, found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (
        "Cortex-A76", 4, 65536, 524288, 2097152,
    )  # fmt: skip
    assert (found.isa.name, found.isa.extensions) == ("neon", ("asimddp",))
    assert "board.toml" in found.sources["l2_bytes"]


def examples() -> list[str]:
    """Of the module, and of the page about Arm."""
    page = (Path(__file__).parents[2] / "docs/arm.md").read_text()
    indented = re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", machine_file.__doc__ or "")
    return [*map(textwrap.dedent, indented), *re.findall(r"```toml\n(.*?)```", page, re.S)]


def test_examples_can_be_read(tmp_path: Path) -> None:
    assert len(examples()) == 3
    for text in examples():
        found = read_machine(write(tmp_path, text))
        stated = set(re.findall(r"^(?:\[\[)?(\w+)", text, re.M)) - {"cpus", "capacity", "isa", "extensions"}
        assert all("board.toml" in found.sources[key] for key in stated)


@pytest.mark.parametrize(
    "text, source",
    [
        (BOARD, "machine file {}"),
        ("cores = 2", "CPU flags"),
        ("extensions = []", "CPU flags; extensions: machine file {}"),
    ],
)
def test_where_the_isa_is_from(text: str, source: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    assert read_machine(path).sources["isa"] == source.format(path)


CLUSTERS = """
[[clusters]]
cpus = [0, 1, 2, 3]
capacity = 414
[[clusters]]
cpus = [4, 5, 6, 7]
capacity = 1024
"""
ELSEWHERE = BOARD if detect().isa.architecture == "x86_64" else "isa = 'avx2'\n"


def test_clusters_of_a_board_that_is_elsewhere(tmp_path: Path) -> None:
    """Fastest first; a session's threads are as many as there are big cores."""
    found = read_machine(write(tmp_path, ELSEWHERE.replace("cores = 4", "") + CLUSTERS))
    assert [(cluster.cpus, cluster.capacity) for cluster in found.clusters] == [
        ((4, 5, 6, 7), 1024),
        ((0, 1, 2, 3), 414),
    ]
    assert (found.cores, usable_threads(None, found)) == (8, 4)


def test_cores_without_clusters_are_alike(tmp_path: Path) -> None:
    found = read_machine(write(tmp_path, ELSEWHERE + "cores = 6\n" if "cores" not in ELSEWHERE else ELSEWHERE))
    assert found.clusters == () and usable_threads(None, found) == found.cores > 2


def test_clusters_of_this_machine_are_of_cpus_that_may_be_used(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    found = read_machine(write(tmp_path, f"[[clusters]]\ncpus = [{allowed[0]}, 100000]\ncapacity = 1024\n"))
    assert [cluster.cpus for cluster in found.clusters] == [(allowed[0],)]
    assert (found.cores, found.fast_cores) == (1, 1)


def test_a_number_of_cores_that_the_clusters_have_not_is_refused(tmp_path: Path) -> None:
    text = "isa = 'neon'\ncores = 2\n" if detect().isa.architecture == "x86_64" else "isa = 'avx2'\ncores = 2\n"
    clusters = "[[clusters]]\ncpus = [0, 1, 2, 3]\ncapacity = 9\n"
    with pytest.raises(MachineError, match="cores is 2, but 4 CPUs of the clusters may be used"):
        read_machine(write(tmp_path, text + clusters))


def test_what_is_left_out_is_detected(tmp_path: Path) -> None:
    here = detect()
    found = read_machine(write(tmp_path, "l2_bytes = 4096\n"))
    assert found.l2_bytes == 4096
    assert (found.isa, found.cores, found.l3_bytes) == (here.isa, here.cores, here.l3_bytes)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("l4_bytes = 1", "unknown key 'l4_bytes': the keys are cpu, isa, extensions, cores, l1d_bytes"),
        ("cores = 0", "cores = 0: 1 to 4096 is needed"),
        ("cores = true", "cores = True: 1 to 4096 is needed"),
        ("l2_bytes = '1M'", "l2_bytes = '1M': 1 to 1099511627776 is needed"),
        ("isa = 'mmx'", "isa = 'mmx': one of avx512, avx2, neon, generic is needed"),
        ("isa = 'neon'\nextensions = ['avx']", "extensions ['avx']: those of neon are ['asimddp', "),
        ("cores =", "is no TOML: "),
        ("clusters = [0]", "clusters = [0]: a table [[clusters]] for each, of cpus (a list of their numbers)"),
        ("[[clusters]]\ncpus = [0]", "a table [[clusters]] for each"),
        ("[[clusters]]\ncpus = [0, 0]\ncapacity = 9", "clusters name CPU 0 twice"),
        ("[[clusters]]\ncpus = [100000]\ncapacity = 9", "none of the clusters' CPUs [100000] may be used here"),
    ],
)
def test_what_no_machine_has_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=re.escape(complaint)) as caught:
        read_machine(write(tmp_path, text))
    assert str(caught.value).startswith(f"machine file {tmp_path / 'board.toml'}")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be read: No such file"):
        read_machine(tmp_path / "none.toml")


def test_plans_follow_the_file(tmp_path: Path) -> None:
    """A file instead of a machine: the plan is for its caches."""
    small = write(tmp_path, "l2_bytes = 4096\n")
    plan = plan_model(MODEL, machine=small)
    assert plan.machine.l2_bytes == 4096


def test_another_architecture_can_be_planned_for_but_not_run(tmp_path: Path) -> None:
    other = write(tmp_path, BOARD if detect().isa.architecture == "x86_64" else "isa = 'avx2'\n")
    assert plan_model(MODEL, machine=other).machine.isa.architecture != detect().isa.architecture
    with pytest.raises(MachineError, match="it cannot run here"):
        InferenceSession(MODEL, machine=other, threads=1)


def test_extensions_that_this_cpu_lacks_can_be_planned_for_but_not_run(tmp_path: Path) -> None:
    """Code with instructions that the CPU does not have would end the process."""
    here = detect()
    missing = [name for name in EXTENSIONS.get(here.isa.name, ()) if name not in here.isa.extensions]
    if not missing:
        pytest.skip("this CPU has them all")
    other = write(tmp_path, f"isa = '{here.isa.name}'\nextensions = ['{missing[0]}']\n")
    assert plan_model(MODEL, machine=other).machine.isa.extensions == (missing[0],)
    with pytest.raises(MachineError, match=f"a CPU with {missing[0]}, which this one lacks .*: it cannot run here"):
        InferenceSession(MODEL, machine=other, threads=1)
