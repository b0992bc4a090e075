"""A plan as rows for people: what each step is, what it moves and computes, how long it should take.

Blocks are read from the step records themselves, so the table shows what runs, not what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..simd.element import ALL_FLOAT32
from .record import caches_of

if TYPE_CHECKING:
    from .plan import Plan, StepInfo

_BLOCKED: Final = "conv_gemm"
_PATCHED: Final = "conv_winograd"

_COLUMNS: Final = ("node", "op", "kernel", "tile", "MC", "KC", "NC", "order", "images", "weights kB", "read kB",
                   "written kB", "MFLOP")  # fmt: skip
_LEFT: Final = 4
"""So many columns are names, aligned to the left; figures follow."""

_LONGEST_NAME: Final = 44
_NAMED: Final = 5


@dataclass(frozen=True)
class Roofs:
    """What `threads` threads can do at most: billions of float32 operations, and of bytes from memory, per second."""

    peak_gflops: float
    bandwidth_gb_s: float
    threads: int


@dataclass(frozen=True)
class PlanRow:
    """One step for max_batch images.

    types: element types of the operands, as `Operands` prints them, if not all are float32. tile: "MRxNR" or "". mc:
    pixels (Winograd: patches) per unit; kc_taps x kc_depth: a pc block of K; nc_panels per unit; 0 where a kernel has
    no such block. group_images: tiled together. chunk: images at a time. Bytes and operations are for max_batch images,
    weights counted once.
    """

    info: StepInfo
    kernel: str
    types: str
    tile: str
    mc: int
    kc_taps: int
    kc_depth: int
    nc_panels: int
    panels_outside: bool
    group_images: int
    chunk: int
    weight_bytes: int
    read_bytes: int
    written_bytes: int
    operations: int
    executed_operations: int

    def expected_s(self, roofs: Roofs) -> float:
        """The roofline (Williams, Waterman and Patterson 2009): max(operations / peak, bytes / bandwidth), in seconds.

        Operations are those that the kernel executes, padding included; bytes are weights and activations, each moved
        between memory and registers once. No overhead is in it, and caches may beat it.
        """
        moved_bytes = self.weight_bytes + self.read_bytes + self.written_bytes
        return 1e-9 * max(self.executed_operations / roofs.peak_gflops, moved_bytes / roofs.bandwidth_gb_s)


def plan_rows(plan: Plan) -> tuple[PlanRow, ...]:
    """A row per step, in the order of execution: the chunks of a segment make one row, a chain one per op in it."""
    rows = []
    for index, info in enumerate(plan.infos):
        step = plan.steps[plan.info_of_step.index(index)]
        if info.links:  # those of the first band are there in the order of the ops, and nothing is kept before them
            links = plan.steps[int(step["link"]) : int(step["link"]) + len(info.links)]
            rows += [_row(plan, link, link_info) for link, link_info in zip(links, info.links, strict=True)]
        else:
            rows.append(_row(plan, step, info))
    return tuple(rows)


def _row(plan: Plan, step: Any, info: StepInfo) -> PlanRow:
    key = plan.kernels[int(step["kernel"])]
    blocked = key.name == _BLOCKED
    return PlanRow(
        info=info,
        kernel=key.name,
        types="" if key.operands == ALL_FLOAT32 else str(key.operands),
        tile=str(key.tile or ""),
        mc=int(step["mc"]),
        kc_taps=int(step["kc_taps"]) if blocked else 0,
        kc_depth=int(step["kc_depth"]) if blocked else 0,
        nc_panels=int(step["nc_panels"]),
        panels_outside=bool(step["panels_outside"]),
        group_images=int(step["group_images"]) if blocked else 0,
        chunk=int(step["chunk"]),
        weight_bytes=info.weight_bytes,
        read_bytes=info.read_bytes * plan.max_batch,
        written_bytes=info.written_bytes * plan.max_batch,
        operations=2 * info.macs * plan.max_batch,
        executed_operations=2 * info.executed_macs * plan.max_batch,
    )


def plan_text(plan: Plan, threads: int = 1, roofs: Roofs | None = None) -> str:
    """The whole table as text: heading, a line per step, sums, memory. roofs: None leaves out the expected times."""
    rows = plan_rows(plan)
    table = [[*_COLUMNS, *(["expected us"] if roofs else [])]]
    table += [_cells(row, roofs) for row in rows]
    table.append(_sums(rows, roofs))
    return "\n".join(
        [
            *_heading(plan, roofs),
            "",
            *_aligned(table),
            "",
            *_chains(plan),
            *_left_in_float(plan, rows),
            *_memory(plan, threads),
        ]
    )


def _left_in_float(plan: Plan, rows: Sequence[PlanRow]) -> list[str]:
    """Of a quantised model, the layers that integers do not compute."""
    layers = {row.info.node: row.types for row in rows if row.operations}
    left = [name for name, types in layers.items() if not types]
    if plan.record.precision != "int8" or not left:
        return []
    return [
        f"float32: {len(left)} of {len(layers)} layers are not quantised in the model, or not in a way that integers "
        f"can follow: {', '.join(left[:_NAMED])}{', ...' if len(left) > _NAMED else ''}"
    ]


def _chains(plan: Plan) -> list[str]:
    return [
        f"chain: {chain.first_node} to {chain.last_node} in {chain.parts} units, by bands of at most {chain.rows} "
        "output rows; of what lies between only what is also read elsewhere leaves scratch memory"
        for chain in plan.record.chains
    ]


def _heading(plan: Plan, roofs: Roofs | None) -> list[str]:
    record, here = plan.record, caches_of(plan.machine)
    lines = [
        f"model: {plan.model}, {record.precision}, max_batch {plan.max_batch}; plan sha256 {record.sha256[:16]}",
        f"machine: {here}; {plan.machine.isa.name}",
        *([] if record.machine == here else [f"the plan was made for: {record.machine}"]),
        "MC: pixels (Winograd: patches) per unit; KC: taps x depth per block; NC: panels of NR vectors per unit;",
        "images: at a time x in one group of tiles; all figures are for max_batch images",
    ]
    if roofs:
        lines.append(
            f"expected: max(executed FLOP / {roofs.peak_gflops:.0f} GFLOP/s, bytes / {roofs.bandwidth_gb_s:.1f} GB/s), "
            f"peak and bandwidth of {roofs.threads} threads as measured now"
        )
    return lines


def _cells(row: PlanRow, roofs: Roofs | None) -> list[str]:
    blocked = row.kernel == _BLOCKED
    order = ("panels outside" if row.panels_outside else "pixels outside") if blocked else ""
    return [
        row.info.node if len(row.info.node) <= _LONGEST_NAME else "..." + row.info.node[3 - _LONGEST_NAME :],
        row.info.op,
        f"{row.kernel} {row.types}".rstrip(),
        row.tile,
        str(row.mc) if blocked or row.kernel == _PATCHED else "",
        f"{row.kc_taps}x{row.kc_depth}" if blocked else "",
        str(row.nc_panels) if row.nc_panels else "",
        order,
        f"{row.chunk}x{row.group_images}" if blocked else str(row.chunk),
        *_figures(row.weight_bytes, row.read_bytes, row.written_bytes, row.operations),
        *([f"{1e6 * row.expected_s(roofs):.1f}"] if roofs else []),
    ]


def _sums(rows: Sequence[PlanRow], roofs: Roofs | None) -> list[str]:
    return [
        "sum",
        *[""] * 8,
        *_figures(
            sum(row.weight_bytes for row in rows),
            sum(row.read_bytes for row in rows),
            sum(row.written_bytes for row in rows),
            sum(row.operations for row in rows),
        ),
        *([f"{1e6 * sum(row.expected_s(roofs) for row in rows):.1f}"] if roofs else []),
    ]


def _figures(weight_bytes: int, read_bytes: int, written_bytes: int, operations: int) -> list[str]:
    return [*(f"{1e-3 * count:.1f}" for count in (weight_bytes, read_bytes, written_bytes)), f"{1e-6 * operations:.1f}"]


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def _memory(plan: Plan, threads: int) -> list[str]:
    owned, model = plan.owned_bytes(threads), plan.model_bytes
    parts = {
        "packed weights": plan.weights.nbytes,
        "tables": plan.tables.nbytes,
        "arena": 4 * plan.arena_size,
        "scratch": 4 * threads * plan.scratch_size,
    }
    return [
        f"a session with {threads} threads owns {_mb(owned)} MB: "
        + ", ".join(f"{name} {_mb(count)}" for name, count in parts.items()),
        f"the model needs {_mb(model.total)} MB: weights {_mb(model.weights)}, activations alive at one time "
        f"{_mb(model.activations)}; ratio {owned / model.total:.2f}",
    ]


def _mb(count: int) -> str:
    return f"{1e-6 * count:.3f}"
