"""precision= of a session: what is refused, what emulation stands for, what becomes of a real network in bf16."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from other_cpus import gemm_assembly
from plan_runner import MACHINE
from rounded_twin import rounded_twin
from test_isa import loops
from test_real_models import LOGITS, realistic

from backend import InferenceSession, InputError, MachineError, PlanError, plan_model
from backend.graph.ir import Graph, Quantization, Quantize
from backend.kernels.gemm_tile import UNROLL
from backend.plan.precision import check_precision, settle_precision
from backend.simd.element import BFLOAT16
from backend.simd.isa import AVX2, AVX512, AVX512_BF16, NEON, NEON_BF16

NATIVE = replace(AVX512, extensions=(AVX512_BF16,))
FLOATS = Graph("floats", (), (), (), {})
WITHOUT = replace(MACHINE, isa=AVX512, best_isa=AVX512)


def test_bf16_where_the_cpu_has_no_instructions() -> None:
    """The flag that is missing, and both ways out."""
    with pytest.raises(MachineError) as caught:
        check_precision("bf16", WITHOUT)
    assert str(caught.value) == (
        "precision='bf16' needs bf16 instructions, and this CPU lacks avx512_bf16: run on a CPU whose /proc/cpuinfo "
        "lists avx512_bf16 (with isa='avx512'), choose precision='fp32', or of a model that is not quantised "
        "'bf16-emulated': bf16's results, slower than fp32"
    )


def test_bf16_with_an_isa_that_has_none() -> None:
    with pytest.raises(MachineError, match=r"and ISA 'avx2' has none: .*isa='avx512'"):
        check_precision("bf16", replace(MACHINE, isa=AVX2, best_isa=NATIVE))


def test_bf16_on_an_arm_core_that_has_none() -> None:
    """Its own flag, by the name in /proc/cpuinfo."""
    with pytest.raises(MachineError, match=r"this CPU lacks bf16: .*lists bf16 \(with isa='neon'\)"):
        check_precision("bf16", replace(MACHINE, isa=NEON, best_isa=NEON))


def test_bf16_on_an_arm_core_that_has_it() -> None:
    """Emulation leaves the CPU's other extensions alone."""
    isa = replace(NEON, extensions=("asimddp", "i8mm", NEON_BF16))
    machine = replace(MACHINE, isa=isa, best_isa=isa)
    check_precision("bf16", machine)
    assert settle_precision("bf16", machine, FLOATS) == ("bf16", machine)
    without = replace(isa, extensions=("asimddp", "i8mm"))
    assert settle_precision("bf16-emulated", machine, FLOATS) == ("bf16", replace(machine, isa=without))


def test_a_quantised_model_has_no_bf16() -> None:
    """Whether the CPU has the instructions or not; and no other word passes for a precision."""
    quantised = replace(FLOATS, ops=(Quantize("q", "x", "y", Quantization("uint8", (1.0,), (0,))),))
    native = replace(MACHINE, isa=NATIVE, best_isa=NATIVE)
    for asked, machine in (("bf16", native), ("bf16-emulated", native), ("bf16-emulated", WITHOUT)):
        with pytest.raises(InputError, match=f"precision='{asked}', but the model is quantised"):
            settle_precision(asked, machine, quantised)
    with pytest.raises(InputError, match="precision='int4': choose 'auto', "):
        settle_precision("int4", native, FLOATS)


def test_emulation_uses_no_bf16_instructions_even_where_there_are_some() -> None:
    machine = replace(MACHINE, isa=NATIVE, best_isa=NATIVE)
    assert settle_precision("bf16", machine, FLOATS) == ("bf16", machine)
    assert settle_precision("bf16-emulated", machine, FLOATS) == ("bf16", replace(machine, isa=AVX512))


def test_a_plan_of_another_precision_is_refused(models_dir: Path) -> None:
    model = models_dir / "tiny_resnet8.onnx"
    narrow = InferenceSession(model, precision="bf16-emulated", machine=MACHINE, threads=1)
    record = narrow.plan().record
    assert record.precision == "bf16", "a plan is the same whether it is emulated or not"
    with pytest.raises(PlanError, match="it is for precision bf16, not fp32"):
        InferenceSession(model, machine=MACHINE, plan=record)
    again = InferenceSession(model, precision="bf16-emulated", machine=MACHINE, threads=1, plan=record)
    images = {"input": realistic("tiny_resnet8")}
    assert narrow.run(None, images)[0].tobytes() == again.run(None, images)[0].tobytes()


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_as_near_as_rounding_lets_them_be(name: str, models_dir: Path) -> None:
    """About as far from the exact ones as NumPy's that rounds the same values: how errors add up is a matter of chance.

    A value in the wrong place, or rounded to a bit less, is further off.
    """
    path, images = models_dir / f"{name}.onnx", realistic(name)[:1]
    if name.startswith("tiny"):  # few logits: more pictures
        images = np.concatenate([np.roll(realistic(name), shift, axis=-1) for shift in range(8)])
    session = InferenceSession(path, precision="bf16-emulated", machine=MACHINE, threads=1, outputs=[LOGITS[name]])
    (got,) = session.run(None, {"input": images})
    exact, twin = rounded_twin(path, LOGITS[name], images)
    ours, theirs = (float(np.linalg.norm(logits - exact)) for logits in (got, twin))
    assert 0.5 * theirs <= ours <= 1.5 * theirs, f"{ours / np.linalg.norm(exact):.3g} of the logits"


def test_memory_is_half(models_dir: Path) -> None:
    path = models_dir / "mobilenet_v2_1.0_224.onnx"
    owned = [
        plan_model(path, precision=precision, machine=MACHINE).owned_bytes(1) for precision in ("fp32", "bf16-emulated")
    ]
    assert owned[1] < 0.6 * owned[0]


def test_tiles_are_compiled_to_dot_products() -> None:
    """The unrolled loop is MR * NR VDPBF16PS on whole registers per word, sums stay there, results are rounded by
    VCVTNEPS2BF16, and nothing is left of the emulation."""
    for tile, text in gemm_assembly("cooperlake", NATIVE, BFLOAT16).items():
        dots = {loop: len(re.findall(r"\tvdpbf16ps\t.*%zmm", loop)) for loop in loops(text)}
        hot = max(dots, key=lambda loop: dots[loop])
        assert dots[hot] == UNROLL * tile.mr * tile.nr, tile
        assert not re.findall(r"\tvmov[a-z0-9]+\t%zmm\d+, -?\d*\(%r[sb]p", hot), f"{tile}: vectors go to the stack"
        loads = re.findall(r"\tvp?broadcast[sd]s?\t-?\d*\(|\{1to16\}", hot)
        assert len(loads) == UNROLL * tile.mr, f"{tile}: each word of x is read once"
        assert "vfmadd" not in hot and "vpslld" not in hot, f"{tile}: emulation"
        assert text.count("\tvcvtneps2bf16\t%zmm") >= tile.mr * tile.nr, tile
