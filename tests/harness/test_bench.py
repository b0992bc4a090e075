"""`loadgen-numba bench` as a whole: real engines in real processes, on models small enough to take no time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from harness_support import Command
from onnx import TensorProto, helper, numpy_helper

from backend import detect
from harness.bench import compare
from harness.bench.config import BenchConfig
from harness.bench.record import source_revision
from harness.bench.rounds import measure_row
from harness.errors import RunFailedError
from harness.placement import available_cores
from harness.progress import Quiet

ROUNDS = 3
CPUS = available_cores(detect()).order
QUICK = ("--rounds", ROUNDS, "--seconds-per-round", 0.02)


def _save(path: Path, nodes: list[onnx.NodeProto], batch: int | str, constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


def _small_model(path: Path, batch: int | str = "N") -> Path:
    """One 3x3 convolution with padding, 8 -> 24 channels on 16 x 16, and ReLU."""
    weights = np.random.default_rng(0).normal(size=(24, 8, 3, 3))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], name="only_conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["y"]),
    ]
    return _save(path, nodes, batch, {"w": weights})


def _engine_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if any("spawn_main" in word for word in child.cmdline())]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return _small_model(tmp_path / "small.onnx")


def test_bench(command: Command, model: Path, tmp_path: Path) -> None:
    """Two peers, layers, one thread and two if there are CPUs for them."""
    threads = [1, 2][: len(CPUS)]
    finished = command(
        "bench", "--model", model, "--batch", 4, "--threads", ",".join(map(str, threads)),
        "--against", "onnxruntime,openvino", "--layers", "--json", "out/bench.json", *QUICK,
    )  # fmt: skip
    assert finished.status == 0, finished.stderr
    record = json.loads((tmp_path / "out/bench.json").read_text())
    assert record["complete"]
    assert record["model"]["bytes"] == model.stat().st_size
    assert record["machine"]["isa"] in ("avx512", "avx2", "generic")
    assert {"numpy", "numba", "onnxruntime", "openvino", "loadgen-numba"} <= record["software"]["versions"].keys()
    assert [(row["batch"], row["threads"]) for row in record["rows"]] == [(4, count) for count in threads]
    for row in record["rows"]:
        _check_row(row)
    for text in ("onnxruntime: providers=CPUExecutionProvider", "PERFORMANCE_HINT=LATENCY", "only_conv", "JSON: out"):
        assert text in finished.stdout
    assert not _engine_processes()


def _check_row(row: dict[str, Any]) -> None:
    assert row["cpus"] == sorted(CPUS[: row["threads"]])
    assert list(row["engines"]) == ["numba", "onnxruntime", "openvino"]
    rates = {name: np.array(engine["images_per_s"]) for name, engine in row["engines"].items()}
    for name, engine in row["engines"].items():
        assert len(rates[name]) == len(engine["inference_ms"]) == len(engine["cpu_share"]) == ROUNDS
        assert (rates[name] > 0).all()
        assert engine["images_per_s_summary"]["median"] == pytest.approx(np.median(rates[name]))
        assert engine["threads_started"] >= 1
        assert (engine["output_difference"] or 0) < 1e-5
        assert (engine["output_difference"] is None) == (name == "numba")
        assert engine["output_steps"] is None
    medians = {}
    for peer in ("onnxruntime", "openvino"):
        expected = rates["numba"] / rates[peer]
        np.testing.assert_allclose(row["ratios"][peer]["ours_to_peer"], expected)
        medians[peer] = np.median(expected)
    assert row["better_peer"] == min(medians, key=lambda peer: medians[peer])
    settings = {name: engine["settings"] for name, engine in row["engines"].items()}
    assert settings["numba"]["threads"] == settings["onnxruntime"]["intra_op_num_threads"] == row["threads"]
    assert settings["openvino"]["INFERENCE_NUM_THREADS"] == str(row["threads"])
    assert settings["openvino"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings["openvino"]["batch"] == f"fixed at {row['batch']}"
    layers = row["layers"]
    assert layers["peak_gflops"] > 0
    assert layers["bandwidth_gb_s"] > 0
    multiply_adds = row["batch"] * 24 * 16 * 16 * 8 * 3 * 3
    assert sum(layer["operations"] for layer in layers["layers"]) == 2 * multiply_adds


def _quantised_model(path: Path) -> Path:
    """The small model between QuantizeLinear and DequantizeLinear, whose input keeps -1.28 to 1.27."""
    weights = np.random.default_rng(0).integers(-127, 128, (24, 8, 3, 3)).astype(np.int8)
    constants = {
        "x_scale": np.float32(0.01), "x_zero": np.uint8(128), "w": weights, "w_scale": np.float32(0.02),
        "w_zero": np.int8(0), "y_scale": np.float32(0.25), "y_zero": np.uint8(0),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["conv", "y_scale", "y_zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "y_zero"], ["y"]),
    ]
    _save(path, nodes, "N", {})
    model = onnx.load(path)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    onnx.save(model, path)
    return path


def test_a_quantised_model_is_benched_and_planned_in_int8(command: Command, tmp_path: Path) -> None:
    """Without --precision; outputs are compared in steps of the output. In floating point only for the asking."""
    model = _quantised_model(tmp_path / "quantised.onnx")
    finished = command("bench", "--model", model, "--batch", 2, "--json", "b.json", *QUICK)
    assert finished.status == 0, finished.stderr
    assert "quantised.onnx, int8; " in finished.stdout
    record = json.loads(Path("b.json").read_text())
    engines = record["rows"][0]["engines"]
    assert (record["settings"]["precision"], engines["numba"]["settings"]["precision"]) == (None, "int8")
    assert all(0 <= engines[peer]["output_steps"] <= 1.001 for peer in ("onnxruntime", "openvino"))
    for flags, precision in (((), "int8"), (("--precision", "fp32"), "fp32")):
        planned = command("plan", model, "--threads", 1, "--quiet", *flags)
        assert planned.status == 0, planned.stderr
        assert f", {precision}, max_batch 1;" in planned.stdout


def test_our_engine_alone_for_another_isa(command: Command, model: Path, tmp_path: Path) -> None:
    """Its process may choose any ISA that the CPU has, whatever the harness imports elsewhere."""
    finished = command("bench", "--model", model, "--against", "none", "--isa", "generic", "--quiet", *QUICK)
    assert finished.status == 0, finished.stderr
    assert finished.stderr == ""
    (written,) = (tmp_path / "reports/bench").iterdir()
    assert written.name.startswith("small-")
    (row,) = json.loads(written.read_text())["rows"]
    assert (row["ratios"], row["better_peer"], row["layers"]) == ({}, None, None)
    assert row["engines"]["numba"]["settings"]["isa"] == "generic"


def test_engines_that_disagree(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding in another order is disagreement enough once the limit is below it."""
    monkeypatch.setattr(compare, "LIMITS", {"fp32": 1e-12})
    finished = command("bench", "--model", model, "--against", "onnxruntime", "--json", "b.json", *QUICK)
    assert finished.status == 1
    assert finished.stderr.splitlines()[-1].startswith("error: our outputs differ from onnxruntime's by ")
    assert not Path("b.json").exists()


def test_rows_before_a_bad_one_are_kept(command: Command, tmp_path: Path) -> None:
    model = _small_model(tmp_path / "fixed.onnx", batch=1)
    finished = command("bench", "--model", model, "--batch", "1,2", "--against", "none", "--json", "b.json", *QUICK)
    assert finished.status == 2
    assert "fixed" in finished.stderr.splitlines()[-1]
    record = json.loads(Path("b.json").read_text())
    assert not record["complete"]
    assert [row["batch"] for row in record["rows"]] == [1]
    assert not _engine_processes()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--threads", "100000"], "this process may use"),
        (["--isa", "avx1024"], "unknown ISA 'avx1024'"),
        (["--against", "tvm"], "'tvm' is not one of"),
        (["--precision", "int3"], "int3"),
        (["--json", "small.onnx/bench.json"], "--json small.onnx/bench.json"),
        (["--json", "."], "choose another file"),
    ],
)
def test_bad_arguments(command: Command, model: Path, arguments: list[str], text: str) -> None:
    finished = command("bench", "--model", model, *arguments, *QUICK)
    assert finished.status == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    assert text in line


@pytest.mark.parametrize("engine", ["numba", "onnxruntime"])
def test_file_that_is_no_model(command: Command, tmp_path: Path, engine: str) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07 not a model")
    finished = command("bench", "--model", broken, "--against", engine.replace("numba", "none"), "--quiet", *QUICK)
    assert finished.status == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "broken.onnx" in finished.stderr


def test_engine_whose_process_dies(model: Path) -> None:
    class KillAnEngine(Quiet):
        def update(self, text: str) -> None:
            if "round 2" in text:
                _engine_processes()[-1].kill()

    config = BenchConfig(model, "fp32", (1,), (1,), ("onnxruntime",), rounds=3, slice_s=0.02)
    with pytest.raises(RunFailedError, match=r"process of (numba|onnxruntime) ended with exit status -9"):
        measure_row(config, None, 1, 1, CPUS[:1], KillAnEngine())
    assert not _engine_processes()


def test_interrupt(model: Path, tmp_path: Path) -> None:
    """Ctrl-C in a terminal reaches parent and children alike."""
    arguments = ["bench", "--model", model, "--against", "onnxruntime", "--rounds", "1000", "--json", "b.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert "opening numba" in process.stderr.readline()
    assert "opening onnxruntime" in process.stderr.readline()
    children = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.strip() == "error: interrupted by SIGINT"
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert not (tmp_path / "b.json").exists()


def test_revision_of_a_package_that_is_in_no_checkout(tmp_path: Path) -> None:
    assert source_revision(tmp_path) == {"commit": None, "uncommitted_changes": None}


def test_revision_of_a_checkout(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert source_revision(package) == {"commit": head.stdout.strip(), "uncommitted_changes": False}
    (package / "new.py").touch()
    assert source_revision(package)["uncommitted_changes"]
    deeper = package / "site-packages"
    deeper.mkdir()
    assert source_revision(deeper)["commit"] is None, "a package inside someone else's checkout"
