"""A plan as a file: what was chosen, and what it was chosen for. JSON, made to be read and edited by people.

Schema "loadgen-numba plan 3":

    schema          the name above
    model           {name, network_sha256}: of ops, attributes and shapes after the passes. Weights do not count, since
                    nothing is chosen by their values: a network that was trained further keeps its plan.
    isa, precision, max_batch       what the plan is valid for
    machine         {cpu, l1d_bytes, l2_bytes, l3_bytes}: what it was made from. It runs wherever the ISA does, and
                    stays what it is there: these are not the caches of the machine that it runs on
    segments        {last_node, chunk} in order: ops up to and including that node run for `chunk` images at a time
    chains          {first_node, last_node, parts, rows} in order: ops from and to these nodes run band by band, see
                    `chains.py`
    nodes           by name, each convolution and dense layer:
                      {kernel: "conv_gemm", group_images, runs: [{tile: "MRxNR", panels, mc, nc_panels, kc_taps,
                      kc_depth, panels_outside}]} or {kernel: "conv_winograd", tile, mc, nc_panels}, depthwise ones
                      {kernel: "depthwise_3x3", tile: "MRx1", nc_panels, rows}; see `choices.py`, `blocking.Blocks` and
                      kernels/conv_gemm.py. Depthwise layers of other windows, or of bytes, are not there: they leave
                      no choice

This file knows the format; whether a machine can do what is written there is the business of `check.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import PlanError
from ..graph.ir import Graph
from ..machine import Machine
from ..simd.isa import Tile
from .blocking import Blocks
from .chains import Chain
from .choices import Choices, ConvChoice, DepthwiseChoice, GemmChoice, PanelRun, WinogradChoice, node_keys
from .segments import Segment

SCHEMA: Final = "loadgen-numba plan 3"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Caches:
    """The machine that choices were made for, as far as they depend on it."""

    cpu: str
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int

    def __str__(self) -> str:
        l1d, l2, l3 = (count >> 10 for count in (self.l1d_bytes, self.l2_bytes, self.l3_bytes))
        return f"{self.cpu}, L1d {l1d} KiB, L2 {l2} KiB, L3 {l3} KiB"


def caches_of(machine: Machine) -> Caches:
    """What a plan file says of a machine."""
    return Caches(machine.cpu, machine.l1d_bytes, machine.l2_bytes, machine.l3_bytes)


@dataclass(frozen=True)
class NamedChain:
    """A chain from one node to another; see `chains.Chain`."""

    first_node: str
    last_node: str
    parts: int
    rows: int


@dataclass(frozen=True)
class PlanRecord:
    """A plan file's content. segments: (last node or None for a graph without ops, chunk)."""

    model: str
    network_sha256: str
    isa: str
    precision: str
    max_batch: int
    machine: Caches
    segments: tuple[tuple[str | None, int], ...]
    chains: tuple[NamedChain, ...]
    nodes: Mapping[str, ConvChoice]

    def as_json(self) -> str:
        """The file's text; equal records give equal texts."""
        content = {
            "schema": SCHEMA,
            "model": {"name": self.model, "network_sha256": self.network_sha256},
            "isa": self.isa,
            "precision": self.precision,
            "max_batch": self.max_batch,
            "machine": asdict(self.machine),
            "segments": [{"last_node": name, "chunk": chunk} for name, chunk in self.segments],
            "chains": [asdict(chain) for chain in self.chains],
            "nodes": {name: _choice_json(choice) for name, choice in self.nodes.items()},
        }
        return json.dumps(content, indent=1) + "\n"

    @property
    def sha256(self) -> str:
        """Of `as_json`: two sessions with the same digest run the same plan."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, or replaces it as a whole. Raises: OSError."""
        whole = Path(path)
        part = whole.with_name(f".{whole.name}.{os.getpid()}.part")
        try:
            part.write_text(self.as_json(), encoding="utf-8")
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)


def make_record(graph: Graph, machine: Machine, precision: str, max_batch: int, choices: Choices) -> PlanRecord:
    """The record of choices that were made for a graph on a machine."""
    keys = list(node_keys(graph).values())
    return PlanRecord(
        model=graph.name,
        network_sha256=network_sha256(graph),
        isa=machine.isa.name,
        precision=precision,
        max_batch=max_batch,
        machine=caches_of(machine),
        segments=tuple((keys[s.last - 1] if s.last else None, s.chunk) for s in choices.segments),
        chains=tuple(NamedChain(keys[c.first], keys[c.last - 1], c.parts, c.rows) for c in choices.chains),
        nodes=choices.nodes,
    )


def choices_of(record: PlanRecord, graph: Graph, machine: Machine, precision: str, max_batch: int) -> Choices:
    """The choices of a record that was made for this graph, ISA, precision and max_batch; unchecked beyond that.

    Raises: PlanError if it was made for others.
    """
    for field, theirs, ours in (
        ("isa", record.isa, machine.isa.name),
        ("precision", record.precision, precision),
        ("max_batch", record.max_batch, max_batch),
    ):
        if theirs != ours:
            raise PlanError(f"plan: it is for {field} {theirs}, not {ours}: ask for {theirs}, or make another plan")
    network = network_sha256(graph)
    if record.network_sha256 != network:
        raise PlanError(
            f"plan: it is for model {record.model!r}, network {record.network_sha256[:16]}, not for {graph.name!r}, "
            f"network {network[:16]}: take that model, or make another plan"
        )
    ends = {key: index + 1 for index, key in enumerate(node_keys(graph).values())}
    segments, first = [], 0
    for number, (name, chunk) in enumerate(record.segments):
        if name is not None and name not in ends:
            raise PlanError(f"plan: segments[{number}], last_node={name!r}: the model has no such node")
        last = 0 if name is None else ends[name]
        segments.append(Segment(first, last, chunk))
        first = last
    chains = []
    for number, chain in enumerate(record.chains):
        for field in ("first_node", "last_node"):
            if getattr(chain, field) not in ends:
                name = getattr(chain, field)
                raise PlanError(f"plan: chains[{number}], {field}={name!r}: the model has no such node")
        chains.append(Chain(ends[chain.first_node] - 1, ends[chain.last_node], chain.parts, chain.rows))
    return Choices(tuple(segments), tuple(chains), record.nodes)


def network_sha256(graph: Graph) -> str:
    """A digest of everything that choices may depend on: ops with their attributes, shapes, but no weights."""
    ops = [[type(op).__name__, asdict(op)] for op in graph.ops]
    values = {name: [value.shape, value.dtype] for name, value in sorted(graph.values.items())}
    content = json.dumps([ops, values, graph.inputs, graph.outputs], default=float)
    return hashlib.sha256(content.encode()).hexdigest()


def read_record(path: str | os.PathLike[str]) -> PlanRecord:
    """Reads a plan file.

    Raises: PlanError, naming file, place, value and what is allowed, for one that is absent or not of the schema.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_no_repeats)
    except OSError as error:
        raise PlanError(f"plan {os.fspath(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"plan {os.fspath(path)}: not a JSON file ({error})") from error
    top = _Object(f"plan {os.fspath(path)}: ", content)
    schema = top.take("schema", str)
    if schema != SCHEMA:
        raise PlanError(f"plan {os.fspath(path)}: schema={schema!r}: allowed is {SCHEMA!r}; write the plan again")
    model, machine = top.take_object("model"), top.take_object("machine")
    nodes = top.take_object("nodes")
    record = PlanRecord(
        model=model.take("name", str),
        network_sha256=model.take("network_sha256", str),
        isa=top.take("isa", str),
        precision=top.take("precision", str),
        max_batch=top.take("max_batch", int),
        machine=Caches(machine.take("cpu", str), *(machine.take(f.name, int) for f in fields(Caches)[1:])),
        segments=tuple((entry.take_name("last_node"), entry.take("chunk", int)) for entry in top.take_list("segments")),
        chains=tuple(_read_chain(entry) for entry in top.take_list("chains")),
        nodes={name: _read_choice(nodes.take_object(name, f"node {name!r}, ")) for name in nodes.names()},
    )
    top.refuse_others()
    return record


def _read_chain(entry: _Object) -> NamedChain:
    return NamedChain(
        entry.take("first_node", str), entry.take("last_node", str), entry.take("parts", int), entry.take("rows", int)
    )


def _choice_json(choice: ConvChoice) -> dict[str, Any]:
    if isinstance(choice, GemmChoice):
        runs = [{"tile": str(run.tile), "panels": run.panels, **asdict(run.blocks)} for run in choice.runs]
        return {"kernel": choice.kernel, "group_images": choice.group_images, "runs": runs}
    return {"kernel": choice.kernel, **asdict(choice), "tile": str(choice.tile)}


def _read_choice(node: _Object) -> ConvChoice:
    kernel = node.take("kernel", str)
    if kernel == GemmChoice.kernel:
        return GemmChoice(node.take("group_images", int), tuple(_read_run(run) for run in node.take_list("runs")))
    if kernel == WinogradChoice.kernel:
        return WinogradChoice(node.take_tile("tile"), node.take("mc", int), node.take("nc_panels", int))
    if kernel == DepthwiseChoice.kernel:
        return DepthwiseChoice(node.take_tile("tile"), node.take("nc_panels", int), node.take("rows", int))
    raise node.error("kernel", kernel, "conv_gemm, conv_winograd or depthwise_3x3")


def _read_run(run: _Object) -> PanelRun:
    blocks = Blocks(
        mc=run.take("mc", int),
        nc_panels=run.take("nc_panels", int),
        kc_taps=run.take("kc_taps", int),
        kc_depth=run.take("kc_depth", int),
        panels_outside=run.take("panels_outside", bool),
    )
    return PanelRun(run.take_tile("tile"), run.take("panels", int), blocks)


class _Object:
    """A JSON object being read: every field is taken once, with the type it must have; a mistake names its place."""

    def __init__(self, place: str, content: Any) -> None:
        self._place = place
        if not isinstance(content, dict):
            raise PlanError(f"{place.rstrip(', ')} {_short(content)}: an object is needed")
        self._rest = dict(content)
        self._inner: list[_Object] = []

    def names(self) -> list[str]:
        return list(self._rest)

    def error(self, field: str, value: object, allowed: str) -> PlanError:
        return PlanError(f"{self._place}{field}={_short(value)}: allowed is {allowed}")

    def take(self, field: str, kind: type[_T]) -> _T:
        value = self._value(field)
        if type(value) is not kind:  # a bool is an int, but not what is meant by one
            raise self.error(field, value, {str: "a string", int: "an integer", bool: "true or false"}[kind])
        return value

    def take_name(self, field: str) -> str | None:
        value = self._value(field)
        if value is not None and not isinstance(value, str):
            raise self.error(field, value, "a node's name")
        return value

    def take_tile(self, field: str) -> Tile:
        text = self.take(field, str)
        mr, _, nr = text.partition("x")
        if not all(part.isascii() and part.isdecimal() and len(part) <= 3 for part in (mr, nr)):
            raise self.error(field, text, "MRxNR, such as 6x4")
        return Tile(int(mr), int(nr))

    def take_object(self, field: str, place: str | None = None) -> _Object:
        inner = _Object(self._place + (f"{field}." if place is None else place), self._value(field))
        self._inner.append(inner)
        return inner

    def take_list(self, field: str) -> list[_Object]:
        value = self._value(field)
        if not isinstance(value, list):
            raise self.error(field, value, "a list")
        entries = [_Object(f"{self._place}{field}[{index}].", entry) for index, entry in enumerate(value)]
        self._inner += entries
        return entries

    def refuse_others(self) -> None:
        """Raises: PlanError if this object, or one inside, has fields that nobody took."""
        for field, value in self._rest.items():
            raise self.error(field, value, "nothing: there is no such field")
        for inner in self._inner:
            inner.refuse_others()

    def _value(self, field: str) -> Any:
        if field not in self._rest:
            raise PlanError(f"{self._place}{field} is missing")
        return self._rest.pop(field)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return content


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
