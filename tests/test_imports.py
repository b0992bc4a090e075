"""Who may import whom, read from the sources: the arrows of the architecture, and the single owners of libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
PACKAGES = ("harness", "backend", "preprocessing")

BETWEEN_PACKAGES = {"harness": {"backend", "preprocessing"}, "backend": set(), "preprocessing": set()}

INSIDE_BACKEND = {
    "errors": set(),
    "affinity": {"errors"},
    "graph": {"graph", "errors"},
    "simd": {"simd"},
    "kernels": {"kernels", "simd", "affinity", "errors"},
    "machine": {"simd", "errors"},
    "machine_file": {"machine", "simd", "errors"},
    "pixels": {"errors"},
    "reference": {"graph", "errors"},
    "plan": {"plan", "graph", "kernels", "machine", "pixels", "simd", "errors"},
    "neon": {"neon", "plan", "kernels", "simd", "affinity", "errors"},
    "engine": {"plan", "kernels", "neon", "machine", "errors"},
    "peak": {"machine", "kernels", "simd", "errors"},
    "model": {"engine", "plan", "graph", "machine", "machine_file", "pixels", "errors"},
    "__init__": {"engine", "errors", "graph", "machine", "machine_file", "model", "pixels", "plan"},
}
"""File or folder of backend -> what of backend it may import, whole folders or files."""

OWNERS = {
    "onnx": {"backend/graph/onnx_reader.py", "harness/demo/", "harness/quantize/"},
    "mlperf_loadgen": {"harness/loadgen.py"},
    "numba": {"backend/kernels/", "backend/simd/", "backend/plan/executor.py", "backend/peak.py",
              "preprocessing/resize.py", "harness/bench/"},
    "llvmlite": {"backend/kernels/", "backend/simd/"},
    "onnxruntime": {"harness/backends/onnxruntime.py", "harness/bench/", "harness/quantize/"},
    "openvino": {"harness/backends/openvino.py", "harness/bench/"},
    "PIL": {"preprocessing/", "harness/demo/"},
    "cv2": set(),
    "matplotlib": {"harness/report/plots.py"},
    "jinja2": {"harness/report/page.py"},
}  # fmt: skip
"""Library -> the only files (or folders, with a slash) that import it."""


@dataclass(frozen=True)
class Import:
    """`file` imports `target`, given as the parts of its dotted name: ("backend", "graph", "ir"), ("numpy",)."""

    file: Path
    line: int
    target: tuple[str, ...]
    relative: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(_ROOT)}:{self.line} imports {'.'.join(self.target)}"


def imports_of(file: Path) -> Iterator[Import]:
    """Every import statement of a file, also those inside functions; `from x import y` as x.y where y is a module."""
    package = file.relative_to(_ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, tuple(alias.name.split(".")), relative=False)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                below = (*module, alias.name)
                is_module = _ROOT.joinpath(*below).is_dir() or _ROOT.joinpath(*below).with_suffix(".py").exists()
                yield Import(file, node.lineno, below if is_module else module, relative=node.level > 0)


FILES = [file for package in PACKAGES for file in sorted((_ROOT / package).rglob("*.py"))]
IMPORTS = [found for file in FILES for found in imports_of(file)]


def complaints(wrong: list[Import]) -> str:
    return "\n".join(str(found) for found in wrong)


def test_the_sources_were_found() -> None:
    """The other tests here would pass on an empty list."""
    assert {file.relative_to(_ROOT).parts[0] for file in FILES} == set(PACKAGES)
    assert any(found.target[:3] == ("backend", "graph", "ir") and found.relative for found in IMPORTS)
    assert any(found.target == ("preprocessing",) and not found.relative for found in IMPORTS)


def test_packages_import_one_way() -> None:
    """harness -> backend, preprocessing; those two know nothing of each other or of harness."""
    wrong = []
    for found in IMPORTS:
        own, target = found.file.relative_to(_ROOT).parts[0], found.target[0]
        if target in PACKAGES and target != own and target not in BETWEEN_PACKAGES[own]:
            wrong.append(found)
    assert not wrong, complaints(wrong)


def test_imports_inside_a_package_are_relative() -> None:
    """MLCommons' reference app has a top-level backend.py of its own, which an absolute import would find."""
    wrong = [
        found for found in IMPORTS if found.target[0] == found.file.relative_to(_ROOT).parts[0] and not found.relative
    ]
    assert not wrong, complaints(wrong)


def test_layers_of_the_backend_import_downwards() -> None:
    """simd <- kernels <- plan <- model; graph knows none of them. Kernels are ignorant of graphs and plans."""
    wrong = []
    for found in IMPORTS:
        parts = found.file.relative_to(_ROOT).with_suffix("").parts
        if parts[0] == found.target[0] == "backend" and found.target[1:]:
            assert parts[1] in INSIDE_BACKEND, f"{found.file}: this file has no place in INSIDE_BACKEND"
            if found.target[1] not in INSIDE_BACKEND[parts[1]]:
                wrong.append(found)
    assert not wrong, complaints(wrong)


def test_only_the_executor_touches_compiled_kernels() -> None:
    """Plans are made of numbers: all other files of backend/plan import of the kernels only their records."""
    wrong = [
        found
        for found in IMPORTS
        if found.file.is_relative_to(_ROOT / "backend" / "plan")
        and found.file.name != "executor.py"
        and found.target[:2] == ("backend", "kernels")
        and found.target[:3] != ("backend", "kernels", "step")
    ]
    assert not wrong, complaints(wrong)


@pytest.mark.parametrize("library", OWNERS)
def test_libraries_have_owners(library: str) -> None:
    wrong = []
    for found in IMPORTS:
        path = found.file.relative_to(_ROOT).as_posix()
        owned = any(path == owner or (owner.endswith("/") and path.startswith(owner)) for owner in OWNERS[library])
        if found.target[0] == library and not found.relative and not owned:
            wrong.append(found)
    assert not wrong, complaints(wrong)
    users = {found.file for found in IMPORTS if found.target[0] == library and not found.relative}
    assert bool(users) == bool(OWNERS[library]), f"{library} has owners but no user, or the reverse"


def loaded_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_backend_defines_no_kernel() -> None:
    """A session may still ask for another ISA: no jitted function exists, Numba has not fixed its target."""
    loaded = loaded_after(
        "import backend\n"
        "from numba.core.registry import cpu_target\n"
        "assert '_toplevel_target_context' not in vars(cpu_target)"
    )
    kernels = {name for name in loaded if name.startswith("backend.kernels.")}
    assert kernels <= {"backend.kernels.jit", "backend.kernels.step"}
    assert "backend.plan.executor" not in loaded and "backend.peak" not in loaded
    assert not loaded & {"harness", "preprocessing", "onnxruntime", "openvino", "cv2", "mlperf_loadgen", "PIL"}


def test_the_backend_and_preprocessing_import_without_numba() -> None:
    """As on an Arm board where it is not installed: the C library and the NumPy twin stand in."""
    hidden = "sys.modules['numba'] = sys.modules['llvmlite'] = None"
    modules = ["backend", "backend.neon.executor", "preprocessing", "harness.cli", "harness.backends.numba"]
    loaded = loaded_after(f"{hidden}\nimport {', '.join(modules)}")
    assert set(modules) <= loaded


def test_importing_preprocessing_loads_no_engine() -> None:
    assert not loaded_after("import preprocessing") & {"harness", "backend", "onnx", "onnxruntime", "openvino", "cv2"}


def test_the_command_line_starts_without_engines_or_loadgen() -> None:
    """--help and wrong flags should answer at once; LoadGen belongs to the process of one test."""
    loaded = loaded_after("import harness.cli")
    assert not loaded & {"mlperf_loadgen", "onnxruntime", "openvino", "cv2"}
