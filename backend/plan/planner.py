"""Graph -> plan: where every value lives, then one or more steps per op (lower.py), then offsets filled in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, ModelError
from ..graph.ir import BATCH, Conv, Graph, Op, Pads, Reshape, Transpose, Value, reads
from ..kernels.step import STEP, KernelKey, unit_kind
from ..machine import Machine
from ..pixels import PixelInput
from .layout import NO_HALO, Layout, layout_of
from .memory import Lifetime, assign_offsets
from .pack import ALIGN_BYTES, Buffers, F32Array
from .plan import Plan, Port, StepInfo

_ALIGN = ALIGN_BYTES // 4


@dataclass
class Draft:
    """A step before offsets are known: its record, and which values its x, y and b lie in, with what added.

    places: field -> (value, elements from the start of the value's memory).
    """

    record: Any
    info: StepInfo
    places: dict[str, tuple[str, int]] = field(default_factory=dict)


class Planning:
    """What lowering an op may ask and add to, while a plan is being made."""

    def __init__(self, graph: Graph, machine: Machine, max_batch: int) -> None:
        self.graph = graph
        self.machine = machine
        self.batched = any(graph.values[name].shape[:1] == (BATCH,) for name in graph.inputs)
        if not self.batched and max_batch != 1:
            shapes = {name: graph.values[name].shape for name in graph.inputs}
            raise InputError(f"max_batch={max_batch}, but the model's shapes are fixed: {shapes}; use max_batch=1")
        self.max_batch = max_batch
        self.buffers = Buffers()
        self.drafts: list[Draft] = []
        self.kernels: dict[KernelKey, int] = {}
        self.layouts: dict[str, Layout] = {}
        self.alias: dict[str, str] = {}
        self.constants: dict[str, F32Array] = {}

    def value(self, name: str) -> Value:
        return self.graph.values[name]

    def layout(self, name: str) -> Layout:
        return self.layouts[name]

    def images(self, layout: Layout) -> int:
        """Images at the largest batch."""
        return layout.images * self.max_batch

    def array(self, name: str) -> F32Array:
        """A constant as float32."""
        return np.asarray(self.graph.constants[name], np.float32)

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def step(self, kernel: KernelKey, node: str, *, macs: int = 0, weight_bytes: int = 0, **fields: Any) -> Draft:
        """Appends a step with the given fields; fields named x, y, b are (value, elements inside it)."""
        record = np.zeros((), STEP)
        record["low"], record["high"] = -np.inf, np.inf
        record["kernel"] = self.kernels.setdefault(kernel, len(self.kernels))
        record["unit_kind"] = unit_kind(kernel.name)
        places = {key: fields.pop(key) for key in ("x", "y", "b") if key in fields}
        for key, entry in fields.items():
            record[key] = entry
        touched = sum(self._bytes(value) for value, _ in places.values())
        shape = str(self.value(places["y"][0]).shape) if places["y"][0] in self.graph.values else ""
        info = StepInfo(node, str(kernel), shape, macs, weight_bytes, touched)
        draft = Draft(record, info, places)
        self.drafts.append(draft)
        return draft

    def temporary(self, name: str, layout: Layout) -> str:
        """Memory for a value that the graph does not know."""
        self.layouts[name] = layout
        return name

    def _bytes(self, name: str) -> int:
        layout = self.layouts[name]
        return 4 * layout.images * layout.h * layout.w * layout.c


def make_plan(graph: Graph, machine: Machine, max_batch: int, pixels: PixelInput | None) -> Plan:
    """Plans a graph that has been through the passes. Depends on nothing but its arguments.

    Raises: ModelError for what no kernel can do, InputError for a max_batch or pixels that the model cannot take.
    """
    from .lower import LOWER, lower_export, lower_import, lower_pixels

    planning = Planning(graph, machine, max_batch)
    _lay_out(planning)
    pixel_draft = None
    for index, name in enumerate(graph.inputs):
        lower_import(planning, name, index)
    if pixels is not None:
        pixel_draft = lower_pixels(planning, graph.inputs[0], pixels)
    for op in graph.ops:
        lower: Callable[[Planning, Any], None] = LOWER[type(op)]
        lower(planning, op)
    for index, name in enumerate(graph.outputs):
        lower_export(planning, name, len(graph.inputs) + index)
    return _assemble(planning, pixel_draft)


def _lay_out(planning: Planning) -> None:
    """A layout for every value: halo as its convolutions need, channels padded unless only scalars touch them."""
    graph, lanes = planning.graph, planning.machine.isa.lanes
    readers: dict[str, list[Op]] = {}
    writer: dict[str, Op] = {}
    for op in graph.ops:
        writer[op.output] = op
        for name in reads(op):
            readers.setdefault(name, []).append(op)
    for name, value in graph.values.items():
        if name in graph.constants:
            continue
        halo: Pads = NO_HALO
        for op in readers.get(name, []):
            if isinstance(op, Conv) and op.x == name:
                halo = (
                    max(halo[0], op.pads[0]),
                    max(halo[1], op.pads[1]),
                    max(halo[2], op.pads[2]),
                    max(halo[3], op.pads[3]),
                )
        scalar_writer = name in graph.inputs or isinstance(writer.get(name), (Reshape, Transpose))
        scalar_readers = all(_reads_scalars(planning, op, name) for op in readers.get(name, []))
        planning.layouts[name] = layout_of(value, halo, lanes, pad_channels=not (scalar_writer and scalar_readers))


def _reads_scalars(planning: Planning, op: Op, name: str) -> bool:
    from .lower import is_depthwise

    return isinstance(op, Conv) and op.x == name and op.epilogue.residual != name and not is_depthwise(planning, op)


def _assemble(planning: Planning, pixel_draft: Draft | None) -> Plan:
    graph = planning.graph
    drafts = planning.drafts

    def home(name: str) -> str:
        while name in planning.alias:
            name = planning.alias[name]
        return name

    spans: dict[str, tuple[int, int]] = {}
    for index, draft in enumerate(drafts):
        for name, _ in draft.places.values():
            first, last = spans.get(home(name), (index, index))
            spans[home(name)] = (min(first, index), max(last, index))
    lifetimes = []
    for name, (first, last) in spans.items():
        if name not in planning.constants:
            layout = planning.layout(name)
            lifetimes.append(Lifetime(name, planning.images(layout) * layout.image, first, last))
    offsets, arena_size = assign_offsets(lifetimes, _ALIGN)
    for name, array in planning.constants.items():
        offsets[name] = arena_size
        arena_size += -(-array.size // _ALIGN) * _ALIGN

    for draft in [*drafts, *([pixel_draft] if pixel_draft else [])]:
        for key, (name, inside) in draft.places.items():
            draft.record[key] = offsets[home(name)] + inside
    steps = np.array([draft.record for draft in drafts], STEP)
    pixel_steps = None
    if pixel_draft is not None:
        pixel_steps = steps.copy()
        pixel_steps[0] = pixel_draft.record
    ports = [
        Port(name, planning.value(name).shape, planning.value(name).dtype) for name in (*graph.inputs, *graph.outputs)
    ]
    return Plan(
        model=graph.name,
        machine=planning.machine,
        max_batch=planning.max_batch,
        batched=planning.batched,
        inputs=tuple(ports[: len(graph.inputs)]),
        outputs=tuple(ports[len(graph.inputs) :]),
        kernels=tuple(planning.kernels),
        steps=steps,
        pixel_steps=pixel_steps,
        infos=tuple(draft.info for draft in drafts),
        weights=planning.buffers.weights(),
        tables=planning.buffers.tables(),
        arena_size=arena_size,
        constants=tuple((offsets[name], array.ravel()) for name, array in planning.constants.items()),
    )


def unsupported(op: Op, what: str) -> ModelError:
    """The error for an op that is known but asks for something that no kernel does."""
    return ModelError(f"node {op.name!r} ({type(op).__name__}): {what}")
