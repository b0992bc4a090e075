"""Bad input: exit status 2, one line that names the thing, nothing left behind, no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from harness_support import IMAGE_COUNT, Command
from onnx import TensorProto, helper, numpy_helper

RUN = ("run", "--backend", "null", "--dataset-path", "{dataset}")
ORT = ("run", "--backend", "onnxruntime", "--dataset-path", "{dataset}", "--accuracy")

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown flag": ((*RUN, "--bogus", "1"), "--bogus"),
    "unknown scenario": ((*RUN, "--scenario", "Streaming"), "SingleStream"),
    "scenario in small letters": ((*RUN, "--scenario", "server"), "'server' is spelt Server, as in LoadGen"),
    "unknown backend": ((*RUN[:2], "tvm", *RUN[3:]), "onnxruntime"),
    "unknown profile": ((*RUN, "--profile", "bert"), "mobilenet"),
    "no such dataset": (("run", "--backend", "null", "--dataset-path", "absent"), "absent: no such folder"),
    "a file as dataset": (("run", "--backend", "null", "--dataset-path", "{tmp}/user.conf"), "a file, not a folder"),
    "a folder as model": ((*ORT, "--model", "{tmp}"), "--model {tmp}: a folder, not a file: name the .onnx file in it"),
    "more images than there are": ((*RUN, "--count", "99", "--accuracy"), f"lists {IMAGE_COUNT} images"),
    "no such model": ((*ORT, "--model", "absent.onnx"), "absent.onnx"),
    "no model": (ORT, "--model"),
    "model without images": (("run", "--model", "m.onnx"), "--dataset-path"),
    "corrupt model": ((*ORT, "--model", "{tmp}/corrupt.onnx"), "corrupt.onnx"),
    "model of another task": ((*ORT, "--model", "{tmp}/other.onnx"), "[N, 3, 224, 224]"),
    "classes of unknown offset": ((*ORT, "--model", "{tmp}/ten.onnx"), "label offset is unknown"),
    **{
        f"{name} in {backend}": (
            ("run", "--backend", backend, *ORT[3:], "--scenario", "Offline", "--model", f"{{tmp}}/{model}"),
            expected,
        )
        for backend in ("numba", "onnxruntime", "openvino")
        for name, model, expected in (
            ("batch of 1", "one.onnx", "fixed at 1, but batches of up to 8 were to be run: add --max-batchsize 1"),
            ("batch of 4", "four.onnx", "fixed at 4, but a run also asks for single images"),
        )
    },
    "no such plan": (
        (*ORT[:2], "numba", *ORT[3:], "--model", "{tmp}/ten.onnx", "--plan", "absent.json"),
        "absent.json",
    ),
    "plan for a peer": (
        (*ORT, "--model", "{tmp}/ten.onnx", "--plan", "{tmp}/plan.json"),
        "--plan is for --backend numba",
    ),
    **{
        f"{' '.join(flags)}, before any image is looked for": (
            ("run", "--model", "{tmp}/ten.onnx", "--dataset-path", "absent-images", *flags),
            expected,
        )
        for flags, expected in (
            (("--isa", "avx1024"), "unknown ISA 'avx1024': choose one of "),
            (("--plan", "{tmp}/plan.json"), "plan.json: schema='plan 0': allowed is 'loadgen-numba plan 3'"),
            (("--machine", "{tmp}/user.conf"), "machine file {tmp}/user.conf is no TOML"),
            (("--isa", "generic", "--kernels", "neon"), "kernels='neon' are for aarch64"),
            (("--isa", "generic", "--precision", "bf16"), "ISA 'generic' has none"),
        )
    },
    "plan of no model": (("plan", "absent.onnx"), "absent.onnx"),
    "plan of too many images": (("plan", "{tmp}/one.onnx", "--max-batchsize", "2"), "max_batch=2"),
    "plan with too many threads": (("plan", "{tmp}/ten.onnx", "--threads", "4096"), "threads=4096"),
    "bench of two batches by one plan": (
        ("bench", "--model", "{tmp}/ten.onnx", "--batch", "1,2", "--plan", "{tmp}/plan.json"),
        "is for one batch",
    ),
    "no such user.conf": ((*RUN, "--user_conf", "absent.conf"), "absent.conf"),
    "unknown key in user.conf": ((*RUN, "--user-conf", "{tmp}/user.conf"), "user.conf:2: unknown key 'target_qpz'"),
    "a folder as user.conf": ((*RUN, "--user-conf", "{tmp}"), "--user-conf {tmp}: Is a directory; name a file"),
    "misspelt key in an audit file": (
        (*RUN, "--audit-conf", "{tmp}/user.conf"),
        "user.conf:2: unknown key 'target_qpz'",
    ),
    "no such audit file": ((*RUN, "--audit-conf", "absent.config"), "absent.config"),
    "unwritable output": ((*RUN, "--output", "/dev/null/runs"), "--output"),
    "output holds other files": ((*RUN, "--scenario", "Offline", "--output", "{tmp}/taken"), "holds files"),
    **{
        f"{flag} {value}": ((*RUN, "--scenario", "Server", flag, value), f"{flag} {shown}: must be from {least} to ")
        for flag, value, shown, least in (
            ("--time", "inf", "inf", "0.001"),
            ("--time", "nan", "nan", "0.001"),
            ("--time", "1e12", "1e+12", "0.001"),
            ("--time", "1e-5", "1e-05", "0.001"),
            ("--qps", "inf", "inf", "1e-06"),
            ("--qps", "nan", "nan", "1e-06"),
            ("--max-latency", "inf", "inf", "1e-09"),
            ("--max-batchsize", "100000", "100000", "1"),
        )
    },
    "negative time": ((*RUN, "--time", "-1"), "--time -1"),
    "too many threads": ((*RUN, "--instances", "1000", "--threads", "2"), "2000 threads"),
    "rate for a stream": ((*RUN, "--scenario", "SingleStream", "--qps", "5"), "--qps"),
    "bound for Offline": ((*RUN, "--scenario", "Offline", "--max-latency", "1"), "--max-latency"),
    "Server without a rate": ((*RUN, "--scenario", "Server", "--accuracy"), "add --qps RATE"),
    "Server without a rate in user.conf": (
        (*RUN, "--scenario", "Server", "--user-conf", "{tmp}/hints.conf"),
        "hints.conf sets none",
    ),
    "samples per query elsewhere": ((*RUN, "--scenario", "Server", "--samples-per-query", "8"), "MultiStream"),
    "peak search elsewhere": ((*RUN, "--find-peak-performance", "--scenario", "Offline"), "Server"),
    "peak search without a start": ((*RUN, "--find-peak-performance", "--scenario", "Server"), "--qps"),
    "two modes": ((*RUN, "--find-peak-performance", "--accuracy"), "exclude"),
    "demo in a precision that the ISA has not": (
        ("run", "--isa", "generic", "--precision", "bf16"),
        "ISA 'generic' has none",
    ),
    "demo with settings": (("run", "--time", "5"), "--time"),
    "score of a file": (("accuracy", "{dataset}/val_map.txt"), "is a file: name the folder of a run"),
    "a file as store": (
        (*RUN, "--preprocessed-dir", "{tmp}/user.conf"),
        "{tmp}/user.conf: a file, not a folder; name a folder for the store of preprocessed images",
    ),
    "score of no run": (("accuracy", "{dataset}"), "run.json"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, command: Command, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x07 not a model")
    write_model(tmp_path / "other.onnx", (1, 49, 10), 12)
    write_model(tmp_path / "ten.onnx", (3, 224, 224), 10)
    write_model(tmp_path / "one.onnx", (3, 224, 224), 1000, batch=1)
    write_model(tmp_path / "four.onnx", (3, 224, 224), 1000, batch=4)
    (tmp_path / "plan.json").write_text('{"schema": "plan 0"}')
    (tmp_path / "user.conf").write_text("# rates\n*.Server.target_qpz = 1\n")
    (tmp_path / "hints.conf").write_text("*.Offline.target_qps = 30\n")
    taken = tmp_path / "taken/resnet50/Offline/performance/thesis.txt"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    arguments, expected = CASES[name]
    done = command(*(part.format(dataset=dataset, tmp=tmp_path) for part in arguments))
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert expected.format(dataset=dataset, tmp=tmp_path) in done.stderr.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before


def write_model(path: Path, input_shape: tuple[int, ...], classes: int, batch: int | str = "N") -> None:
    """Mean over everything but the batch, expanded to `classes` scores: enough of a model to be refused."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("MatMul", ["mean", "ones"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *input_shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(np.ones((1, classes), np.float32), "ones")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_help_names_units_and_every_command(command: Command) -> None:
    assert {"run", "preprocess", "accuracy", "demo"} <= set(command("--help").stdout.split())
    text = command("run", "--help").stdout
    assert "SECONDS" in text
    assert "samples/s" in text
