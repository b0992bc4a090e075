"""How the C library is built and refused: by real compilers, in cache folders of its own."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from plan_runner import KERNELS

from backend import InferenceSession, MachineError
from backend.kernels.step import KernelKey, KernelName
from backend.neon import build, library
from backend.simd.isa import EXTENSIONS, NEON

_CROSS = "aarch64-linux-gnu-gcc"
_COMPILER = "cc" if platform.machine() == "aarch64" else _CROSS
needs_compiler = pytest.mark.skipif(KERNELS != "neon", reason="needs a compiler for Arm: tools/arm64/test --kernels")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", _COMPILER)


def test_a_missing_compiler_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(MachineError, match=r"no C compiler 'no-such-compiler'.*apt-get install gcc libc6-dev"):
        build.build_library(frozenset())


def test_a_compiler_that_cannot_be_named_or_started_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "gcc '-O2")
    with pytest.raises(MachineError, match=r"^the environment variable CC is .gcc '-O2., .* \(no closing quotation"):
        build.build_library(frozenset())
    foreign = tmp_path / "foreign-cc"
    foreign.write_bytes(b"\x7fELF of another machine")
    foreign.chmod(0o755)
    monkeypatch.setenv("CC", str(foreign))
    with pytest.raises(MachineError, match=rf"'{foreign}' cannot be started: Exec format error$"):
        build.build_library(frozenset())


_STAND_IN = """#!/bin/sh
echo "$LC_ALL" >> "$0.log"
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""
"""A compiler, as far as `build` can tell."""


def test_a_library_that_is_there_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image that is built with a compiler and deployed without. Messages are asked for untranslated."""
    compiler = tmp_path / "bin" / "stand-in"
    compiler.parent.mkdir()
    compiler.write_text(_STAND_IN)
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(compiler.parent), prepend=os.pathsep)
    monkeypatch.setenv("CC", "stand-in")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    path = build.build_library(frozenset())
    log = compiler.with_name("stand-in.log")
    calls = log.read_text().splitlines()
    assert path.read_text() == "built\n" and set(calls) == {"C"}
    assert build.build_library(frozenset()) == path and log.read_text().splitlines() == calls
    compiler.unlink()
    assert build.build_library(frozenset()) == path
    with pytest.raises(MachineError, match="no C compiler 'stand-in'"):
        build.build_library(frozenset(["asimddp"]))


def test_what_killed_builds_left_is_removed_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of other versions of the sources; a build that may still run is left alone."""
    compiler = tmp_path / "stand-in"
    compiler.write_text(_STAND_IN)
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    cache = tmp_path / "loadgen-numba" / "neon"
    ages = {"build-killed": 4000, "build-running": 60, "0123456789abcdef": 4000}
    for name, age in ages.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "team.o").touch()
        os.utime(cache / name, (time.time() - age,) * 2)
    path = build.build_library(frozenset())
    left = {entry.name for entry in cache.iterdir()}
    assert left == {"build-running", "0123456789abcdef", path.parent.name}


def test_a_compiler_for_another_machine_is_refused_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """An x86 compiler does not know Arm's flags, an old one not the newest features."""
    monkeypatch.setenv("CC", "gcc -march=no-such-cpu" if platform.machine() == "aarch64" else "gcc")
    with pytest.raises(MachineError, match=r"cannot be compiled by 'gcc' \(exit status 1\): .*error"):
        build.build_library(frozenset())


@needs_compiler
def test_processes_that_build_at_once_get_the_same_library(tmp_path: Path) -> None:
    """Both succeed, one file is left, and no scratch folder. Without optimisation: it is no matter here."""
    script = (
        "from backend.neon import build; build.FLAGS = tuple(flag for flag in build.FLAGS if flag != '-O3'); "
        "print(build.build_library(frozenset()))"
    )
    command = [sys.executable, "-c", script]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    (path,) = map(Path, paths)
    assert list(path.parent.parent.rglob("*")) == [path.parent, path]
    assert path.is_relative_to(tmp_path)


@needs_compiler
def test_compiler_flags_and_features_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library for one CPU, or by one compiler, is not used for another."""
    keys = {build._digest([_COMPILER], features) for features in ([], ["asimddp"], ["asimddp", "bf16"])}
    keys.add(build._digest([_COMPILER, "-g"], []))
    monkeypatch.setattr(build, "FLAGS", ("-O1",))
    keys.add(build._digest([_COMPILER], []))
    monkeypatch.setattr(build, "FEATURE_FLAGS", {**build.FEATURE_FLAGS, "bf16": "-march=armv8.6-a"})
    keys.add(build._digest([_COMPILER], []))
    assert len(keys) == 6


def test_every_feature_is_a_flag_of_the_isa() -> None:
    used = set().union(*build.SOURCES.values())
    assert used == set(build.FEATURE_FLAGS) <= set(EXTENSIONS[NEON.name])


def test_every_source_is_compiled() -> None:
    sources = {path.name for path in Path(build.__file__).parent.glob("*.c")}
    assert sources == set(build.SOURCES)


def test_a_damaged_library_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "libloadgen_neon.so"
    damaged.write_bytes(b"no library")
    with pytest.raises(MachineError, match=r"cannot be loaded .* remove it to have it built anew"):
        library.load_library(damaged)


def test_abi_numbers_agree() -> None:
    """Of abi.h and of its Python side."""
    assert f"#define LN_ABI {library.ABI}\n" in (Path(build.__file__).parent / "abi.h").read_text()


def test_every_kernel_of_plans_has_a_twin() -> None:
    """A kernel that is new in kernels/step.py needs one here; the kernel tests say whether it does the same."""
    table = (Path(build.__file__).parent / "table.c").read_text()
    missing = [name for name in get_args(KernelName) if not re.search(rf"X\({name}[_)]|, {name}, ", table)]
    assert not missing


def test_every_kernel_name_of_every_tile_is_in_the_table() -> None:
    """The table of the C library lists what plans for this ISA may name; the compiler sees to it that they exist."""
    table = (Path(build.__file__).parent / "table.c").read_text()
    for tile in NEON.tiles:
        assert f"X(name##_{tile}##types)" in table
    for mr in range(1, NEON.depthwise_mr + 1):
        assert f"X({KernelKey('depthwise_3x3')}_{mr}x1##types)" in table


@pytest.mark.skipif(platform.machine() == "aarch64", reason="here it is no error")
def test_the_c_library_is_refused_on_x86() -> None:
    with pytest.raises(MachineError, match=r"kernels='neon' are for aarch64 .*: use kernels='numba'"):
        InferenceSession(b"", kernels="neon", threads=1)
