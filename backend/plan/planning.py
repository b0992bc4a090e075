"""A plan in the making: the record that ops are lowered into."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import ModelError
from ..graph.ir import Graph, Op, Quantize, Value, reads
from ..kernels.step import STEP, KernelKey, unit_kind
from ..machine import Machine
from ..simd.element import FLOAT32, INT8_OFFSET, Operands
from .choices import Choices, ConvChoice, node_key, node_keys
from .layout import Layout
from .pack import Buffers, F32Array, aligned
from .plan import StepInfo


@dataclass
class Draft:
    """A step before offsets are known: its record, and which values its x, y and b lie in, with what added.

    places: field -> (value, elements from the start of the value's memory). segment: which part of the plan it is in.
    links: of a chain, in the order in which they run.
    """

    record: Any
    info: StepInfo
    segment: int
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: tuple[Draft, ...] = ()

    @property
    def touched(self) -> list[str]:
        """The values whose memory the step, or a chain's links, read or write."""
        return [name for draft in (self, *self.links) for name, _ in draft.places.values()]


class Planning:
    """What lowering an op may ask and add to, while a plan is being made.

    chunk: units of batch that the steps being added run at once. op_type: of the op being lowered. choices: to be set
    before anything is lowered. held: of values that only a chain knows, the word of scratch memory where they lie.
    """

    choices: Choices

    def __init__(self, graph: Graph, machine: Machine, batched: bool) -> None:
        self.graph = graph
        self.machine = machine
        self.batched = batched
        self.chunk = 1
        self.segment = 0
        self.op_type = "Input"
        self.keys = node_keys(graph)
        self.buffers = Buffers()
        self.drafts: list[Draft] = []
        self.kernels: dict[KernelKey, int] = {}
        self.layouts: dict[str, Layout] = {}
        self.alias: dict[str, str] = {}
        self.constants: dict[str, F32Array] = {}
        self.held: dict[str, int] = {}
        self.scratch_size = 0

    def value(self, name: str) -> Value:
        return self.graph.values[name]

    def layout(self, name: str) -> Layout:
        return self.layouts[name]

    def stored_zero(self, name: str, zero_point: int) -> int:
        """A zero point of a value as stored: int8 values lie in memory moved up to uint8."""
        return zero_point + (INT8_OFFSET if self.value(name).dtype == "int8" else 0)

    def quantized_input(self, name: str) -> Quantize | None:
        """The op that quantises an input as it is imported: the only one that reads it, with one scale for all."""
        if name not in self.graph.inputs or name in self.graph.outputs:
            return None
        readers = [op for op in self.graph.ops if name in reads(op)]
        op = readers[0] if len(readers) == 1 else None
        return op if isinstance(op, Quantize) and op.quantization.per_tensor else None

    def images(self, layout: Layout) -> int:
        """Images that a step of the current segment works on at once, at most."""
        return layout.images * self.chunk

    def choice(self, op: Op) -> ConvChoice:
        """What was decided about an op."""
        return self.choices.nodes[node_key(op, self.keys)]

    def begin_segment(self, segment: int, chunk: int) -> None:
        """Steps from here on belong to `segment`, which runs `chunk` units of batch at a time."""
        self.segment, self.chunk = segment, chunk

    def need_scratch(self, words: int) -> int:
        """Asks for so many words of memory per worker, shared by all steps; returns the words asked for."""
        self.scratch_size = max(self.scratch_size, aligned(words))
        return words

    def home(self, name: str) -> str:
        """The value in whose memory a value lies: itself, or what it is an alias of."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def array(self, name: str) -> F32Array:
        """A constant as float32."""
        return np.asarray(self.graph.constants[name], np.float32)

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def step(
        self,
        kernel: KernelKey,
        node: str,
        *,
        macs: int = 0,
        executed_macs: int | None = None,
        weight_bytes: int = 0,
        written_bytes: int | None = None,
        **fields: Any,
    ) -> Draft:
        """Appends a step with the given fields; fields named x, y, b are (value, elements inside it).

        The element types of these values become part of the kernel's key.
        executed_macs: None for macs. written_bytes: None for all of y.
        """
        record = np.zeros((), STEP)
        places: dict[str, tuple[str, int]] = {key: fields.pop(key) for key in ("x", "y", "b") if key in fields}
        record["low"], record["high"] = -np.inf, np.inf
        kernel = replace(kernel, operands=self._operands(places))
        record["kernel"] = self.kernels.setdefault(kernel, len(self.kernels))
        record["unit_kind"] = unit_kind(kernel.name)
        for key, entry in fields.items():
            record[key] = entry
        shape = str(self.value(places["y"][0]).shape) if places["y"][0] in self.graph.values else ""
        info = StepInfo(
            node=node,
            op=self.op_type,
            kernel=str(kernel),
            shape=shape,
            macs=macs,
            executed_macs=macs if executed_macs is None else executed_macs,
            weight_bytes=weight_bytes,
            read_bytes=sum(self.value_bytes(value) for key, (value, _) in places.items() if key != "y"),
            written_bytes=self.value_bytes(places["y"][0]) if written_bytes is None else written_bytes,
        )
        draft = Draft(record, info, self.segment, places)
        self.drafts.append(draft)
        return draft

    def temporary(self, name: str, layout: Layout) -> str:
        """Memory for a value that the graph does not know."""
        self.layouts[name] = layout
        return name

    def value_bytes(self, name: str) -> int:
        """Of one unit of batch, without any padding."""
        layout = self.layouts[name]
        return layout.element.bytes * layout.images * layout.h * layout.w * layout.c

    def _operands(self, places: dict[str, tuple[str, int]]) -> Operands:
        elements = {key: self.layouts[name].element for key, (name, _) in places.items()}
        x = elements.get("x", FLOAT32)
        return Operands(x, elements["y"], elements.get("b", x))


def unsupported(op: Op, what: str) -> ModelError:
    """The error for an op that is known but asks for something that no kernel does."""
    return ModelError(f"node {op.name!r} ({type(op).__name__}): {what}")
