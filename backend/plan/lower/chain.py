"""A chain of ops: the steps of each op, rewritten to work on the rows of one band, in memory of the worker's own where
nobody else reads what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...graph.ir import ABSENT, Conv, Op
from ...kernels.step import CHAIN_UNITS, STEP, KernelKey, unit_kind
from ...simd.element import Operands
from ..chains import Chain, Rows, Window, cut_bands, held_rows, read_once, window_of
from ..layout import Layout
from ..pack import aligned, words_to_hold
from ..plan import StepInfo
from ..planning import Draft, Planning
from .conv import repeated_rows, row_table


def convolutions(ops: Sequence[Op]) -> list[Conv]:
    """The ops of a chain: check.py lets no others through."""
    return [op for op in ops if isinstance(op, Conv)]


def chain_windows(planning: Planning, ops: list[Conv]) -> list[Window]:
    """The window of each op's rows."""
    return [window_of(op, planning.value(op.weight).shape[2]) for op in ops]


def lower_chain(planning: Planning, chain: Chain, graph_ops: Sequence[Op], lowered: list[list[Draft]]) -> Draft:
    """One draft that stands for all ops of the chain. lowered: the drafts of each op by itself."""
    ops = convolutions(graph_ops)
    layouts = [planning.layout(op.output) for op in ops]
    cut = cut_bands([layout.h for layout in layouts], chain_windows(planning, ops), chain.parts, chain.rows)
    size = max(int(draft.record["scratch_size"]) for drafts in lowered for draft in drafts)
    for op, layout, held in zip(ops[:-1], layouts, held_rows(cut), strict=False):
        if not read_once(planning.graph, op.output):
            continue
        size = aligned(size)
        planning.held[op.output] = size
        size += words_to_hold(held * layout.row, layout.element)
    maker = _LinkMaker(planning, ops, layouts, planning.need_scratch(aligned(size)))
    starts = [0]
    links: list[Draft] = []
    for bands in cut:
        for band in bands:
            for index, rows in enumerate(band):
                if rows.kept:
                    links.append(maker.keep(index, rows))
                before = band[index - 1] if index else None
                links += [maker.link(index, rows, before, draft) for draft in lowered[index]]
        starts.append(len(links))
    record = np.zeros((), STEP)
    record["unit_kind"], record["images"] = CHAIN_UNITS, 1
    record["parts"], record["part_links"] = chain.parts, planning.buffers.add_table(np.array(starts))
    return Draft(record, _info(planning, ops, lowered), planning.segment, links=tuple(links))


class _LinkMaker:
    """What all links of one chain have in common. scratch_words: of one worker."""

    def __init__(self, planning: Planning, ops: list[Conv], layouts: list[Layout], scratch_words: int) -> None:
        self.planning, self.ops, self.layouts, self.scratch_words = planning, ops, layouts, scratch_words

    def link(self, index: int, rows: Rows, before: Rows | None, draft: Draft) -> Draft:
        """A step of one op, for the rows of a band. before: what the op before it did in this band."""
        op, layout = self.ops[index], self.layouts[index]
        record, places = draft.record.copy(), dict(draft.places)
        record["out_h"] = height = rows.end - rows.begin

        if record["scratch_size"]:
            record["scratch_size"] = self.scratch_words

        (x, inside), x_layout = places["x"], self.planning.layout(op.x)
        places["x"] = (x, inside + rows.begin * op.strides[0] * x_layout.row)
        if before is not None and op.x in self.planning.held:
            self._hold("x", record, places, x_layout, before.held[0])

        y, inside = places["y"]
        places["y"] = (y, inside + rows.begin * layout.row)
        above, below = layout.halo[0], layout.halo[2]
        if op.output in self.planning.held:
            self._hold("y", record, places, layout, rows.held[0])
            above, below = max(0, -rows.held[0]), max(0, rows.held[1] - layout.h)
        if record["halo_top"]:
            record["halo_top"] = above if rows.begin == 0 else 0
        if record["halo_bottom"]:
            record["halo_bottom"] = below if rows.end == layout.h else 0

        b_layout = None
        if "b" not in places:
            record["b_image"] = 0  # means nothing, and would keep chunks from sharing their links
        else:
            b_layout = self.planning.layout(op.epilogue.residual)
            places["b"] = (places["b"][0], places["b"][1] + rows.begin * b_layout.row)
        if record["tap_count"]:  # implicit GEMM: its tables end, and repeat, with the band's last pixel
            self._cut_tables(record, op, x_layout, layout, b_layout, height)
        else:
            record["rows"] = height
        return Draft(record, draft.info, draft.segment, places)

    def keep(self, index: int, rows: Rows) -> Draft:
        """A step that moves the rows that the band before has left to the front."""
        name, layout = self.ops[index].output, self.layouts[index]
        key = KernelKey("affine", operands=Operands(layout.element, layout.element, layout.element))
        record = np.zeros((), STEP)
        record["kernel"] = self.planning.kernels.setdefault(key, len(self.planning.kernels))
        record["unit_kind"] = unit_kind(key.name)
        record["low"], record["high"] = -np.inf, np.inf
        record["images"], record["out_h"], record["rows"] = 1, rows.kept, rows.kept
        record["out_w"], record["out_c"] = layout.row // layout.pixel, layout.channels_stored
        record["x_row"] = record["y_row"] = layout.row
        record["x_pixel"] = record["y_pixel"] = layout.pixel
        record["x_worker"] = record["y_worker"] = self.scratch_words * layout.element.per_word
        places = {"x": (name, rows.shift * layout.row), "y": (name, 0)}
        return Draft(record, StepInfo.moving(self.ops[index].name, str(key)), self.planning.segment, places)

    def _hold(
        self, operand: str, record: Any, places: dict[str, tuple[str, int]], layout: Layout, first_row: int
    ) -> None:
        """Makes an operand one of which rows from `first_row` on are held: its memory begins there, not at the halo."""
        name, inside = places[operand]
        places[operand] = (name, inside - (layout.halo[0] + first_row) * layout.row)
        record[f"{operand}_image"] = 0
        record[f"{operand}_worker"] = self.scratch_words * layout.element.per_word

    def _cut_tables(self, record: Any, op: Conv, x: Layout, y: Layout, b: Layout | None, height: int) -> None:
        repeat = repeated_rows(self.planning.machine.isa)
        add = self.planning.buffers.add_table
        record["x_rows"] = add(row_table(x, (height, y.w), 1, op.strides, repeat))
        record["y_rows"] = add(row_table(y, (height, y.w), 1, (1, 1), repeat))
        record["b_rows"] = add(row_table(b or y, (height, y.w), 1, (1, 1), repeat))


def _info(planning: Planning, ops: list[Conv], lowered: list[list[Draft]]) -> StepInfo:
    """The costs of the chain and of its links: what the op before has made is read from nowhere, and what is only held
    is written nowhere."""
    infos = []
    for index, (op, drafts) in enumerate(zip(ops, lowered, strict=True)):
        for draft in drafts:
            residual = op.epilogue.residual
            read = draft.info.read_bytes if index == 0 else 0
            if index and residual != ABSENT:
                read = planning.value_bytes(residual)
            written = draft.info.written_bytes if op.output not in planning.held else 0
            infos.append(replace(draft.info, read_bytes=read, written_bytes=written))
    return StepInfo(
        node=f"{infos[0].node} .. {infos[-1].node}",
        op="Chain",
        kernel=" + ".join(info.kernel for info in infos),
        shape=infos[-1].shape,
        macs=sum(info.macs for info in infos),
        executed_macs=sum(info.executed_macs for info in infos),
        weight_bytes=sum(info.weight_bytes for info in infos),
        read_bytes=sum(info.read_bytes for info in infos),
        written_bytes=sum(info.written_bytes for info in infos),
        links=tuple(infos),
    )
