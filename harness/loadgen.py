"""The one file that imports LoadGen: its settings, its test call and its completion call, in plain Python types.

One LoadGen test per process: `FromConfig` loads the built-in mlperf.conf at its first call only, and the second test
of a process would run on raw defaults. `child.py` is the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import mlperf_loadgen as lg
import numpy as np
import numpy.typing as npt

from .config import Mode, Scenario
from .errors import BadInputError

SettingValue: TypeAlias = int | float | bool | str
Settings: TypeAlias = dict[str, SettingValue]

_MODES: Final = {
    "performance": lg.TestMode.PerformanceOnly,
    "accuracy": lg.TestMode.AccuracyOnly,
    "find_peak": lg.TestMode.FindPeakPerformance,
}
_BUILT_IN_ONLY: Final = 0
"""`conf_type` of FromConfig that reads the mlperf.conf compiled into LoadGen and no file."""


@dataclass(frozen=True)
class LoadedSettings:
    """LoadGen's settings object for one test, and the official values it started from."""

    native: Any
    official: Settings

    def effective(self) -> Settings:
        """What the test will run with, by LoadGen's attribute names."""
        return _as_dict(self.native)


def load_settings(user_conf: Path, model: str, scenario: Scenario, mode: Mode) -> LoadedSettings:
    """Official values, then user.conf on top: the one FromConfig call on a file that a process may make.

    Raises: BadInputError if LoadGen refuses the file.
    """
    built_in = lg.TestSettings()
    built_in.FromConfig("", model, scenario, _BUILT_IN_ONLY)
    native = lg.TestSettings()
    status = native.FromConfig(str(user_conf), model, scenario)
    if status != 0:
        raise BadInputError(f"{user_conf}: LoadGen refuses this file (status {status})")
    for settings in (built_in, native):
        settings.scenario = getattr(lg.TestScenario, scenario)
        settings.mode = _MODES[mode]
    return LoadedSettings(native, _as_dict(built_in))


def official_settings(model: str, scenario: Scenario) -> Settings:
    """What is compiled into LoadGen for a benchmark, whatever any file says."""
    built_in = lg.TestSettings()
    built_in.FromConfig("", model, scenario, _BUILT_IN_ONLY)
    return _as_dict(built_in)


def override(settings: LoadedSettings, values: Mapping[str, int | float]) -> None:
    """Assign attributes by LoadGen's names; they win over user.conf."""
    for name, value in values.items():
        setattr(settings.native, name, value)


def complete(response_ids: Sequence[int], payload: npt.NDArray[np.float32]) -> None:
    """Answer one query sample per id with the four bytes of payload [n] in its place. LoadGen copies them at once."""
    address, size_bytes = payload.ctypes.data, payload.itemsize
    responses = [
        lg.QuerySampleResponse(response_id, address + i * size_bytes, size_bytes)
        for i, response_id in enumerate(response_ids)
    ]
    lg.QuerySamplesComplete(responses)


def complete_empty(response_ids: Sequence[int]) -> None:
    """Answer with zero bytes, which no accuracy script accepts: lets LoadGen end a run that has failed."""
    lg.QuerySamplesComplete([lg.QuerySampleResponse(response_id, 0, 0) for response_id in response_ids])


def run_test(
    settings: LoadedSettings,
    *,
    issue: Callable[[list[int], list[int]], None],
    load: Callable[[list[int]], None],
    unload: Callable[[list[int]], None],
    sample_count: int,
    performance_sample_count: int,
    log_folder: Path,
    audit_conf: Path,
) -> None:
    """Run the test to its end; all callbacks come on the calling thread and must not raise.

    issue(response ids, sample indices). log_folder must be writable, else LoadGen does nothing and says nothing.
    audit_conf may be a path that does not exist; there is always one, because LoadGen otherwise picks up a forgotten
    audit.config from the current folder.
    """
    output = lg.LogOutputSettings()
    output.outdir = str(log_folder)
    log = lg.LogSettings()
    log.log_output = output
    log.enable_trace = False
    sut = lg.ConstructFastSUT(issue, _nothing_to_flush)
    qsl = lg.ConstructQSL(sample_count, performance_sample_count, load, unload)
    lg.StartTestWithLogSettings(sut, qsl, settings.native, log, str(audit_conf))
    lg.DestroyQSL(qsl)
    lg.DestroyFastSUT(sut)


def _nothing_to_flush() -> None:
    """Queries go to an instance as soon as they are issued, so nothing is ever held back."""


def _as_dict(native: Any) -> Settings:
    names = [name for name in dir(native) if not name.startswith("_") and name != "FromConfig"]
    values = {name: getattr(native, name) for name in names}
    return {name: value if isinstance(value, int | float) else value.name for name, value in values.items()}
