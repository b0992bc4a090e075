"""Graph -> plan: where every value lives, one or more steps per op (lower/), then offsets filled in.

Early layers of a network have large pictures and small weights, late ones the reverse. So a plan has segments
(segments.py): the first run few images at a time, their values sharing memory that stays in cache; later ones run
more, so that each weight is read from memory more seldom. Inside a segment that runs image by image, ops may form
chains (chains.py): one step for all of them, whose links are steps behind those that the executor walks through.

Three stages, so that what was decided is a record of its own: choose (choose.py, or a plan file), check (check.py),
lower (lower/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..graph.ir import BATCH, Conv, Graph, Op, Pad, Pads, Quantize, Reshape, Transpose, reads
from ..kernels.step import STEP
from ..machine import Machine
from ..pixels import PixelInput
from ..simd.element import Element
from . import winograd
from .chains import Chain
from .check import check_choices
from .choose import choose
from .layout import NO_HALO, layout_of
from .lower import LOWER
from .lower.chain import lower_chain
from .lower.conv import channels_reached, is_depthwise
from .lower.io import lower_export, lower_import, lower_pixels
from .memory import Lifetime, assign_offsets, model_bytes
from .pack import aligned, words_to_hold
from .plan import Plan, Port
from .planning import Draft, Planning
from .precision import Precision, value_elements
from .record import PlanRecord, choices_of, make_record
from .segments import Segment


def make_plan(
    graph: Graph,
    machine: Machine,
    max_batch: int,
    pixels: PixelInput | None = None,
    saved: PlanRecord | None = None,
    precision: Precision = "fp32",
) -> Plan:
    """Plans a graph that has been through the passes. Depends on nothing but its arguments.

    saved: choices to follow, in place of the planner's own; it becomes the plan's record as it is.

    Raises: ModelError for what no kernel can do, InputError for a max_batch or pixels that the model cannot take,
    PlanError for a saved plan that was made for something else or cannot be followed.
    """
    planning = _begin(graph, machine, max_batch, precision)
    choices = choose(planning, max_batch) if saved is None else choices_of(saved, graph, machine, precision, max_batch)
    check_choices(planning, choices, max_batch)
    planning.choices = choices
    segments = choices.segments
    planning.begin_segment(0, segments[0].chunk)
    for index, name in enumerate(graph.inputs):
        lower_import(planning, name, index)
    pixel_draft = lower_pixels(planning, graph.inputs[0], pixels) if pixels is not None else None
    for number, segment in enumerate(segments):
        planning.begin_segment(number, segment.chunk)
        for first, last, chain in _stretches(segment, choices.chains):
            ops = graph.ops[first:last]
            lowered = [_lowered(planning, op) for op in ops]
            if chain is None:
                planning.drafts += [draft for drafts in lowered for draft in drafts]
            else:
                planning.drafts.append(lower_chain(planning, chain, ops, lowered))
    planning.op_type = "Output"
    for index, name in enumerate(graph.outputs):
        lower_export(planning, name, len(graph.inputs) + index)
    record = saved or make_record(graph, machine, precision, max_batch, choices)
    return _assemble(planning, record, segments, max_batch, pixel_draft)


def _lowered(planning: Planning, op: Op) -> list[Draft]:
    """The drafts of one op, taken out of the plan again."""
    count = len(planning.drafts)
    planning.op_type = type(op).__name__
    LOWER[type(op)](planning, op)
    planning.drafts, drafts = planning.drafts[:count], planning.drafts[count:]
    return drafts


def _stretches(segment: Segment, chains: tuple[Chain, ...]) -> Iterator[tuple[int, int, Chain | None]]:
    """The ops [first, last) of a segment in order: those of a chain with their chain, others one by one with None."""
    index = segment.first
    while index < segment.last:
        chain = next((chain for chain in chains if chain.first == index), None)
        last = index + 1 if chain is None else chain.last
        yield index, last, chain
        index = last


def choose_record(
    graph: Graph,
    machine: Machine,
    max_batch: int,
    segments: tuple[Segment, ...] | None = None,
    precision: Precision = "fp32",
) -> PlanRecord:
    """What `make_plan` would choose. segments: how to cut the ops, in place of `choose_segments`.

    Raises: InputError, ModelError as `make_plan` does.
    """
    choices = choose(_begin(graph, machine, max_batch, precision), max_batch, segments)
    return make_record(graph, machine, precision, max_batch, choices)


def _begin(graph: Graph, machine: Machine, max_batch: int, precision: Precision) -> Planning:
    batched = any(graph.values[name].shape[:1] == (BATCH,) for name in graph.inputs)
    if not batched and max_batch != 1:
        shapes = {name: graph.values[name].shape for name in graph.inputs}
        raise InputError(f"max_batch={max_batch}, but the model's shapes are fixed: {shapes}; use max_batch=1")
    planning = Planning(graph, machine, batched)
    _lay_out(planning, value_elements(graph, precision))
    return planning


def _lay_out(planning: Planning, elements: Mapping[str, Element]) -> None:
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
        writing = writer.get(name)
        imported = isinstance(writing, Quantize) and planning.quantized_input(writing.x) is not None
        scalar_writer = name in graph.inputs or imported or isinstance(writer.get(name), (Reshape, Transpose))
        scalar_readers = all(_reads_scalars(planning, op, name) for op in readers.get(name, []))
        pad_channels = not (scalar_writer and scalar_readers)
        halo: Pads = NO_HALO
        zero = 0
        reach = channels_reached(planning, writer[name]) if name in writer else 0
        for op in readers.get(name, []):
            if isinstance(op, Conv) and op.epilogue.residual == name:
                reach = max(reach, channels_reached(planning, op))
            if isinstance(op, Conv) and op.x == name:
                if any(op.pads):
                    zero = planning.stored_zero(name, op.x_zero_point)
                # Winograd needs whole vectors, and zeros below: Pad may write something else around its picture.
                whole_vectors = pad_channels or value.shape[1] % lanes == 0
                winograd_reads = whole_vectors and not isinstance(writer.get(name), Pad)
                below, right = _overhang(planning, op) if winograd_reads else (0, 0)
                halo = (
                    max(halo[0], op.pads[0]),
                    max(halo[1], op.pads[1]),
                    max(halo[2], op.pads[2] + below),
                    max(halo[3], op.pads[3] + right),
                )
        planning.layouts[name] = layout_of(value, halo, lanes, pad_channels, reach, elements[name], zero)


def _overhang(planning: Planning, op: Conv) -> tuple[int, int]:
    return winograd.overhang(op, planning.value(op.weight).shape, planning.value(op.output).shape)


def _reads_scalars(planning: Planning, op: Op, name: str) -> bool:
    return isinstance(op, Conv) and op.x == name and op.epilogue.residual != name and not is_depthwise(planning, op)


def _assemble(
    planning: Planning, record: PlanRecord, segments: tuple[Segment, ...], max_batch: int, pixel_draft: Draft | None
) -> Plan:
    graph, drafts = planning.graph, planning.drafts
    offsets, copies, arena_size = _place_values(planning, segments, max_batch)
    order = list(_run_order(drafts, segments, max_batch))
    steps, pixel_steps, links = [], [], _Links(len(order))
    for index, first in order:
        draft, chunk = drafts[index], segments[drafts[index].segment].chunk
        step = _placed(planning, draft, offsets, copies, first, chunk)
        step["link"] = links.add([_placed(planning, link, offsets, copies, first, chunk) for link in draft.links])
        steps.append(step)
        if index == 0 and pixel_draft is not None:
            step = _placed(planning, pixel_draft, offsets, copies, first, chunk)
        pixel_steps.append(step)
    records, pixel_records = (_records([*proper, *links.records]) for proper in (steps, pixel_steps))
    for array in (records, pixel_records):
        array["scratch"] = arena_size
    ports = [
        Port(name, planning.value(name).shape, planning.value(name).dtype) for name in (*graph.inputs, *graph.outputs)
    ]
    return Plan(
        model=graph.name,
        machine=planning.machine,
        record=record,
        max_batch=max_batch,
        batched=planning.batched,
        inputs=tuple(ports[: len(graph.inputs)]),
        outputs=tuple(ports[len(graph.inputs) :]),
        kernels=tuple(planning.kernels),
        steps=records,
        pixel_steps=None if pixel_draft is None else pixel_records,
        info_of_step=tuple(index for index, _ in order),
        infos=tuple(draft.info for draft in drafts),
        weights=planning.buffers.weights(),
        tables=planning.buffers.tables(),
        arena_size=arena_size,
        scratch_size=planning.scratch_size,
        constants=tuple((offsets[name], array.ravel()) for name, array in planning.constants.items()),
        model_bytes=model_bytes(graph, max_batch),
    )


def _records(steps: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The steps in one array; what lies between their fields is zero, so that equal steps are equal bytes."""
    records = np.zeros(len(steps), STEP)
    for field in STEP.names or ():
        records[field] = [step[field] for step in steps]
    return records


class _Links:
    """The links of all chains, behind the steps proper; the chunks of a batch share those that are equal."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._places: dict[bytes, int] = {}
        self.records: list[npt.NDArray[Any]] = []

    def add(self, links: list[npt.NDArray[Any]]) -> int:
        """The index of the first of them among the steps; 0 for none."""
        if not links:
            return 0
        for link in links:
            link["first"] = 0
        key = _records(links).tobytes()
        if key not in self._places:
            self._places[key] = self._first + len(self.records)
            self.records += links
        return self._places[key]


def _run_order(drafts: list[Draft], segments: tuple[Segment, ...], max_batch: int) -> Iterator[tuple[int, int]]:
    """(draft, first unit of batch) in the order of execution: a segment's drafts once per chunk."""
    for number, segment in enumerate(segments):
        own = [index for index, draft in enumerate(drafts) if draft.segment == number]
        for first in range(0, max_batch, segment.chunk):
            yield from ((index, first) for index in own)


def _place_values(
    planning: Planning, segments: tuple[Segment, ...], max_batch: int
) -> tuple[dict[str, int], dict[str, int], int]:
    """(offset of each value in words, units of batch that its memory holds, words of the arena)."""
    drafts = planning.drafts
    bounds = []
    for number in range(len(segments)):
        own = [index for index, draft in enumerate(drafts) if draft.segment == number]
        bounds.append((min(own), max(own)) if own else (0, 0))
    touched: dict[str, list[int]] = {}
    for index, draft in enumerate(drafts):
        for name in draft.touched:
            if name not in planning.held:
                touched.setdefault(planning.home(name), []).append(index)
    lifetimes, copies = [], {}
    for name, users in touched.items():
        if name in planning.constants:
            copies[name] = 0
            continue
        first, last = users[0], users[-1]
        home = drafts[first].segment
        copies[name] = segments[home].chunk
        reader = drafts[last].segment
        if reader != home:  # it holds the whole batch, from the first chunk that writes it to the last that reads it
            chunks = [segment.chunk for segment in segments[home : reader + 1]]
            copies[name] = max(-(-max_batch // chunk) * chunk for chunk in chunks)
            first, last = bounds[home][0], bounds[reader][1]
        layout = planning.layout(name)
        words = words_to_hold(copies[name] * layout.images * layout.image, layout.element)
        lifetimes.append(Lifetime(name, words, first, last))
    offsets, arena_size = assign_offsets(lifetimes)
    for name, array in planning.constants.items():
        offsets[name] = arena_size
        arena_size += aligned(array.size)
    for name, word in planning.held.items():
        offsets[name], copies[name] = arena_size + word, 1
    return offsets, copies, arena_size


def _placed(
    planning: Planning, draft: Draft, offsets: dict[str, int], copies: dict[str, int], first: int, chunk: int
) -> npt.NDArray[Any]:
    """The draft's record with offsets filled in, for the chunk of units of batch that starts at `first`."""
    record: npt.NDArray[Any] = draft.record.copy()
    record["first"], record["chunk"] = first, chunk
    for key in ("x", "y", "b"):
        images = int(record["images"]) * first
        if key not in draft.places:
            record[key] += images * int(record[f"{key}_image"])
            continue
        name, inside = draft.places[key]
        name = planning.home(name)
        skipped = images * int(record[f"{key}_image"]) if copies[name] > chunk else 0
        record[key] = offsets[name] * planning.layout(name).element.per_word + inside + skipped
    return record
