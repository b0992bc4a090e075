"""What one LoadGen test is asked to be, validated in one place.

`cli` and `demo_campaign.py` make these records; everything else only reads them. Knows no LoadGen and no file
format. A record is picklable: it travels to the process that runs LoadGen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from .errors import BadInputError

Scenario: TypeAlias = Literal["SingleStream", "MultiStream", "Offline", "Server"]
Mode: TypeAlias = Literal["performance", "accuracy", "find_peak"]
ComplianceTest: TypeAlias = Literal["TEST01", "TEST04"]

ProfileName: TypeAlias = Literal["resnet50", "mobilenet"]
Precision: TypeAlias = Literal["fp32", "bf16", "bf16-emulated", "int8"]

SCENARIOS: Final[tuple[Scenario, ...]] = get_args(Scenario)
PROFILE_NAMES: Final[tuple[ProfileName, ...]] = get_args(ProfileName)
COMPLIANCE_TESTS: Final[tuple[ComplianceTest, ...]] = get_args(ComplianceTest)
STREAMS: Final = frozenset({"SingleStream", "MultiStream"})
"""Scenarios in which the next query waits for the answer to the last one."""

IMAGENET_CLASS_COUNT: Final = 1000
"""Labels are 0..999 in all profiles."""

DEFAULT_OUTPUT: Final = Path("reports/runs")
TUNING_NAME: Final = "tuning"
"""`RunConfig.name` of the short runs by which loads are tuned: no results."""


@dataclass(frozen=True)
class RunConfig:
    """One LoadGen test.

    `name`: first folder under `output`, normally the profile's name.
    `model`: ONNX file; None only for backends that read none.
    `dataset_path`: folder with images and val_map.txt. `store_path`: their preprocessed form; None for the cache.
    `sample_count`: use the first so many images of the dataset; None for all.
    `query_count`: exactly so many queries (Offline: samples) in a performance run; None for LoadGen's rules.
    `min_query_count`: at least so many; None for LoadGen's rules.
    `min_duration_s`, `target_qps`, `max_latency_s`, `samples_per_query`, `performance_sample_count`: override
    LoadGen's settings; None keeps user.conf and the official values. `max_latency_s` is Server's bound and the
    streams' expected latency of a query.
    `max_batch`: most images in one inference; None for the scenario's default.
    `precision`: None for that of the model. "bf16-emulated" is for our engine alone.
    `plan`: a plan file for our engine, in place of its own choices.
    `instances`, `threads`: None for the scenario's default (`placement.py`).
    `user_conf`: None for the file that comes with the package. `audit_conf`: None for no audit.
    `compliance_test`: a performance run with this test's official audit settings.
    `not_submittable`: reasons known beforehand why this run cannot be submitted.
    """

    name: str
    profile: ProfileName
    scenario: Scenario
    mode: Mode
    backend: str
    model: Path | None
    dataset_path: Path
    output: Path = DEFAULT_OUTPUT
    store_path: Path | None = None
    sample_count: int | None = None
    query_count: int | None = None
    min_query_count: int | None = None
    min_duration_s: float | None = None
    target_qps: float | None = None
    max_latency_s: float | None = None
    samples_per_query: int | None = None
    performance_sample_count: int | None = None
    max_batch: int | None = None
    instances: int | None = None
    threads: int | None = None
    user_conf: Path | None = None
    audit_conf: Path | None = None
    compliance_test: ComplianceTest | None = None
    isa: str | None = None
    precision: Precision | None = None
    plan: Path | None = None
    kernels: str = "auto"
    machine: Path | None = None
    not_submittable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no run could mean. Raises: BadInputError."""
        for field, (flag, least, most) in _RANGES.items():
            value = getattr(self, field)
            if value is not None and not least <= value <= most:
                raise BadInputError(f"{flag} {value:g}: must be from {least:,.10g} to {most:,.10g}")
        if self.plan is not None and self.backend != "numba":
            raise BadInputError(f"--plan is for --backend numba, not for {self.backend}: leave one of the two out")
        if self.kernels != "auto" and self.backend != "numba":
            raise BadInputError(f"--kernels is for --backend numba, not for {self.backend}: leave one of the two out")
        if self.machine is not None and self.backend != "numba":
            raise BadInputError(f"--machine is for --backend numba, not for {self.backend}: leave one of the two out")
        check_precision(self.precision, self.backend)
        if self.mode == "find_peak" and self.scenario != "Server":
            raise BadInputError(
                f"--find-peak-performance works in Server only, not in {self.scenario}: add --scenario Server"
            )
        if self.mode == "find_peak" and self.target_qps is None:
            raise BadInputError(
                "--find-peak-performance starts from a rate that meets the latency bound: add --qps RATE"
            )
        if self.samples_per_query is not None and self.scenario != "MultiStream":
            raise BadInputError(f"--samples-per-query has no meaning in {self.scenario}: it belongs to MultiStream")
        if self.target_qps is not None and self.scenario in STREAMS:
            raise BadInputError(f"--qps has no meaning in {self.scenario}: it belongs to Server and Offline")
        if self.max_latency_s is not None and self.scenario == "Offline":
            raise BadInputError("--max-latency has no meaning in Offline, which has no latency bound")

    @property
    def folder(self) -> Path:
        """Where this test's logs go."""
        return self.output / self.name / self.scenario / (self.compliance_test or self.mode)


_MOST_SAMPLES: Final = 1_000_000_000
_LONGEST_S: Final = 1_000_000.0
"""Eleven days: LoadGen draws up the list of all queries beforehand."""

_RANGES: Final[dict[str, tuple[str, float, float]]] = {
    "sample_count": ("--count", 1, _MOST_SAMPLES),
    "query_count": ("--count", 1, _MOST_SAMPLES),
    "min_query_count": ("min_query_count", 1, _MOST_SAMPLES),
    "min_duration_s": ("--time", 0.001, _LONGEST_S),
    "target_qps": ("--qps", 1e-6, 1e6),
    "max_latency_s": ("--max-latency", 1e-9, _LONGEST_S),
    "samples_per_query": ("--samples-per-query", 1, 1_000_000),
    "performance_sample_count": ("--performance-sample-count", 1, _MOST_SAMPLES),
    "max_batch": ("--max-batchsize", 1, 1024),
    "instances": ("--instances", 1, 1_000_000),
    "threads": ("--threads", 1, 1_000_000),
}
"""Field -> its flag, and the least and the greatest value that a run could mean: in LoadGen's units a smaller or a
greater one would become 0 or overflow. NaN lies in no range."""


def check_precision(precision: Precision | None, backend: str) -> None:
    """Raises: BadInputError for a precision that a backend of ours does not have; plugins decide for themselves."""
    if precision == "bf16" and backend in ("onnxruntime", "null"):
        raise BadInputError(f"--precision bf16 is for --backend numba or openvino: {backend} has none")
    if precision == "bf16-emulated" and backend != "numba":
        raise BadInputError(f"--precision bf16-emulated is for --backend numba, not for {backend}")


def check_model_file(model: Path) -> None:
    """Raises: BadInputError unless there is such a file."""
    if model.is_dir():
        raise BadInputError(f"--model {model}: a folder, not a file: name the .onnx file in it")
    if not model.is_file():
        raise BadInputError(f"--model {model}: no such file: name an .onnx file")
