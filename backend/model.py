"""`InferenceSession`: ONNX in, fast inference out. The only file that sees all layers.

reader -> passes -> planner -> executor. Kernels are imported when the first session is created, after Numba has
been told which ISA to compile for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .engine import Executor, Kernels, open_executor, resolve_kernels, settle_isa
from .errors import InputError, MachineError
from .graph.ends import QuantizedEnds, quantized_ends
from .graph.ir import BATCH
from .graph.onnx_reader import read_model
from .graph.passes import run_passes
from .graph.prune import prune
from .machine import Machine, detect
from .machine_file import read_machine
from .pixels import PixelInput
from .plan.plan import Plan, Port, StepInfo
from .plan.planner import make_plan
from .plan.precision import check_precision, settle_precision
from .plan.record import PlanRecord, read_record

Array = npt.NDArray[Any]

MOST_BATCH: Final = 1024
"""Largest max_batch: beyond a few dozen images nothing gets faster, and memory grows with it."""

_F32: Final[np.dtype[Any]] = np.dtype(np.float32)
_U8: Final[np.dtype[Any]] = np.dtype(np.uint8)

_TYPE_NAMES: Final = {"float32": "float"}
"""Element types that onnxruntime calls by another name than NumPy."""


@dataclass(frozen=True)
class NodeArg:
    """An input or output as onnxruntime describes it: name, shape ("N" for the batch), type like "tensor(float)"."""

    name: str
    shape: list[int | str]
    type: str


@dataclass(frozen=True)
class StepProfile:
    """One step of a plan and the time it took for `images` images."""

    info: StepInfo
    images: int
    seconds: float

    @property
    def gflops(self) -> float:
        """Billions of floating-point operations per second, a multiply-add counted as two."""
        return 2e-9 * self.info.macs * self.images / self.seconds


@dataclass(frozen=True)
class SessionOptions:
    """What was read of a session's arguments: whose kernels, for which machine, by which plan file if any."""

    kernels: Kernels
    machine: Machine
    plan: PlanRecord | None


def read_options(
    *,
    precision: str = "auto",
    kernels: str = "auto",
    isa: str | None = None,
    machine: Machine | str | os.PathLike[str] | None = None,
    plan: str | os.PathLike[str] | PlanRecord | None = None,
) -> SessionOptions:
    """Reads and checks the arguments of a session that say nothing of its model, before anything slow begins.

    Raises: InputError, MachineError, PlanError for what no model can be run with on this machine.
    """
    if machine is not None and not isinstance(machine, Machine):
        machine = read_machine(machine)
    if machine is not None and isa not in (None, machine.isa.name):
        raise MachineError(f"isa={isa!r}, but the machine given is for {machine.isa.name!r}: give one of the two")
    saved = plan if plan is None or isinstance(plan, PlanRecord) else read_record(plan)
    machine = machine if machine is not None else detect(isa)
    resolved = resolve_kernels(kernels, machine)
    check_precision(precision, machine)
    return SessionOptions(resolved, machine, saved)


def plan_model(
    model: str | os.PathLike[str] | bytes | Any,
    *,
    precision: str = "auto",
    max_batch: int = 1,
    kernels: str = "auto",
    isa: str | None = None,
    machine: Machine | str | os.PathLike[str] | None = None,
    plan: str | os.PathLike[str] | PlanRecord | None = None,
    pixels: PixelInput | None = None,
    outputs: Sequence[str] | None = None,
) -> Plan:
    """The plan that a session with these arguments would follow; compiles nothing, but settles the process's ISA.

    Raises: ModelError, InputError, MachineError, PlanError.
    """
    if not 1 <= max_batch <= MOST_BATCH:
        raise InputError(f"max_batch={max_batch}: choose 1 to {MOST_BATCH}; `run` takes any number of images")
    asked = read_options(precision=precision, kernels=kernels, isa=isa, machine=machine, plan=plan)
    graph = read_model(model)
    settled, settled_machine = settle_precision(precision, asked.machine, graph)
    settle_isa(asked.kernels, settled_machine)
    if outputs is not None:
        graph = prune(graph, tuple(outputs))
    graph = run_passes(graph, integers=settled == "int8")  # unfused weights go before the packed ones are made
    return make_plan(graph, settled_machine, max_batch, pixels, asked.plan, settled)


def read_quantized_ends(model: str | os.PathLike[str] | bytes | Any) -> QuantizedEnds | None:
    """Ranges of inputs and steps of outputs as a quantised model states them; None for a model that is not.

    Raises: ModelError.
    """
    return quantized_ends(read_model(model))


def usable_threads(threads: int | None, machine: Machine) -> int:
    """How many threads a session would use; None: one for each CPU that the calling thread may use and that is no small
    core of a big.LITTLE machine. Raises: MachineError for too many."""
    if threads is None:
        threads = machine.fast_cores
    if not 1 <= threads <= machine.cores:
        raise MachineError(
            f"threads={threads}, but this thread may run on {machine.cores} of the machine's CPUs (`pin` binds a "
            f"thread for good): ask for 1 to {machine.cores}, or create the session in another thread"
        )
    return threads


class InferenceSession:
    """A model, planned for one ISA and one largest batch, with the memory to run it.

    Callers from several threads take turns; for instances that run side by side make one session each, the first one
    anew and the others as its siblings. In a forked process a session of several threads is refused.

    model: path of an ONNX file, its bytes, or a ModelProto. precision: "auto" (int8 for a quantised model, else fp32),
    "fp32", "int8", "bf16", or "bf16-emulated" for bf16's results on a CPU without its instructions, slowly. max_batch:
    what the plan is made for; `run` takes larger inputs in chunks. threads: how many threads work on one inference
    (default: all CPUs that the calling thread may use, without the small cores of big.LITTLE). kernels: "numba", "neon"
    (the C library, on Arm) or "auto": Numba's where it is installed. isa: "avx512", "avx2", "neon", "generic" or None
    for the best. machine: a description in place of detection, or the path of one (`machine_file`). plan: a plan file,
    or the record of another session's plan, whose choices are followed in place of the planner's. pixels: what raw
    uint8 N H W C images stand for, if they are to be taken too. outputs: the tensors to compute, intermediate ones
    included, in place of the model's outputs.

    Raises: ModelError, InputError, MachineError, PlanError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | Any,
        *,
        precision: str = "auto",
        max_batch: int = 1,
        threads: int | None = None,
        kernels: str = "auto",
        isa: str | None = None,
        machine: Machine | str | os.PathLike[str] | None = None,
        plan: str | os.PathLike[str] | PlanRecord | None = None,
        pixels: PixelInput | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        self._plan = plan_model(
            model,
            precision=precision,
            max_batch=max_batch,
            kernels=kernels,
            isa=isa,
            machine=machine,
            plan=plan,
            pixels=pixels,
            outputs=outputs,
        )
        self._precision = self._plan.record.precision if precision == "auto" else precision
        self._kernels = resolve_kernels(kernels, self._plan.machine)
        self._open(usable_threads(threads, self._plan.machine))

    def _open(self, threads: int) -> None:
        """What no other session shares: memory for values, a team of threads."""
        self._threads = threads
        self._process = os.getpid()
        self._executor: Executor = open_executor(self._kernels, self._plan, self._threads)
        self._turn = threading.Lock()
        # What every call needs, made once: small networks take less time than finding it out anew.
        self._input_names = [port.name for port in self._plan.inputs]
        self._input_set = set(self._input_names)
        self._output_names = [port.name for port in self._plan.outputs]
        self._output_dtypes = [np.dtype(port.dtype) for port in self._plan.outputs]

    def sibling(self, threads: int) -> InferenceSession:
        """Another session of the same plan, to run beside this one: it reads the same packed weights.

        Nothing is read, planned or packed again, and it owns only its arena. threads: how many work on one inference,
        at most as many as the calling thread has CPUs, which need not be those of this session. Raises: MachineError.
        """
        other = object.__new__(InferenceSession)
        other._plan, other._precision, other._kernels = self._plan, self._precision, self._kernels
        other._open(usable_threads(threads, replace(self._plan.machine, cores=detect().cores)))
        return other

    @property
    def precision(self) -> str:
        """What "auto" became, or what was asked for: "fp32", "int8", "bf16" or "bf16-emulated"."""
        return self._precision

    @property
    def threads(self) -> int:
        """How many threads work on one inference."""
        return self._threads

    @property
    def kernels(self) -> str:
        """Whose kernels run: "numba" or "neon"."""
        return self._kernels

    @property
    def machine(self) -> Machine:
        """The machine that the plan was made for."""
        return self._plan.machine

    def plan(self) -> Plan:
        """What runs: kernels, tiles, bytes. Printed, it is a table; `plan().record.write(path)` saves it."""
        return self._plan

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs, as onnxruntime describes them."""
        return [_node_arg(port) for port in self._plan.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, as onnxruntime describes them."""
        return [_node_arg(port) for port in self._plan.outputs]

    def run(self, output_names: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Array]:
        """Runs the model; the outputs asked for (all of them for None), in that order, in new arrays.

        inputs: a float32 array per input, or for the first one uint8 N H W C if the session was made with pixels.

        Raises: InputError for a missing or unknown name, a wrong shape or dtype; MachineError in a forked process if
        the session has several threads.
        """
        self._require_team()
        plan = self._plan
        arrays, raw = self._checked(inputs)
        names = self._output_names
        if isinstance(output_names, str):
            raise InputError(
                f"output_names is the string {output_names!r}: a list is needed, [{output_names!r}], or None"
            )
        wanted = names if output_names is None else list(output_names)
        for name in wanted:
            if name not in names:
                raise InputError(f"output {name!r} is not one of {names}; ask for it when the session is created")
        total = len(arrays[0]) if plan.batched else 1
        results = self._empty_outputs(total)
        with self._turn:
            for start in range(0, total, plan.max_batch) if plan.batched else (0,):
                count = min(plan.max_batch, total - start)
                steps = self._executor.bind(_from(start, arrays), _from(start, results), raw)
                self._executor.run_steps(steps, 0, plan.walked, count)
        if output_names is None:
            return results
        by_name = dict(zip(names, results, strict=True))
        return [by_name[name] for name in wanted]

    def pin(self, cpus: Sequence[int]) -> list[set[int]]:
        """Binds the threads of this session's team, one CPU each; the masks as the system reports them.

        To be called from the thread that will call `run`: with one thread it is that thread that is bound, and all that
        it starts from then on. A later session that is to have more CPUs is created in a thread that is not.

        Raises: MachineError if there are fewer CPUs than threads, a mask did not take effect, or as `run` does.
        """
        self._require_team()
        return self._executor.pin(cpus)

    def profile(self, inputs: Mapping[str, Array], *, rounds: int = 9) -> list[StepProfile]:
        """Times every step by itself, over at most `max_batch` images; medians over `rounds`.

        A step's time includes entering compiled code from Python, a few microseconds.

        Raises: what `run` raises; InputError also for more than max_batch images, and for rounds below 1.
        """
        self._require_team()
        if rounds < 1:
            raise InputError(f"rounds={rounds}: a median needs at least 1")
        arrays, raw = self._checked(inputs)
        count = len(arrays[0]) if self._plan.batched else 1
        if count > self._plan.max_batch:
            raise InputError(f"profile takes at most max_batch={self._plan.max_batch} images, not {count}")
        with self._turn:
            outputs = self._empty_outputs(count)
            steps = self._executor.bind(arrays, outputs, raw)
            seconds = _time_steps(self._executor, steps, self._plan.walked, count, rounds)
        totals = [0.0] * len(self._plan.infos)
        for index, taken in zip(self._plan.info_of_step, seconds, strict=True):
            totals[index] += taken
        return [StepProfile(info, count, total) for info, total in zip(self._plan.infos, totals, strict=True)]

    def _require_team(self) -> None:
        """In a forked process a session has the caller's thread alone, which would wait for the others for ever."""
        if self._threads > 1 and os.getpid() != self._process:
            raise MachineError(
                f"a session of {self._threads} threads cannot be used in a forked process, which has none of its "
                "threads: start processes by 'spawn' (multiprocessing.get_context) and create the session there, or "
                "use threads=1"
            )

    def _empty_outputs(self, count: int) -> list[Array]:
        plan = self._plan
        shapes = [(count, *port.shape[1:]) if plan.batched else port.shape for port in plan.outputs]
        return [np.empty(shape, dtype) for shape, dtype in zip(shapes, self._output_dtypes, strict=True)]

    def _checked(self, inputs: Mapping[str, Array]) -> tuple[list[Array], bool]:
        plan = self._plan
        names = self._input_names
        if not isinstance(inputs, (dict, Mapping)):  # of a dict this is known at once
            raise InputError(
                f"inputs is a {type(inputs).__name__}: a dict of arrays by name is needed, with the names {names}"
            )
        if inputs.keys() != self._input_set:
            raise InputError(f"inputs {sorted(inputs)} were given, but the model has {names}")
        arrays, raw, batches = [], False, set()
        for index, port in enumerate(plan.inputs):
            array = np.asarray(inputs[port.name])
            expected = port.shape
            if index == 0 and plan.pixel_steps is not None and array.dtype == _U8:
                raw = True
                expected = (port.shape[0], port.shape[2], port.shape[3], port.shape[1])
            elif array.dtype != _F32:
                also = " or uint8" if index == 0 and plan.pixel_steps is not None else ""
                raise InputError(f"input {port.name!r} has dtype {array.dtype}; float32{also} is needed")
            batch_fits = array.ndim > 0 and expected[0] in (BATCH, array.shape[0])
            if not batch_fits or array.shape[1:] != expected[1:]:
                shape = ", ".join("N" if size == BATCH else str(size) for size in expected)
                raise InputError(f"input {port.name!r} has shape {array.shape}; [{shape}] is needed")
            batches.add(array.shape[0])
            arrays.append(np.ascontiguousarray(array))
        if plan.batched and len(batches) > 1:
            raise InputError(f"the inputs have different batch sizes {sorted(batches)}; axis 0 must agree")
        return arrays, raw


def _from(start: int, arrays: list[Array]) -> list[Array]:
    return [array[start:] for array in arrays] if start else arrays


def _time_steps(executor: Executor, steps: Any, walked: int, count: int, rounds: int) -> list[float]:
    """Median seconds of each of the first `walked` steps by itself."""
    seconds = np.empty((rounds, walked))
    for one_round in seconds:
        for index in range(walked):
            start = time.perf_counter()
            executor.run_steps(steps, index, index + 1, count)
            one_round[index] = time.perf_counter() - start
    return [float(median) for median in np.median(seconds, axis=0)]


def _node_arg(port: Port) -> NodeArg:
    shape = [("N" if size == BATCH else size) for size in port.shape]
    return NodeArg(port.name, shape, f"tensor({_TYPE_NAMES.get(port.dtype, port.dtype)})")
