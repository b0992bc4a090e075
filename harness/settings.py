"""user.conf and audit files checked, flags turned into LoadGen's settings, what then differs from the official ones.

No rule number stands here: official values are LoadGen's built-in ones. Pure: knows names and values of settings, not
LoadGen itself (`loadgen.py`).

LoadGen's own parser ignores `key=value` without blanks, a misspelt key and a second value, and reads 1e5 as 1 where
it wants an integer. So every line is checked here first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from .config import SCENARIOS, STREAMS, ComplianceTest, RunConfig, Scenario
from .errors import BadInputError

CONF_FOLDER: Final = Path(__file__).parent / "conf"
DEFAULT_USER_CONF: Final = CONF_FOLDER / "user.conf"
"""The user.conf in the project's root."""
NS_PER_S: Final = 1_000_000_000
MS_PER_S: Final = 1000

SettingValues: TypeAlias = Mapping[str, int | float | bool | str]

_INTEGER: Final = re.compile(r"0|[1-9][0-9]*")
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LINE: Final = re.compile(r"\s*(?P<key>\S+)\s+=\s+(?P<value>\S+)\s*")
_COMMENT: Final = re.compile(r"\s*(#(\s.*)?)?")

_INTEGER_KEYS: Final = frozenset(
    {
        "min_duration",
        "max_duration",
        "min_query_count",
        "max_query_count",
        "performance_sample_count_override",
        "accuracy_sample_count_override",
        "samples_per_query",
        "coalesce_queries",
        "max_async_queries",
        "performance_issue_unique",
        "performance_issue_same",
        "performance_issue_same_index",
        "sample_concatenate_permutation",
        "print_timestamps",
    }
)
_DECIMAL_KEYS: Final = frozenset({"target_qps", "target_latency_percentile"})
_TARGET_LATENCY: Final = "target_latency"
"""Milliseconds; a decimal hint for the streams, a whole number as Server's bound."""
_USER_KEYS: Final = frozenset({*_INTEGER_KEYS, *_DECIMAL_KEYS, _TARGET_LATENCY})
_AUDIT_INTEGER_KEYS: Final = frozenset({"mode", "accuracy_log_rng_seed", "accuracy_log_sampling_target"})
_MODES: Final = ("0", "1", "2", "3")
"""Submission, accuracy, performance, find peak; LoadGen ignores any other."""


@dataclass(frozen=True)
class UserSetting:
    """One line of user.conf or of an audit file."""

    line_number: int
    scenario: str
    key: str
    value: str


def read_user_conf(path: Path, model: str) -> tuple[UserSetting, ...]:
    """Every setting of the file, in order. model: the benchmark's name, which keys may carry instead of `*`.

    Raises: BadInputError for a line LoadGen would misread, ignore or not know, naming file and line.
    """
    return _read(path, "--user-conf", ("*", model), _USER_KEYS)


def read_audit_conf(path: Path) -> tuple[UserSetting, ...]:
    """As `read_user_conf`; LoadGen takes an audit file's settings for the model `*` only, whatever the benchmark."""
    return _read(path, "--audit-conf", ("*",), _USER_KEYS | _AUDIT_INTEGER_KEYS)


def _read(path: Path, flag: str, models: tuple[str, ...], keys: frozenset[str]) -> tuple[UserSetting, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "not a text file in UTF-8"
        raise BadInputError(f"{flag} {path}: {reason}; name a file of LoadGen settings, or leave {flag} out") from error
    settings: list[UserSetting] = []
    first_lines: dict[tuple[str, str, str], int] = {}
    for line_number, line in enumerate(text.splitlines(), start=1):
        if _COMMENT.fullmatch(line):
            continue
        matched = _LINE.fullmatch(line)
        if matched is None:
            raise BadInputError(
                f"{path}:{line_number}: {line.strip()!r} is not `model.scenario.key = value` (one value, blanks around "
                "the =, no comment behind it; a comment line starts with # and a blank)"
            )
        setting = _checked(f"{path}:{line_number}", line_number, matched["key"], matched["value"], models, keys)
        full_key = (matched["key"].split(".")[0], setting.scenario, setting.key)
        if full_key in first_lines:
            raise BadInputError(
                f"{path}:{line_number}: {matched['key']} was already set in line {first_lines[full_key]}"
            )
        first_lines[full_key] = line_number
        settings.append(setting)
    return tuple(settings)


def _checked(
    where: str, line_number: int, full_key: str, value: str, models: tuple[str, ...], keys: frozenset[str]
) -> UserSetting:
    parts = full_key.split(".")
    if len(parts) != 3:
        raise BadInputError(f"{where}: key {full_key!r} has {len(parts)} parts, expected model.scenario.key")
    key_model, scenario, key = parts
    if key_model not in models:
        raise BadInputError(
            f"{where}: model {key_model!r} in {full_key!r} is none that LoadGen looks for here: write "
            f"{' or '.join(models)}"
        )
    if scenario != "*" and scenario not in SCENARIOS:
        raise BadInputError(f"{where}: scenario {scenario!r} in {full_key!r} is not *, {', '.join(SCENARIOS)}")
    if key not in keys:
        raise BadInputError(
            f"{where}: unknown key {key!r} in {full_key!r}; this file may set: {', '.join(sorted(keys))}"
        )
    integer = key not in _DECIMAL_KEYS and (key != _TARGET_LATENCY or scenario in ("Server", "*"))
    if not (_INTEGER if integer else _DECIMAL).fullmatch(value):
        kind = "a whole number" if integer else "a number"
        raise BadInputError(f"{where}: {full_key} = {value!r} is not {kind}")
    if key == "mode" and value not in _MODES:
        raise BadInputError(f"{where}: {full_key} = {value!r} is no mode of LoadGen; they are {', '.join(_MODES)}")
    return UserSetting(line_number, scenario, key, value)


def audit_file(config: RunConfig) -> Path | None:
    """The audit settings of a test: those of its compliance test, or the file it names."""
    if config.compliance_test is not None:
        return audit_path(config.compliance_test)
    return config.audit_conf


def audit_path(test: ComplianceTest) -> Path:
    """The official settings of a compliance test."""
    return CONF_FOLDER / f"{test}.conf"


def is_set(settings: tuple[UserSetting, ...], scenario: str, key: str) -> bool:
    """Whether user.conf says anything about a key in a scenario."""
    return any(setting.key == key and setting.scenario in ("*", scenario) for setting in settings)


def check_rate(config: RunConfig, settings: tuple[UserSetting, ...], user_conf: Path) -> None:
    """Raises: BadInputError for a Server run whose rate nobody gave: LoadGen would take its own, one query a second."""
    if config.scenario == "Server" and config.target_qps is None and not is_set(settings, "Server", "target_qps"):
        raise BadInputError(
            f"Server issues queries at a rate that is yours to choose, and {user_conf} sets none (LoadGen's own, 1 "
            "query/s, would take 14 hours for 50,000 images): add --qps RATE, or *.Server.target_qps to a --user-conf"
        )


def overrides(config: RunConfig) -> dict[str, int | float]:
    """What the flags change, by LoadGen's attribute names."""
    values: dict[str, int | float] = {}
    if config.min_duration_s is not None:
        values["min_duration_ms"] = round(config.min_duration_s * MS_PER_S)
    if config.min_query_count is not None:
        values["min_query_count"] = config.min_query_count
    if config.query_count is not None:
        values["min_query_count"] = config.query_count
        values["max_query_count"] = config.query_count
    if config.samples_per_query is not None:
        values["multi_stream_samples_per_query"] = config.samples_per_query
    if config.performance_sample_count is not None:
        values["performance_sample_count_override"] = config.performance_sample_count
    if config.target_qps is not None:
        values[RATE_ATTRIBUTES[config.scenario]] = config.target_qps
    if config.max_latency_s is not None:
        values[LATENCY_ATTRIBUTES[config.scenario]] = round(config.max_latency_s * NS_PER_S)
    return values


def sample_count(scenario: Scenario, effective: SettingValues) -> tuple[int, bool]:
    """Samples of a performance run, and whether it takes exactly so many; otherwise at least, in Server about.

    Offline is one query, of as many samples as its expected rate makes last 1.1 times the least duration, but at least
    min_query_count. Source: LoadGen, TestSettingsInternal.
    """
    least = int(effective["min_query_count"])
    if scenario == "Offline":
        expected = (
            OFFLINE_SLACK * float(effective["min_duration_ms"]) / MS_PER_S * float(effective["offline_expected_qps"])
        )
        return max(least, int(expected)), True
    most = int(effective["max_query_count"])
    if scenario == "Server" and most == 0:
        least = max(
            least, round(float(effective["server_target_qps"]) * float(effective["min_duration_ms"]) / MS_PER_S)
        )
    return (most or least) * samples_per_query(scenario, effective), most > 0


def samples_per_query(scenario: Scenario, effective: SettingValues) -> int:
    """Of a performance run; Offline's one query is told by `sample_count`."""
    return int(effective["multi_stream_samples_per_query"]) if scenario == "MultiStream" else 1


def prepared_queries(scenario: Scenario, effective: SettingValues) -> float:
    """Queries that LoadGen makes for a stream before it begins: for twice the least duration at the expected latency.

    Infinite in other scenarios. Source: LoadGen, GenerateQueries.
    """
    if scenario not in STREAMS:
        return math.inf
    duration_ns = 2 * float(effective["min_duration_ms"]) / MS_PER_S * NS_PER_S
    return max(float(effective["min_query_count"]), duration_ns / float(effective[LATENCY_ATTRIBUTES[scenario]]))


def latency_goal(scenario: Scenario, effective: SettingValues) -> tuple[float, float | None]:
    """The percentile of latency that counts, as a share, and Server's bound on it in seconds."""
    if scenario == "Server":
        bound_s = float(effective["server_target_latency_ns"]) / NS_PER_S
        return float(effective["server_target_latency_percentile"]), bound_s
    prefix = "multi_stream" if scenario == "MultiStream" else "single_stream"
    return float(effective[f"{prefix}_target_latency_percentile"]), None


OFFLINE_SLACK: Final = 1.1
"""LoadGen's own: Offline's query has so many times the samples that the least duration takes at the expected rate."""

RATE_ATTRIBUTES: Final[Mapping[str, str]] = {"Server": "server_target_qps", "Offline": "offline_expected_qps"}
LATENCY_ATTRIBUTES: Final[Mapping[str, str]] = {
    "SingleStream": "single_stream_expected_latency_ns",
    "MultiStream": "multi_stream_expected_latency_ns",
    "Server": "server_target_latency_ns",
}

Rule: TypeAlias = Literal["free", "at least", "at most"]
_RULES: Final[Mapping[str, Rule]] = {
    "mode": "free",
    "scenario": "free",
    "single_stream_expected_latency_ns": "free",
    "multi_stream_expected_latency_ns": "free",
    "server_target_qps": "free",
    "offline_expected_qps": "free",
    "server_coalesce_queries": "free",
    "server_max_async_queries": "free",
    "server_find_peak_qps_boundary_step_size": "free",
    "server_find_peak_qps_decimals_of_precision": "free",
    "print_timestamps": "free",
    "server_target_latency_ns": "at most",
    "min_duration_ms": "at least",
    "min_query_count": "at least",
    "performance_sample_count_override": "at least",
}
"""How a setting may differ from the official one; those not named must be equal. Source: MLPerf Inference rules."""
_SCENARIO_OF: Final[Mapping[str, Scenario]] = {
    "single": "SingleStream",
    "multi": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
"""Whose setting it is, by the first word of LoadGen's attribute name."""


def applies_to(name: str, scenario: str) -> bool:
    """Whether a setting, by LoadGen's attribute name, has an effect in a scenario."""
    return _SCENARIO_OF.get(name.split("_")[0], scenario) == scenario


def deviations(official: SettingValues, effective: SettingValues, scenario: Scenario) -> tuple[str, ...]:
    """One line for each setting that a submission could not have, e.g. `max_query_count 100, official 0`.

    Settings of other scenarios do not count: they have no effect.
    """
    found = []
    for name, expected in official.items():
        actual, rule = effective[name], _RULES.get(name)
        if rule == "free" or actual == expected or not applies_to(name, scenario):
            continue
        if rule is not None and not isinstance(actual, str) and not isinstance(expected, str):
            if (actual >= expected) if rule == "at least" else (actual <= expected):
                continue
            found.append(f"{name} {actual}, official {rule} {expected}{_remedy(name)}")
        else:
            found.append(f"{name} {actual}, official {expected}{_remedy(name)}")
    return tuple(found)


_REMEDIES: Final[Mapping[str, str]] = {
    "min_duration_ms": "--time and min_duration",
    "min_query_count": "--count and min_query_count",
    "max_query_count": "--count and max_query_count",
    "max_duration_ms": "max_duration",
    "performance_sample_count_override": "--performance-sample-count and performance_sample_count_override",
    "server_target_latency_ns": "--max-latency and Server.target_latency",
    "multi_stream_samples_per_query": "--samples-per-query and samples_per_query",
    "single_stream_target_latency_percentile": "target_latency_percentile",
    "multi_stream_target_latency_percentile": "target_latency_percentile",
    "server_target_latency_percentile": "target_latency_percentile",
}
"""Setting -> the flag and the key of user.conf that change it."""


def _remedy(name: str) -> str:
    return f" (leave out {_REMEDIES[name]})" if name in _REMEDIES else ""
