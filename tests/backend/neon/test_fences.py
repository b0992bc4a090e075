"""Kernel tests notice a kernel that leaves its memory: steps that do so on purpose must fail, and only they."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plan_runner import KERNELS, plan_graph, run_plan
from small_nets import Net, random_inputs

from backend.kernels.step import IMAGE_UNITS, STEP, KernelKey

if KERNELS == "neon":
    from neon_runner import NATIVE, run_steps

emulated = pytest.mark.skipif(
    KERNELS != "neon" or NATIVE, reason="memory is fenced in the emulator's driver: tools/arm64/test --kernels"
)
GUARD, SIZE = 16, 40
ARENA, WEIGHTS, TABLES, INPUT, OUTPUT = range(5)


def stray(block: int, at_byte: int, writes: bool, threads: int = 1) -> np.ndarray:
    """One access of `driver.c`'s kernel that errs, where all blocks have SIZE words; the arena with its guards."""
    step = np.zeros(1, STEP)
    step["unit_kind"], step["rows"], step["images"], step["chunk"], step["out_h"] = IMAGE_UNITS, 1, 1, 1, 1
    step["x"], step["y"], step["option"] = block, at_byte, writes
    memory, around = np.zeros((2, GUARD + SIZE + GUARD), np.float32)
    inside = slice(GUARD, GUARD + SIZE)
    constant = [np.ones(SIZE, np.float32) for _ in range(3)]
    run_steps(
        (KernelKey("stray"),), step, 1, 1, threads, constant[0], constant[1].view(np.int32), memory, inside,  # type: ignore[arg-type]
        constant[2:], [(around, inside)],
    )  # fmt: skip
    return np.stack([memory, around])


@emulated
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "block, at_byte, writes, complaint",
    [
        (ARENA, SIZE * 4, True, "left the arena: byte 160 of 160"),
        (ARENA, SIZE * 4, False, "left the arena: byte 160 of 160"),
        (WEIGHTS, SIZE * 4, False, "left the weights: byte 160 of 160"),
        (WEIGHTS, -5000, False, "left the weights: byte -5000 of 160"),
        (TABLES, SIZE * 4 + 3, False, "left the tables: byte 163 of 160"),
        (INPUT, SIZE * 4, False, "left input 0: byte 160 of 160"),
        (OUTPUT, SIZE * 4, True, "left output 0: byte 160 of 160"),
        (OUTPUT, -GUARD * 4 - 5000, True, "left output 0: byte -5064 of 160"),
        (WEIGHTS, 12, True, "wrote to the weights: byte 12 of 160"),
        (TABLES, 0, True, "wrote to the tables: byte 0 of 160"),
        (INPUT, 159, True, "wrote to input 0: byte 159 of 160"),
    ],
)
def test_what_a_step_has_no_business_in(block: int, at_byte: int, writes: bool, complaint: str, threads: int) -> None:
    """The message names step and place; the next test gets an answer of its own."""
    with pytest.raises(AssertionError) as caught:
        stray(block, at_byte, writes, threads)
    assert str(caught.value) == f"step 0 (stray), unit 0, {complaint}"
    assert (stray(ARENA, 0, True) != 0).sum() == 1


@emulated
@pytest.mark.parametrize("block, row", [(ARENA, 0), (OUTPUT, 1)])
def test_what_is_written_in_front_comes_back(block: int, row: int) -> None:
    changed = np.argwhere(stray(block, -8, True))
    np.testing.assert_array_equal(changed, [[row, GUARD - 2]])


@emulated
def test_a_kernel_that_the_library_lacks() -> None:
    step = np.zeros(1, STEP)
    words, memory = np.zeros(4, np.int32), np.zeros(8, np.float32)
    with pytest.raises(AssertionError, match="the C library has no kernel none_such"):
        run_steps((KernelKey("none_such"),), step, 1, 1, 1, memory, words, memory, slice(2, 6), [])  # type: ignore[arg-type]
    assert (stray(ARENA, 0, True) != 0).sum() == 1


def run_affine(field: str, place: str, words: int) -> None:
    """A plan with one affine step, whose `field` begins so many words from 0, or from the end of arena or weights."""
    net = Net()
    graph = net.graph(net.batch_norm(net.input(8, 3, 5)))
    plan = plan_graph(graph)
    ends = {"start": 0, "arena": plan.arena_elements(1), "weights": plan.weights.size}
    (index,) = [i for i, step in enumerate(plan.steps) if plan.kernels[step["kernel"]].name == "affine"]
    steps = plan.steps.copy()
    steps[field][index] = ends[place] + words
    run_plan(replace(plan, steps=steps), random_inputs(graph, 1))


def test_a_plan_that_writes_in_front_of_its_arena() -> None:
    with pytest.raises(AssertionError, match=r"written outside: 8 elements at \[-8, -7, "):
        run_affine("y", "start", -8)


def test_a_plan_that_writes_behind_its_arena() -> None:
    """There is a fence, or guards where steps run in this process."""
    with pytest.raises(AssertionError, match=r"\(affine\), unit 0, left the arena: byte|written outside: \d+ elements"):
        run_affine("y", "arena", -8)


@emulated
def test_a_plan_that_reads_behind_its_weights() -> None:
    with pytest.raises(AssertionError, match=r"step \d+ \(affine\), unit 0, left the weights: byte"):
        run_affine("weight", "weights", -7)
