"""Detection of the machine: against the system's own figures here, against invented CPUs elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend import MachineError, detect, machine
from backend.simd.isa import AVX2, AVX512, GENERIC, ISAS

SCALAR = "fpu sse sse2"
HASWELL = f"{SCALAR} avx avx2 fma"
SKYLAKE = f"{HASWELL} avx512f avx512bw avx512dq avx512vl"


def invent(
    monkeypatch: pytest.MonkeyPatch, folder: Path, flags: str | None, caches: dict[str, tuple[str, str, str]]
) -> None:
    """A /proc/cpuinfo with these flags (None: a CPU that lists none), and a cache folder of (level, type, size)."""
    cpuinfo = folder / "cpuinfo"
    lines = ["processor\t: 0", "model name\t: An Invented CPU"] + ([] if flags is None else [f"flags\t\t: {flags}"])
    cpuinfo.write_text("\n".join([*lines, "", *lines]) + "\n")
    for index, entries in caches.items():
        (folder / "cache" / index).mkdir(parents=True)
        for key, text in zip(("level", "type", "size"), entries, strict=True):
            (folder / "cache" / index / key).write_text(text + "\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "_CACHES", folder / "cache")


CACHES = {
    "index0": ("1", "Data", "48K"),
    "index1": ("1", "Instruction", "32K"),
    "index2": ("2", "Unified", "2048K"),
    "index3": ("3", "Unified", "24M"),
}


def test_this_machine_is_described_as_the_system_does() -> None:
    """CPUs of the affinity mask, cache sizes of sysconf(3) where it knows them, a source for every value."""
    found = detect()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.isa == found.best_isa and found.best_isa in ISAS
    for field, name in (("l1d_bytes", "SC_LEVEL1_DCACHE_SIZE"), ("l2_bytes", "SC_LEVEL2_CACHE_SIZE")):
        known = os.sysconf(name) if name in os.sysconf_names else 0
        assert known <= 0 or getattr(found, field) == known, field
    assert found.l1d_bytes < found.l2_bytes
    assert set(found.sources) == {"cpu", "isa", "cores", "caches"}


@pytest.mark.parametrize(
    "flags, best", [(SKYLAKE, AVX512), (HASWELL, AVX2), (SCALAR, GENERIC), (None, GENERIC)], ids=str
)
def test_the_best_isa_is_the_one_whose_flags_are_all_there(
    flags: str | None, best: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    invent(monkeypatch, tmp_path, flags, CACHES)
    found = detect()
    assert (found.cpu, found.isa, found.best_isa) == ("An Invented CPU", best, best)
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (48 << 10, 2 << 20, 24 << 20)


def test_avx512_in_part_is_not_avx512(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Knights Landing has avx512f and no more."""
    invent(monkeypatch, tmp_path, f"{HASWELL} avx512f avx512cd", CACHES)
    assert detect().isa == AVX2


def test_a_lesser_isa_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invent(monkeypatch, tmp_path, SKYLAKE, CACHES)
    found = detect("avx2")
    assert (found.isa, found.best_isa, found.sources["isa"]) == (AVX2, AVX512, "asked for")


def test_an_isa_that_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invent(monkeypatch, tmp_path, HASWELL, CACHES)
    with pytest.raises(MachineError) as caught:
        detect("avx512")
    assert str(caught.value) == (
        "this CPU cannot run ISA 'avx512': it lacks avx512f, avx512bw, avx512dq, avx512vl; it can run avx2, generic"
    )


def test_an_unknown_isa_is_refused() -> None:
    with pytest.raises(MachineError, match="unknown ISA 'mmx': choose one of avx512, avx2, generic"):
        detect("mmx")


@pytest.mark.parametrize(
    "caches",
    [{}, {"index0": CACHES["index0"]}, {"index0": ("1", "Data", "")}, {"index0": ("1", "Data", "unknown")}],
    ids=["none", "only-l1", "empty-size", "size-in-words"],
)
def test_caches_that_the_system_does_not_tell_are_assumed_and_named(
    caches: dict[str, tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Virtual machines often hide them; a size that makes no sense counts as hidden."""
    invent(monkeypatch, tmp_path, HASWELL, caches)
    found = detect()
    assert 0 < found.l1d_bytes <= found.l2_bytes <= found.l3_bytes
    assert "assumed: " in found.sources["caches"] and "l2_bytes" in found.sources["caches"]
    assert ("l1d_bytes" in found.sources["caches"]) == (caches.get("index0") != CACHES["index0"])


def test_a_cache_without_a_size_file_is_assumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invent(monkeypatch, tmp_path, HASWELL, CACHES)
    (tmp_path / "cache" / "index2" / "size").unlink()
    assert detect().l3_bytes == 24 << 20 and "assumed: l2_bytes" in detect().sources["caches"]
