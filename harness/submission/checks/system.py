"""Rules about a system: its description, its benchmarks, their scenarios."""

from __future__ import annotations

from typing import Final

from ...errors import BadInputError
from .records import Problems, Rule, System


def _description(system: System) -> Problems:
    if system.problem is not None:
        yield system.path, system.problem


def _fields(system: System) -> Problems:
    if system.description is None:
        return
    rules = system.submission.rules.system
    for name in (*rules.filled, *rules.present):
        if name not in system.description:
            yield system.path, f"field {name} is missing"
        elif name in rules.filled and not system.description[name]:
            value = system.description[name]
            hint = 'write "0" as a text' if value == 0 else "N/A is an answer"
            yield system.path, f"field {name} = {value!r} says nothing; {hint}"


def _integers(system: System) -> Problems:
    if system.description is None:
        return
    for name in system.submission.rules.system.integers:
        value = str(system.description.get(name, ""))
        if value and not value.isdigit():
            yield system.path, f"field {name} = {value!r} is not a whole number"


def _status(system: System) -> Problems:
    allowed = system.submission.rules.system_status
    if system.description is not None and str(system.description.get("status")).lower() not in allowed:
        yield system.path, f"status {system.description.get('status')!r} is none of {', '.join(allowed)}"


def _system_type(system: System) -> Problems:
    if system.description is None:
        return
    try:
        system.submission.rules.scenarios_of(_ordered(system.system_type))
    except BadInputError as error:
        yield system.path, str(error)


def _submitter(system: System) -> Problems:
    if system.description is None:
        return
    stated = str(system.description.get("submitter"))
    if stated.lower() != system.submission.submitter.lower():
        yield system.path, f"submitter {stated!r}, but the folder is {system.submission.submitter!r}"


def _division(system: System) -> Problems:
    if system.description is not None and system.description.get("division") != system.submission.division:
        stated = system.description.get("division")
        yield system.path, f"division {stated!r}, but the folder is {system.submission.division!r}"


def _network(system: System) -> Problems:
    if system.description is not None and "is_network" in system.description:
        yield system.path, "field is_network belongs to the network division: leave it out"


def _benchmarks(system: System) -> Problems:
    folder, benchmark = system.submission.results / system.name, system.submission.rules.benchmark
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    if benchmark not in names:
        yield folder / benchmark, "results of the benchmark are missing"
    if system.submission.division == "closed":
        for name in names:
            if name != benchmark:
                yield folder / name, f"no benchmark that is known here; {benchmark} is"


def _scenarios(system: System) -> Problems:
    folder = system.submission.results / system.name / system.submission.rules.benchmark
    scenarios = system.submission.rules.scenarios
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    known = {name for of_type in scenarios.values() for name in of_type}
    required: set[str] = set(scenarios.get(_ordered(system.system_type), ()))
    closed = system.submission.division == "closed"
    if closed and required:
        for name in sorted(required - names):
            yield folder / name, f"scenario is missing: a system of type {system.system_type} has it"
    for name in sorted(names):
        if name not in known:
            spelt = next((other for other in known if other.lower() == name.lower()), None)
            yield folder / name, f"is spelt {spelt}" if spelt else "is no scenario"
        elif closed and required and name not in required:
            yield (
                folder / name,
                (
                    f"a closed system of type {system.system_type} has no {name}, and with it all its scenarios are "
                    "refused: state the type datacenter,edge or remove it"
                ),
            )


def _ordered(system_type: str) -> str:
    """The two parts of a type may come in any order."""
    return ",".join(sorted(system_type.split(",")))


RULES: Final[tuple[Rule[System], ...]] = (
    Rule("system-description", _description),
    Rule("system-fields", _fields),
    Rule("system-integers", _integers),
    Rule("system-status", _status),
    Rule("system-type", _system_type),
    Rule("system-submitter", _submitter),
    Rule("system-division", _division),
    Rule("system-network", _network),
    Rule("benchmarks", _benchmarks),
    Rule("scenarios", _scenarios),
)
