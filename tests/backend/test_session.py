"""InferenceSession as a user meets it: onnxruntime's interface, its own keywords, and one-line errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node, random_input, run_onnxruntime
from plan_runner import MACHINE

from backend import BackendError, InferenceSession, InputError, Machine, MachineError, ModelError, PixelInput, detect

needs_two_cpus = pytest.mark.skipif(MACHINE.cores < 2, reason="one CPU")
_RNG = np.random.default_rng(11)


def _array(*shape: int) -> np.ndarray:
    return (_RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def classifier(batch: int | str = "N") -> onnx.ModelProto:
    """A small image classifier with two outputs, one of them int64."""
    nodes = [
        node("Conv", "image w0 b0", "c0", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Add", "c1 r0", "a1"),
        node("GlobalAveragePool", "a1", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w2 b2", "logits", transB=1),
        node("Softmax", "logits", "probabilities"),
        node("ArgMax", "logits", "label", axis=1, keepdims=0),
    ]
    weights = {"w0": _array(20, 3, 3, 3), "b0": _array(20), "w1": _array(20, 20, 3, 3), "b1": _array(20)}
    weights |= {"w2": _array(9, 20), "b2": _array(9)}
    proto = model(nodes, {"image": [batch, 3, 13, 11]}, ["probabilities", "label"], weights)
    shapes = onnx.shape_inference.infer_shapes(proto)
    del proto.graph.output[:]
    for info in shapes.graph.output:
        kind = TensorProto.INT64 if info.name == "label" else TensorProto.FLOAT
        sizes = [batch, 9] if info.name == "probabilities" else [batch]
        proto.graph.output.append(helper.make_tensor_value_info(info.name, kind, sizes))
    return proto


PROTO = classifier()
PIXELS = PixelInput.affine((123.68, 116.78, 103.94), 1 / 58.0)


def images(count: int) -> np.ndarray:
    return random_input(["N", 3, 13, 11], batch=count, seed=count)


@pytest.mark.parametrize("source", ["path", "string", "bytes", "proto"])
def test_a_model_comes_as_path_bytes_or_proto(source: str, tmp_path: Any) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(PROTO.SerializeToString())
    given: Any = {"path": path, "string": str(path), "bytes": path.read_bytes(), "proto": PROTO}[source]
    got = InferenceSession(given, threads=1).run(None, {"image": images(1)})
    for ours, theirs in zip(got, run_onnxruntime(PROTO, {"image": images(1)}), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("batch", ["N", 2])
def test_inputs_and_outputs_are_described_as_onnxruntime_does(batch: int | str) -> None:
    proto = classifier(batch)
    ours = InferenceSession(proto, threads=1)
    theirs = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for own, other in ((ours.get_inputs(), theirs.get_inputs()), (ours.get_outputs(), theirs.get_outputs())):
        assert [(a.name, a.shape, a.type) for a in own] == [(b.name, b.shape, b.type) for b in other]


def test_outputs_come_in_the_order_asked_for() -> None:
    session = InferenceSession(PROTO, threads=1, max_batch=2)
    both = session.run(None, {"image": images(2)})
    label, probabilities = session.run(["label", "probabilities"], {"image": images(2)})
    assert label.tobytes() == both[1].tobytes() and probabilities.tobytes() == both[0].tobytes()
    assert [array.tobytes() for array in session.run(["label"], {"image": images(2)})] == [label.tobytes()]
    assert session.run([], {"image": images(2)}) == []


@pytest.mark.parametrize("max_batch", [1, 2, 4, 7])
def test_large_batches_run_in_chunks(max_batch: int) -> None:
    """Seven images, whatever the largest batch: the same bits, and no image either lost or repeated."""
    expected = InferenceSession(PROTO, threads=1, max_batch=16).run(None, {"image": images(7)})
    got = InferenceSession(PROTO, threads=1, max_batch=max_batch).run(None, {"image": images(7)})
    assert [a.tobytes() for a in got] == [b.tobytes() for b in expected]
    assert expected[0].shape == (7, 9) and len(np.unique(expected[0][:, 0])) == 7


def test_no_image_gives_no_answer() -> None:
    probabilities, label = InferenceSession(PROTO, threads=1).run(None, {"image": images(0)})
    assert probabilities.shape == (0, 9) and label.shape == (0,)


def test_results_are_the_callers_own() -> None:
    """A later run does not change an earlier result, and inputs are never written to."""
    session = InferenceSession(PROTO, threads=1)
    image = images(1)
    image.setflags(write=False)
    first = session.run(None, {"image": image})
    kept = first[0].copy()
    session.run(None, {"image": images(1) + 1})
    np.testing.assert_array_equal(first[0], kept)


def test_inputs_may_lie_anyhow() -> None:
    """Strided, reversed and Fortran-ordered arrays, and lists of them, mean what NumPy says they mean."""
    session = InferenceSession(PROTO, threads=1, max_batch=3)
    base = images(6)
    expected = session.run(None, {"image": base[::2].copy()})[0]
    for view in (
        base[::2],
        np.asfortranarray(base[::2]),
        np.frombuffer(base[::2].tobytes(), np.float32).reshape(base[::2].shape),  # read-only
        np.frombuffer(b"." + base[::2].tobytes(), np.float32, offset=1).reshape(base[::2].shape),  # at an odd address
        base[4::-2][::-1],
        base.transpose(0, 2, 3, 1)[::2].transpose(0, 3, 1, 2),
    ):
        np.testing.assert_array_equal(session.run(None, {"image": view})[0], expected)  # fmt: skip


def test_intermediate_tensors_can_be_outputs() -> None:
    """Values inside what the passes fuse come out as they would in the model, in the order asked for."""
    names = ["logits", "c0", "a1", "c1"]
    extended = onnx.ModelProto()
    extended.CopyFrom(PROTO)
    del extended.graph.output[:]
    extended.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = InferenceSession(PROTO, threads=1, outputs=names)
    assert [output.name for output in session.get_outputs()] == names
    expected = run_onnxruntime(extended, {"image": images(1)})
    for ours, theirs in zip(session.run(None, {"image": images(1)}), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("max_batch", [1, 2, 5])
def test_raw_pixels_are_the_same_as_their_levels(max_batch: int) -> None:
    """uint8 N H W C through the table, bit for bit what float32 N C H W of the same levels gives; chunks included."""
    session = InferenceSession(PROTO, threads=1, max_batch=max_batch, pixels=PIXELS)
    raw = np.random.default_rng(2).integers(0, 256, (5, 13, 11, 3), np.uint8)
    levels = np.stack([PIXELS.table[c][raw[..., c]] for c in range(3)], axis=1)
    for ours, other in zip(session.run(None, {"image": raw}), session.run(None, {"image": levels}), strict=True):
        assert ours.tobytes() == other.tobytes()


def test_affine_pixels_subtract_then_scale_in_float32() -> None:
    means = (123.68, 116.78, 103.94)
    for channel, mean in enumerate(means):
        for level in range(256):
            expected = (np.float32(level) - np.float32(mean)) * np.float32(1 / 58.0)
            assert PIXELS.table[channel, level] == expected


def test_a_session_used_a_hundred_times_gives_the_same_bits() -> None:
    session = InferenceSession(PROTO, threads=1, max_batch=4)
    expected = [session.run(None, {"image": images(count)})[0].tobytes() for count in range(1, 5)]
    for turn in range(100):
        count = 1 + turn * 7 % 4
        assert session.run(None, {"image": images(count)})[0].tobytes() == expected[count - 1], f"run {turn}"


@needs_two_cpus
def test_two_threads_give_the_bits_of_one() -> None:
    one, two = (InferenceSession(PROTO, threads=threads, max_batch=3) for threads in (1, 2))
    for count in (1, 2, 3, 5):
        assert (
            one.run(None, {"image": images(count)})[0].tobytes() == two.run(None, {"image": images(count)})[0].tobytes()
        )


def test_a_sibling_has_the_cpus_of_the_thread_that_makes_it() -> None:
    first = InferenceSession(PROTO, threads=1)
    cpus = len(os.sched_getaffinity(0))
    with pytest.raises(MachineError, match=f"threads={cpus + 1}, but this thread may run on {cpus} "):
        first.sibling(cpus + 1)
    refused: list[str] = []

    def on_one_cpu() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        assert first.sibling(1).threads == 1
        with pytest.raises(MachineError) as error:
            first.sibling(2)
        refused.append(str(error.value))

    worker = threading.Thread(target=on_one_cpu)
    worker.start()
    worker.join()
    assert refused and refused[0].startswith("threads=2, but this thread may run on 1 ")


def test_siblings_read_the_same_weights_and_own_the_rest() -> None:
    first = InferenceSession(PROTO, threads=1, max_batch=3)
    before = first.run(None, {"image": images(3)})[0]
    second = first.sibling(1)
    assert second.plan() is first.plan()
    assert (second.kernels, second.precision) == (first.kernels, first.precision)
    assert second.run(None, {"image": images(3) + 1})[0].tobytes() != before.tobytes()
    assert first.run(None, {"image": images(3)})[0].tobytes() == before.tobytes()
    assert second.run(None, {"image": images(3)})[0].tobytes() == before.tobytes()


@needs_two_cpus
@pytest.mark.parametrize("siblings", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_two_sessions_run_at_the_same_time(threads: int, siblings: bool) -> None:
    """Two Python threads, a session each; with two threads per session they compete for the same CPUs."""
    first = InferenceSession(PROTO, threads=threads, max_batch=2)
    second = first.sibling(threads) if siblings else InferenceSession(PROTO, threads=threads, max_batch=2)
    sessions = [first, second]
    inputs = [{"image": images(2) + which} for which in range(2)]  # not alike: sessions that share memory would show it
    expected = [sessions[0].run(None, inputs[which])[0].tobytes() for which in range(2)]
    answers: list[list[bytes]] = [[], []]

    def work(which: int) -> None:
        for _ in range(50):
            answers[which].append(sessions[which].run(None, inputs[which])[0].tobytes())

    workers = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert expected[0] != expected[1]
    assert answers == [[answer] * 50 for answer in expected]


def test_callers_from_several_threads_take_turns() -> None:
    """One session, four Python threads, inputs of their own: everybody gets the answer to what he asked."""
    session = InferenceSession(PROTO, threads=1, max_batch=2)
    expected = [session.run(None, {"image": images(count)})[0].tobytes() for count in range(1, 5)]
    wrong: list[int] = []

    def work(count: int) -> None:
        for _ in range(100):
            if session.run(None, {"image": images(count)})[0].tobytes() != expected[count - 1]:
                wrong.append(count)

    workers = [threading.Thread(target=work, args=(count,)) for count in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_profile_lists_every_step() -> None:
    """Times are positive, every multiply-add of the model is there, the batch is what was given."""
    session = InferenceSession(PROTO, threads=1, max_batch=3)
    profiles = session.profile({"image": images(2)}, rounds=3)
    assert [entry.info for entry in profiles] == list(session.plan().infos)
    assert sum(entry.info.macs for entry in profiles) == 7 * 6 * 20 * (27 + 180) + 20 * 9
    assert all(entry.seconds > 0 and entry.images == 2 and np.isfinite(entry.gflops) for entry in profiles)
    with pytest.raises(InputError, match="profile takes at most max_batch=3 images, not 4"):
        session.profile({"image": images(4)})
    with pytest.raises(InputError, match="rounds=0: a median needs at least 1"):
        session.profile({"image": images(1)}, rounds=0)


def test_a_described_machine_replaces_detection() -> None:
    described = Machine(
        "a CPU", MACHINE.isa, MACHINE.best_isa, cores=1, l1d_bytes=1 << 10, l2_bytes=1 << 12, l3_bytes=1 << 14
    )
    session = InferenceSession(PROTO, machine=described)
    assert session.machine is described and session.threads == 1
    got = session.run(None, {"image": images(1)})[0]
    np.testing.assert_array_equal(got, InferenceSession(PROTO, threads=1).run(None, {"image": images(1)})[0])


def test_a_pixel_input_prints_in_one_short_line() -> None:
    assert repr(PixelInput.affine(mean=(100, 0, 0), scale=2.0)) == "PixelInput(channels=3, values=-200..510)"


FIXED = classifier(2)
TWO_INPUTS = model([node("Add", "a b", "y")], {"a": ["N", 3], "b": ["N", 3]}, ["y"])


def _run(
    inputs: dict[str, Any], outputs: list[str] | None = None, proto: Any = PROTO, **keywords: Any
) -> Callable[[], Any]:
    return lambda: InferenceSession(proto, threads=1, **keywords).run(outputs, inputs)


def _make(**keywords: Any) -> Callable[[], Any]:
    return lambda: InferenceSession(PROTO, **keywords)


GOOD = np.zeros((1, 3, 13, 11), np.float32)
RAW = np.zeros((1, 13, 11, 3), np.uint8)

MISTAKES: dict[str, tuple[Callable[[], Any], type[BackendError], str]] = {
    "no-input": (_run({}), InputError, "inputs [] were given, but the model has ['image']"),
    "array-for-dict": (
        lambda: InferenceSession(PROTO, threads=1).run(None, GOOD),  # type: ignore[arg-type]
        InputError,
        "inputs is a ndarray: a dict of arrays by name is needed, with the names ['image']",
    ),
    "string-for-list": (
        lambda: InferenceSession(PROTO, threads=1).run("label", {"image": GOOD}),
        InputError,
        "output_names is the string 'label': a list is needed, ['label'], or None",
    ),
    "mean-of-two-channels": (
        lambda: InferenceSession(PROTO, pixels=PixelInput.affine(mean=(1, 2))),
        InputError,
        "pixels have 2 channels, but input 'image' has shape",
    ),
    "mean-as-number": (lambda: PixelInput.affine(mean=5.0), InputError, "mean=5.0: a number for each channel"),  # type: ignore[arg-type]
    "mean-as-text": (lambda: PixelInput.affine(mean="abc"), InputError, "mean='abc': a number for"),  # type: ignore[arg-type]
    "no-mean": (lambda: PixelInput.affine(mean=()), InputError, "a pixel table has shape (0, 256)"),
    "mean-not-finite": (lambda: PixelInput.affine(mean=(1.0, float("nan"))), InputError, "not finite"),
    "wrong-name": (_run({"picture": GOOD}), InputError, "inputs ['picture'] were given, but the model has ['image']"),
    "extra-input": (_run({"image": GOOD, "x": GOOD}), InputError, "inputs ['image', 'x'] were given"),
    "float64": (_run({"image": GOOD.astype(float)}), InputError, "input 'image' has dtype float64; float32 is needed"),
    "big-endian": (_run({"image": GOOD.astype(">f4")}), InputError, "input 'image' has dtype >f4; float32 is needed"),
    "uint8-without-pixels": (_run({"image": RAW}), InputError, "input 'image' has dtype uint8; float32 is needed"),
    "int8-with-pixels": (
        _run({"image": RAW.astype(np.int8)}, pixels=PIXELS),
        InputError,
        "input 'image' has dtype int8; float32 or uint8 is needed",
    ),
    "nhwc-float": (
        _run({"image": GOOD.transpose(0, 2, 3, 1)}),
        InputError,
        "input 'image' has shape (1, 13, 11, 3); [N, 3, 13, 11] is needed",
    ),
    "nchw-pixels": (
        _run({"image": RAW.transpose(0, 3, 1, 2)}, pixels=PIXELS),
        InputError,
        "input 'image' has shape (1, 3, 13, 11); [N, 13, 11, 3] is needed",
    ),
    "no-batch-axis": (_run({"image": GOOD[0]}), InputError, "input 'image' has shape (3, 13, 11); [N, 3, 13, 11]"),
    "fixed-batch": (_run({"image": GOOD}, proto=FIXED), InputError, "has shape (1, 3, 13, 11); [2, 3, 13, 11] is"),
    "number": (_run({"image": np.float32(1)}), InputError, "input 'image' has shape (); [N, 3, 13, 11] is needed"),
    "batches-differ": (
        _run({"a": np.zeros((2, 3), np.float32), "b": np.zeros((3, 3), np.float32)}, proto=TWO_INPUTS),
        InputError,
        "the inputs have different batch sizes [2, 3]; axis 0 must agree",
    ),
    "unknown-output": (
        _run({"image": GOOD}, ["logits"]),
        InputError,
        "output 'logits' is not one of ['probabilities', 'label']; ask for it when the session is created",
    ),
    "no-such-output": (_make(outputs=["nothing"]), InputError, "output 'nothing' does not exist in model 'test'"),
    "precision": (
        _make(precision="fp64"),
        InputError,
        "precision='fp64': choose 'auto', 'fp32', 'bf16', 'bf16-emulated' or 'int8'",
    ),
    "max-batch": (_make(max_batch=0), InputError, "max_batch=0: choose 1 to 1024"),
    "huge-max-batch": (_make(max_batch=10**9), InputError, "max_batch=1000000000: choose 1 to 1024"),
    "fixed-shapes": (lambda: InferenceSession(FIXED, max_batch=3), InputError, "max_batch=3, but the model's shapes"),
    "no-threads": (_make(threads=0), MachineError, "threads=0, but this thread may run on"),
    "too-many-threads": (_make(threads=9999), MachineError, f"ask for 1 to {MACHINE.cores}"),
    "isa": (_make(isa="sse9"), MachineError, "unknown ISA 'sse9': choose one of avx512, avx2, generic"),
    "isa-and-machine": (
        _make(isa="generic" if MACHINE.isa.name != "generic" else "avx2", machine=MACHINE),
        MachineError,
        "but the machine given is for",
    ),
    "missing-file": (lambda: InferenceSession("nowhere.onnx"), ModelError, "nowhere.onnx: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_line(name: str) -> None:
    """What, where, which values, what to do."""
    mistake, kind, text = MISTAKES[name]
    with pytest.raises(BackendError) as caught:
        mistake()
    assert type(caught.value) is kind
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_session_survives_a_mistake() -> None:
    session = InferenceSession(PROTO, threads=1)
    expected = session.run(None, {"image": images(1)})[0]
    with pytest.raises(InputError):
        session.run(None, {"image": images(1).astype(np.float64)})
    np.testing.assert_array_equal(session.run(None, {"image": images(1)})[0], expected)


@pytest.mark.skipif(MACHINE.best_isa.name == "generic", reason="this CPU has one ISA only")
def test_a_second_isa_in_a_process_is_an_error() -> None:
    """Numba compiles for one target; the message says what to do."""
    InferenceSession(PROTO, threads=1)
    with pytest.raises(MachineError, match="ISA 'generic' was asked for, but this process already compiles for"):
        InferenceSession(PROTO, threads=1, isa="generic")
    assert detect().isa == MACHINE.best_isa
