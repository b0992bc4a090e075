"""Detection of the machine: against the system's own figures here, against invented CPUs elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend import MachineError, detect, machine, usable_threads
from backend.simd.isa import AVX2, AVX512, GENERIC, ISAS

SCALAR = "fpu sse sse2"
HASWELL = f"{SCALAR} avx avx2 fma"
SKYLAKE = f"{HASWELL} avx512f avx512bw avx512dq avx512vl"


def invent(
    monkeypatch: pytest.MonkeyPatch, folder: Path, flags: str | None, caches: dict[str, tuple[str, str, str]]
) -> None:
    """A /proc/cpuinfo with these flags (None: a CPU that lists none), and caches, (level, type, size), for all CPUs."""
    cpuinfo = folder / "cpuinfo"
    lines = ["processor\t: 0", "model name\t: An Invented CPU"] + ([] if flags is None else [f"flags\t\t: {flags}"])
    cpuinfo.write_text("\n".join([*lines, "", *lines]) + "\n")
    for cpu in os.sched_getaffinity(0):
        invent_cpu(folder / f"cpu{cpu}", caches)
    monkeypatch.setattr(machine, "_ARCHITECTURE", "x86_64")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine, "_CPUS", folder)


def invent_cpu(folder: Path, caches: dict[str, tuple[str, str, str]], **files: str) -> None:
    """What sysfs has about one CPU: caches as above, and other files by their path, "/" written as two underscores."""
    for index, entries in caches.items():
        (folder / "cache" / index).mkdir(parents=True)
        for key, text in zip(("level", "type", "size"), entries, strict=True):
            (folder / "cache" / index / key).write_text(text + "\n")
    for name, text in files.items():
        path = folder.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


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
    assert found.isa == found.best_isa and found.isa.name in {isa.name for isa in ISAS}
    for field, name in (("l1d_bytes", "SC_LEVEL1_DCACHE_SIZE"), ("l2_bytes", "SC_LEVEL2_CACHE_SIZE")):
        known = os.sysconf(name) if name in os.sysconf_names else 0
        cores = found.cores if field == "l2_bytes" else 1  # they may share it
        assert known <= 0 or known in {getattr(found, field) * sharing for sharing in range(1, cores + 1)}, field
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
    for size in tmp_path.glob("cpu*/cache/index2/size"):
        size.unlink()
    assert detect().l3_bytes == 24 << 20 and "assumed: l2_bytes" in detect().sources["caches"]


NEOVERSE_N1 = {"index0": ("1", "Data", "64K"), "index2": ("2", "Unified", "1024K"), "index3": ("3", "Unified", "32M")}
A76 = {"index0": ("1", "Data", "64K"), "index2": ("2", "Unified", "512K"), "index3": ("3", "Unified", "3M")}
A55 = {"index0": ("1", "Data", "32K"), "index2": ("2", "Unified", "128K"), "index3": ("3", "Unified", "3M")}


def invent_arm(monkeypatch: pytest.MonkeyPatch, folder: Path, cpus: int, *features: str) -> None:
    """An Arm machine whose process may use so many CPUs, all with these features."""
    words = {16: 0, 26: 0}
    for name in features:
        entry, bit = machine._HWCAP[name]
        words[entry] |= 1 << bit
    monkeypatch.setattr(machine, "_ARCHITECTURE", "aarch64")
    monkeypatch.setattr(machine, "_auxiliary", words.__getitem__)
    monkeypatch.setattr(machine, "_CPUINFO", folder / "cpuinfo")
    monkeypatch.setattr(machine, "_CPUS", folder)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))


def test_an_arm_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Features by the auxiliary vector, the core by its MIDR, one cluster."""
    invent_arm(monkeypatch, tmp_path, 2, "asimd", "asimddp")
    for cpu in range(2):
        invent_cpu(tmp_path / f"cpu{cpu}", NEOVERSE_N1, regs__identification__midr_el1="0x00000000413fd0c1")
    found = detect()
    assert (found.cpu, found.isa.name, found.isa.extensions) == ("Neoverse-N1", "neon", ("asimddp",))
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (64 << 10, 1 << 20, 32 << 20)
    assert [cluster.cpus for cluster in found.clusters] == [(0, 1)]


def test_big_cores_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On big.LITTLE boards CPU 0 is a small core; plans are made for the caches of the big ones."""
    invent_arm(monkeypatch, tmp_path, 4, "asimd")
    for cpu in range(4):
        little = cpu < 3
        invent_cpu(
            tmp_path / f"cpu{cpu}",
            A55 if little else A76,
            cpu_capacity="530" if little else "1024",
            regs__identification__midr_el1="0x412fd050" if little else "0x414fd0b0",
        )
    found = detect()
    assert (found.cpu, found.cores, found.l2_bytes) == ("Cortex-A76", 4, 512 << 10)
    assert [(cluster.core, cluster.cpus, cluster.capacity) for cluster in found.clusters] == [
        ("Cortex-A76", (3,), 1024),
        ("Cortex-A55", (0, 1, 2), 530),
    ]


def invent_board(monkeypatch: pytest.MonkeyPatch, folder: Path, *capacities: int) -> None:
    """A board whose CPU n has the n-th capacity; those below 1024 are Cortex-A55."""
    invent_arm(monkeypatch, folder, len(capacities), "asimd")
    for cpu, capacity in enumerate(capacities):
        invent_cpu(folder / f"cpu{cpu}", A76 if capacity == 1024 else A55, cpu_capacity=str(capacity))


@pytest.mark.parametrize(
    "capacities, fast",
    [
        ((1024,) * 4, 4),  # Raspberry Pi 5
        ((400, 400, 400, 400, 1024, 1024, 1024, 1024), 4),  # RK3588
        ((250, 250, 250, 250, 870, 870, 870, 1024), 4),  # a phone with a prime core
        ((420, 420, 420, 420, 420, 420, 1024, 1024), 2),
    ],
)
def test_small_cores_get_no_threads_unless_asked_for(
    capacities: tuple[int, ...], fast: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    invent_board(monkeypatch, tmp_path, *capacities)
    found = detect()
    assert (found.cores, found.fast_cores) == (len(capacities), fast)
    assert usable_threads(None, found) == fast
    assert usable_threads(len(capacities), found) == len(capacities)


def test_a_thread_on_small_cores_plans_for_the_big_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Instances on different cores must not choose differently: their bits would differ."""
    invent_board(monkeypatch, tmp_path, 530, 530, 1024)
    everywhere = detect()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    confined = detect()
    for found in (everywhere, confined):
        assert (found.l1d_bytes, found.l2_bytes) == (64 << 10, 512 << 10)
    assert (confined.cores, confined.fast_cores) == (2, 2), "where there are small ones only, they are used"
    assert [cluster.cpus for cluster in confined.clusters] == [(0, 1)]


A72 = {"index0": ("1", "Data", "32K"), "index1": ("1", "Instruction", "48K"), "index2": ("2", "Unified", "1024K")}


def test_an_l2_that_cores_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Raspberry Pi 4: four cores, one L2 of 1 MiB, nothing behind it."""
    invent_arm(monkeypatch, tmp_path, 4, "asimd")
    for cpu in range(4):
        shared = {f"cache__index{index}__shared_cpu_list": str(cpu) for index in (0, 1)}
        shared["cache__index2__shared_cpu_list"] = "0-3"
        invent_cpu(tmp_path / f"cpu{cpu}", A72, **shared, topology__thread_siblings_list=str(cpu))
    found = detect()
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (32 << 10, 256 << 10, 1 << 20)
    assert "assumed" not in found.sources["caches"]
    assert len(found.clusters) == 1


@pytest.mark.parametrize("siblings, shares", [(("0,2", "1,3", "0,2", "1,3"), 1), (("0", "1", "2", "3"), 2)])
def test_hyper_threads_are_one_core_to_their_l2(
    siblings: tuple[str, ...], shares: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    invent(monkeypatch, tmp_path, HASWELL, {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for cpu in range(4):
        shared = {f"cache__index{index}__shared_cpu_list": f"{cpu % 2},{cpu % 2 + 2}" for index in (0, 1, 2)}
        shared["cache__index3__shared_cpu_list"] = "0-3"
        (tmp_path / f"cpu{cpu}").mkdir(exist_ok=True)
        invent_cpu(tmp_path / f"cpu{cpu}", CACHES, **shared, topology__thread_siblings_list=siblings[cpu])
    found = detect()
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (48 << 10, (2 << 20) // shares, 24 << 20)


@pytest.mark.parametrize("hidden", ["cache", "cpu", "everything"])
def test_what_may_not_be_read_is_as_if_it_were_not_there(
    hidden: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Android, hardened containers: permissions, which do not bind root, are withheld here in root's way too."""
    invent(monkeypatch, tmp_path, HASWELL, CACHES)

    def is_hidden(path: Path) -> bool:
        names = {"cache": "/cache/", "cpu": "/cpu", "everything": "/"}
        return str(path).startswith(str(tmp_path)) and names[hidden] in f"{str(path).removeprefix(str(tmp_path))}/"

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *arguments: Any, **named: Any) -> Any:
            if is_hidden(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *arguments, **named)

        return call

    for name in ("stat", "read_text", "iterdir"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    found = detect()
    assert found.sources["caches"].endswith("; assumed: l1d_bytes, l2_bytes, l3_bytes")
    assert (found.cpu == "An Invented CPU") == (hidden == "cache")


def test_a_cpu_that_is_switched_off_counts_for_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invent_board(monkeypatch, tmp_path, 530, 530, 1024)
    (tmp_path / "cpu2/online").write_text("0\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert detect().l2_bytes == 128 << 10


def test_an_arm_core_that_is_not_in_the_table_is_described_by_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    invent_arm(monkeypatch, tmp_path, 1, "asimd")
    invent_cpu(tmp_path / "cpu0", A76, regs__identification__midr_el1="0x610f0220")
    assert detect().cpu == "Arm core, implementer 0x61, part 0x22"


def test_an_isa_of_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    invent(monkeypatch, tmp_path, HASWELL, CACHES)
    with pytest.raises(
        MachineError, match=r"ISA 'neon' is for aarch64, and this is x86_64: choose one of avx512, avx2"
    ):
        detect("neon")
    invent_arm(monkeypatch, tmp_path, 1, "asimd")
    with pytest.raises(
        MachineError, match=r"ISA 'avx2' is for x86_64, and this is aarch64: choose one of neon, generic"
    ):
        detect("avx2")
