"""MLCommons' own scripts on our logs and trees: they print what ours print, and reject nothing that `check` accepts.

Skipped unless LOADGEN_NUMBA_TEST_MLCOMMONS names a checkout of their inference repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from submission_support import short_runs
from tree_mutations import MUTATIONS

from harness.config import COMPLIANCE_TESTS, SCENARIOS
from harness.progress import Quiet
from harness.submission import audit
from harness.submission.checks import CheckConfig, check_tree

COMPARE = Path(__file__).parents[2] / "tools/compare-with-mlcommons"
CHECKERS = {
    "new": ("-m", "tools.submission.submission_checker.main"),
    "old": ("tools/submission/submission_checker_old.py",),
}


@pytest.fixture
def inference() -> Path:
    """The checkout."""
    given = os.environ.get("LOADGEN_NUMBA_TEST_MLCOMMONS")
    if given is None:
        pytest.skip("set LOADGEN_NUMBA_TEST_MLCOMMONS to a checkout of MLCommons' inference repository")
    return Path(given)


def official(inference: Path, tree: Path, checker: str) -> str:
    """OK, error, or crash."""
    done = subprocess.run(
        [sys.executable, *CHECKERS[checker], "--input", tree, "--version", "v6.1", "--submitter", "Acme",
         "--csv", tree.parent / "out.csv"],
        cwd=inference, capture_output=True, text=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if "SUMMARY: " not in said:
        return "crash"
    return "OK" if done.returncode == 0 and "looks OK" in said else "error"


def ours(tree: Path) -> list[str]:
    """Rules that are broken, each once."""
    report = check_tree(CheckConfig(tree, "v6.1", None, tree.parent / "originals"))
    return list(dict.fromkeys(finding.rule for finding in report.findings))


def test_check_accepts_no_tree_that_the_checkers_reject(inference: Path, good_tree: Path, tmp_path: Path) -> None:
    """Printed as a table, with -s."""
    row = "| {} | {} | {} | {} |\n"
    sys.stdout.write("\n" + row.format("tree", "ours", "MLCommons, new", "MLCommons, old") + "| --- " * 4 + "|\n")
    missed = []
    for name, change in (("good", lambda _: None), *((name, change) for name, _, change in MUTATIONS)):
        shutil.copytree(good_tree, tmp_path / "tree")
        tree = tmp_path / "tree/submission"
        change(tree)
        rules = ours(tree)
        theirs = [official(inference, tree, checker) for checker in CHECKERS]
        sys.stdout.write(row.format(name, ", ".join(rules) or "OK", *theirs))
        if (rules or theirs != ["OK", "OK"]) if name == "good" else not rules:
            missed.append(name)
        shutil.rmtree(tmp_path / "tree")
    assert missed == []


@pytest.fixture
def audited_runs(dataset: Path, tmp_path: Path) -> Path:
    """Real short runs of all scenarios, with real compliance tests, passed or not."""
    runs = short_runs(tmp_path / "runs", dataset, SCENARIOS, tmp_path / "store")
    for scenario in SCENARIOS:
        for test in COMPLIANCE_TESTS:
            audit.audit(test, runs / scenario, Quiet())
    return runs


def test_their_scripts_print_what_ours_print(inference: Path, audited_runs: Path) -> None:
    done = subprocess.run([sys.executable, COMPARE, inference, audited_runs], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": same: ")) == (0, len(SCENARIOS) * 4), done.stdout + done.stderr
    text = audited_runs / "Offline/TEST01/verify_accuracy.txt"
    text.write_text(text.read_text().replace("num_missing_qsl_idxs = 0", "num_missing_qsl_idxs = 1"))
    done = subprocess.run([sys.executable, COMPARE, inference, audited_runs], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Offline TEST01 verify_accuracy.txt: DIFFERS" in done.stdout
