"""Our engine as a backend of MLCommons' reference app, in a folder that has a backend.py of its own, as theirs has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

APP = """
import json
import sys

import numpy as np

import backend
from harness.mlcommons import BackendNumba

assert backend.WHOSE == "theirs"
engine = BackendNumba()
assert (engine.name(), engine.image_format()) == ("numba", "NCHW")
assert engine.version()
assert engine.load(sys.argv[1], inputs=None, outputs=["ArgMax:0"]) is engine
assert engine.inputs == ["input_tensor:0"]
images = np.load("images.npy")
first = engine.predict({engine.inputs[0]: images})
engine.load(sys.argv[1])
both = engine.predict({engine.inputs[0]: images[:1]})
assert sys.modules["backend"].WHOSE == "theirs"
json.dump([first[0].tolist(), [output.shape for output in both]], open("answers.json", "w"))
"""


def test_the_reference_apps_interface(model: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "backend.py").write_text('WHOSE = "theirs"\n')
    (tmp_path / "app.py").write_text(APP)
    images = np.random.default_rng(5).uniform(-120, 130, (11, 3, 224, 224)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "app.py", model],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    classes, shapes = json.loads((tmp_path / "answers.json").read_text())
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    assert classes == session.run(["ArgMax:0"], {"input_tensor:0": images})[0].tolist()
    assert shapes == [[1], [1, 1001]]
