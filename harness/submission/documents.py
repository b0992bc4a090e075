"""The texts of a submission: measurements.json, user.conf, README.md and calibration.md, from what runs recorded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..backends.protocol import AS_IN_MODEL
from ..config import Scenario
from ..quantize.models import is_quantized
from ..quantize.record import read_record
from ..settings import LATENCY_ATTRIBUTES, RATE_ATTRIBUTES
from .collect import ScenarioRuns, reasons_against
from .rounds import Division, Round

REHEARSAL_MARK: Final = "**REHEARSAL, not a submission.**"

_NS_PER_MS: Final = 1_000_000
_FLAGS: Final[Mapping[str, str]] = {
    "backend": "--backend",
    "profile": "--profile",
    "sample_count": "--count",
    "min_duration_s": "--time",
    "target_qps": "--qps",
    "max_latency_s": "--max-latency",
    "samples_per_query": "--samples-per-query",
    "performance_sample_count": "--performance-sample-count",
    "max_batch": "--max-batchsize",
    "threads": "--threads",
    "instances": "--instances",
    "isa": "--isa",
    "precision": "--precision",
    "kernels": "--kernels",
}
"""RunConfig's field -> the flag of `run` that sets it."""
_FILE_FLAGS: Final[Mapping[str, str]] = {
    "model": "--model",
    "dataset_path": "--dataset-path",
    "plan": "--plan",
    "machine": "--machine",
}
"""Of these only the file's name is told: where a submitter keeps files is nobody's business, and helps nobody."""

_WITHOUT_CALIBRATION: Final = frozenset({"fp32", "bf16", "bf16-emulated"})
"""Precisions for which no ranges are measured."""


def measurements_json(runs: ScenarioRuns) -> str:
    """What the rules want said about data types and weights."""
    backend, config = runs.performance.record["backend"], runs.performance.record["config"]
    precision = str(backend.get("precision", "fp32"))
    model = "none" if config["model"] is None else Path(config["model"]).name
    quantised = f"quantised to {precision} after training, see documentation/calibration.md"
    as_loaded = "none in the file; the engine lays weights out for its kernels and folds constants when it loads them"
    values = {
        "input_data_types": str(backend.get("input_data_type", "fp32")),
        "retraining": "No",
        "starting_weights_filename": model,
        "weight_data_types": precision,
        "weight_transformations": as_loaded if precision in _WITHOUT_CALIBRATION else quantised,
    }
    return json.dumps(values, indent=2) + "\n"


def user_conf(runs: ScenarioRuns) -> str:
    """The run's user.conf, and as settings of their own what flags gave or was measured instead."""
    record = runs.performance.record
    effective, official = record["settings"]["effective"], record["settings"]["official"]
    text = str(record["user_conf"]["text"])
    added = [
        f"*.{runs.measured}.{key} = {value}"
        for key, value in _tuned(runs.measured, effective, official).items()
        if f".{key} = " not in _settings_of(text, runs.measured)
    ]
    if not added:
        return text
    return text.rstrip("\n") + "\n# Given by a flag, or measured before the run.\n" + "\n".join(added) + "\n"


def _settings_of(text: str, scenario: Scenario) -> str:
    """The lines that set something in a scenario."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line[:1] != "#" and line.split(".")[1:2] in ([scenario], ["*"]))


def _tuned(scenario: Scenario, effective: Mapping[str, Any], official: Mapping[str, Any]) -> dict[str, str]:
    """user.conf's key -> value, of the settings that are a submitter's own and were changed."""
    tuned = {}
    rate, latency = RATE_ATTRIBUTES.get(scenario), LATENCY_ATTRIBUTES.get(scenario)
    if rate is not None and effective[rate] != official[rate]:
        tuned["target_qps"] = f"{effective[rate]:.10g}"
    if scenario != "Server" and latency is not None and effective[latency] != official[latency]:
        tuned["target_latency"] = f"{effective[latency] / _NS_PER_MS:.10g}"
    return tuned


def readme(runs: ScenarioRuns, rules: Round, division: Division, rehearsal: bool) -> str:
    """One scenario: what ran, how, and how to run it again."""
    record = runs.performance.record
    result = record["result"]
    lines = [f"# {runs.scenario}, {rules.benchmark}, {division} division, {rules.name}", ""]
    if rehearsal:
        lines += rehearsal_lines(runs, division)
    if runs.measured != runs.scenario:
        lines += [f"Inferred from {runs.measured}: this folder holds the runs of {runs.measured}.", ""]
    lines += [
        f"- {result['metric_name']}: {result['metric']:.3f} {result['metric_unit']}, {_verdict(result)}",
        f"- accuracy: `{runs.accuracy.record['accuracy']['line']}`",
        f"- backend: {_listed(record['backend'])}",
        f"- instances: {len(record['instances'])}, CPUs "
        + "; ".join(",".join(map(str, instance["cores"])) for instance in record["instances"]),
        f"- machine: {_listed(record['machine'])}",
        f"- software: {_listed(record['versions'])}",
        f"- run on {record['started_utc']}",
        "",
        "The program is in `src/`; it installs with `pip install`. The run is repeated with this folder's user.conf by",
        "",
        "```sh",
        command_of(record["config"]),
        command_of(record["config"]) + " --accuracy",
        "```",
        "",
    ]
    return "\n".join(lines)


def rehearsal_lines(runs: ScenarioRuns, division: Division) -> list[str]:
    """The mark, and every reason that was recorded."""
    reasons = dict.fromkeys(reason for run in runs.all for reason in reasons_against(run, division))
    return [REHEARSAL_MARK, "", *(f"- {reason}" for reason in reasons), *([""] if reasons else [])]


def command_of(config: Mapping[str, Any]) -> str:
    """A command line of `run` for a performance run."""
    words = ["loadgen-numba", "run", "--scenario", config["scenario"], "--user-conf", "user.conf"]
    for field, flag in (*_FLAGS.items(), *_FILE_FLAGS.items()):
        value = config.get(field)
        if value is not None:
            words += [flag, Path(value).name if field in _FILE_FLAGS else str(value)]
    return shlex.join(words)


def source_readme(rules: Round, rehearsal: bool) -> str:
    """Of the program's folder in the submission."""
    mark = f"{REHEARSAL_MARK}\n\n" if rehearsal else ""
    return (
        f"# {rules.benchmark} on CPUs\n\n{mark}"
        "loadgen-numba: `harness` drives LoadGen, `preprocessing` prepares ImageNet as the reference does, and\n"
        "`backend` is the inference engine. Each scenario's README.md names the command that repeats its run.\n"
    )


def calibration(runs: Sequence[ScenarioRuns]) -> str | None:
    """documentation/calibration.md: that nothing is quantised, or the quantisation's record; None if there is none.

    Both are asked, the model file and the engine, which may quantise by itself.
    """
    models = sorted({found.performance.record["config"]["model"] for found in runs} - {None})
    records = [record for model in models if (record := read_record(Path(model))) is not None]
    if records:
        return "# Calibration\n\n" + "\n".join(_of_record(record) for record in records)
    quantised = [is_quantized(Path(model)) for model in models]
    allowed = _WITHOUT_CALIBRATION | ({AS_IN_MODEL} if None not in quantised else set())
    precisions = sorted({str(found.performance.record["backend"].get("precision", "fp32")) for found in runs})
    if any(quantised) or not set(precisions) <= allowed:
        return None
    told = ", ".join(precisions)
    return (
        "# Calibration\n\n"
        f"Precision: {told}. Nothing is quantised to integers: no ranges are measured, and\n"
        "no calibration data is used. Weights are the model file's own, converted to this precision where it differs.\n"
    )


def _of_record(record: Mapping[str, Any]) -> str:
    """A quantisation in words, its images and its ranges."""
    images = record["calibration"]["images"]
    kept = ", ".join(record["kept_float32"]) or "none"
    lines = [
        f"`{Path(record['model']).name}` (md5 {record['model_md5']}) was quantised after training to 8-bit integers by",
        "`loadgen-numba quantize`, with onnxruntime's quantizer; QuantizeLinear and DequantizeLinear mark every layer.",
        "",
        f"- Ranges of activations: method {record['method']} over {len(images)} images, "
        f"{record['calibration']['source']}",
        f"- Weights: {record['weights']}, symmetric, from the weights alone",
        f"- Layers kept in float32: {kept}",
        "",
        "| tensor | low | high |",
        "|---|---|---|",
        *(f"| `{name}` | {low:.6g} | {high:.6g} |" for name, (low, high) in record["ranges"].items()),
        "",
        "Calibration images:",
        "",
        *(f"- {name}" for name in images),
        "",
    ]
    return "\n".join(lines)


def _verdict(result: Mapping[str, Any]) -> str:
    return "VALID" if result["valid"] else "INVALID"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
