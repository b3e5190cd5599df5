"""Where kernels will run: what planning asks of a processor or a GPU.

The search is the same everywhere. What differs is which kernels can be written, what they and the nodes that are left
cost, and how both are run to be timed and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

from sartor.share.errors import InputRefusedError
from sartor.share.runtime import kernels_of, load
from sartor.share.runtime.kernel import FunctionCall
from sartor.tools.fuse import ops
from sartor.tools.fuse.coefficients import DEFAULTS, Coefficients, Source, coefficients
from sartor.tools.fuse.compile import compile_object, object_name
from sartor.tools.fuse.composition import composition, schedules
from sartor.tools.fuse.cost import predicted_us
from sartor.tools.fuse.kernel import kernel_source
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.plan import LaunchPlan
from sartor.tools.fuse.score import Light

if TYPE_CHECKING:
    from sartor.share.runtime.device_session import DeviceSession
    from sartor.tools.fuse.gpu_call import GpuCall
    from sartor.tools.fuse.gpu_facts import DeviceFacts

Feed = Mapping[str, np.ndarray]
_REPEATS = 20
_REMEMBERED = 256


@dataclass(frozen=True)
class Cost:
    """How a kernel is composed, the microseconds of a call (None where a size is unknown), its launches on a GPU."""

    composition: str
    predicted_us: float | None
    launches: tuple[LaunchPlan, ...] = ()


@dataclass(frozen=True)
class Runner:
    """A call that runs a session so many times."""

    call: Callable[[], object]
    repeats: int = 1


class Place(Protocol):
    """A device with the kernels and sessions that it takes."""

    @property
    def device(self) -> str:
        """What `sartor.load` calls it."""

    @property
    def source(self) -> Source:
        """Where the numbers of its cost model come from."""

    @property
    def storage(self) -> Collection[ir.DataType]:
        """The element types that kernels take."""

    @property
    def facts(self) -> list[Any]:
        """What a measurement depends on besides kernels and sizes, for JSON."""

    def light(self, axes: Mapping[str, int]) -> Light:
        """Return the light evaluator, which prices nodes at given sizes of named axes."""

    def identity(self, call: FunctionCall) -> str:
        """Name the code of a call's kernels; raises NotEmittableError where there is none."""

    def cost(self, call: FunctionCall, axes: Mapping[str, int], unknown: int | None = None) -> Cost:
        """Price a call at given sizes of named axes; `unknown` is the size of those that are not given."""

    def settle(self, call: FunctionCall, axes: Mapping[str, int]) -> Cost:
        """Settle how a call's kernels run at given sizes, for sessions too, and price that."""

    def prepare(self, call: FunctionCall) -> None:
        """Compile what takes long, so that it does not count where time is limited."""

    def open(self, model: ir.Model | Path, skip: frozenset[str] = frozenset()) -> Any:
        """Open a session; functions in `skip` run their bodies."""

    def kernels(self, session: Any) -> int:
        """Count the kernels of a session."""

    def runner(self, session: Any, feed: Feed) -> Runner:
        """Return a call that runs a session on fixed inputs with as little overhead as its interface allows."""


@dataclass(frozen=True)
class Processor:
    """The CPU: numba kernels in sessions of onnxruntime."""

    threads: int = 1
    rates: Coefficients = DEFAULTS
    device: str = field(default="cpu", init=False)

    @property
    def storage(self) -> Collection[ir.DataType]:
        """The element types that kernels take."""
        return ops.CPU_STORAGE

    @property
    def facts(self) -> list[Any]:
        """What a measurement depends on besides kernels and sizes."""
        import onnxruntime

        return [self.threads, onnxruntime.__version__]

    @property
    def source(self) -> Source:
        """Where the coefficients come from."""
        return self.rates.source

    def light(self, axes: Mapping[str, int]) -> Light:
        """Price nodes as onnxruntime runs them."""
        return Light(axes, self.rates.stock, self.rates.caches)

    def identity(self, call: FunctionCall) -> str:
        """Name the machine code of a call's kernel."""
        return object_name(kernel_source(call)[1])

    def cost(self, call: FunctionCall, axes: Mapping[str, int], unknown: int | None = None) -> Cost:
        """Price a call by counted features (cost.py)."""
        planned = schedules(lower(call.function, call.inputs))
        if unknown is not None:
            atoms = {atom for part in planned for string in part.layout.memory() for atom in string}
            axes = {**{name: unknown for atom in atoms for name in atom.size.names}, **axes}
        return Cost(composition(planned), predicted_us(planned, axes, self.threads, self.rates))

    def settle(self, call: FunctionCall, axes: Mapping[str, int]) -> Cost:
        """Price a call; a kernel of a processor runs in one way."""
        return self.cost(call, axes)

    def prepare(self, call: FunctionCall) -> None:
        """Compile a kernel."""
        compile_object(kernel_source(call)[1])

    def open(self, model: ir.Model | Path, skip: frozenset[str] = frozenset()) -> Any:
        """Open a session of onnxruntime."""
        return load(model, threads=self.threads, skip=skip)

    def kernels(self, session: Any) -> int:
        """Count the kernels of a session."""
        return len(kernels_of(session))

    def runner(self, session: Any, feed: Feed) -> Runner:
        """Return a call with bound inputs and outputs."""
        if not hasattr(session, "io_binding") or any(array.dtype == object for array in feed.values()):
            return Runner(lambda: session.run(None, dict(feed)))
        binding = session.io_binding()
        for name, array in feed.items():
            # np.ascontiguousarray would make a scalar a vector.
            binding.bind_cpu_input(name, np.require(array, requirements="C"))
        for output in session.get_outputs():
            binding.bind_output(output.name)
        return Runner(lambda: session.run_with_iobinding(binding))


@dataclass(frozen=True)
class Graphics:
    """A GPU: Triton kernels in sessions of torch, which `timed` chooses by measuring.

    Without the device kernels are written, compiled and priced for an H100.
    """

    device: str
    timed: bool = False
    source: Source = field(default="data sheet", init=False)

    @property
    def storage(self) -> Collection[ir.DataType]:
        """The element types that kernels take."""
        return ops.STORAGE

    @cached_property
    def facts(self) -> list[Any]:
        """What a measurement depends on besides kernels and sizes."""
        import torch
        import triton

        return [torch.cuda.get_device_name(self.device), torch.__version__, triton.__version__]

    @cached_property
    def hardware(self) -> DeviceFacts:
        """What the device holds."""
        from sartor.tools.fuse.gpu_facts import planned_for

        return planned_for(self.device)

    def light(self, axes: Mapping[str, int]) -> Light:
        """Price nodes as kernels of their own."""
        from sartor.tools.fuse.gpu_cost import stock_rates

        return Light(axes, *stock_rates(self.hardware))

    def identity(self, call: FunctionCall) -> str:
        """Name the source of a call's kernels in all compositions."""
        return hashlib.sha256("\n".join(_written(call).sources).encode()).hexdigest()

    def cost(self, call: FunctionCall, axes: Mapping[str, int], unknown: int | None = None) -> Cost:
        """Price a call by the estimate before compilation (gpu_cost.py)."""
        from sartor.tools.fuse.gpu_price import predicted

        return Cost(*predicted(_written(call), axes, unknown, self.hardware))

    def settle(self, call: FunctionCall, axes: Mapping[str, int]) -> Cost:
        """Compile the best candidates of a call's kernels, time them where that is wanted, and remember the choice."""
        from sartor.tools.fuse.gpu_price import settled
        from sartor.tools.fuse.gpu_trial import trial

        make = cache(partial(trial, call, axes, self.device)) if self.timed else None
        return Cost(*settled(_written(call), axes, self.hardware, make))

    def prepare(self, call: FunctionCall) -> None:
        """Write the kernels; Triton compiles them when they run."""
        _written(call)

    def open(self, model: ir.Model | Path, skip: frozenset[str] = frozenset()) -> DeviceSession:
        """Open a session of torch."""
        return load(model, self.device, skip=skip)

    def kernels(self, session: Any) -> int:
        """Count the kernels of a session."""
        return len(session.kernels)

    def runner(self, session: Any, feed: Feed) -> Runner:
        """Return a call that replays a recorded run several times and waits for the last."""
        import torch

        from sartor.share.lowering.dtypes import from_numpy

        feeds = {name: from_numpy(array).to(self.device) for name, array in feed.items()}
        try:
            run = session.bind(feeds).run
        except InputRefusedError:
            # What no CUDA graph holds is launched kernel by kernel, as the session would.
            run = partial(session.run_tensors, feeds)

        def call() -> None:
            for _ in range(_REPEATS):
                run()
            torch.cuda.synchronize(self.device)

        return Runner(call, _REPEATS)


PROCESSOR = Processor()
"""One thread of a CPU with the coefficients that ship."""


@lru_cache(_REMEMBERED)
def _kernels(function: ir.Function, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> GpuCall:
    from sartor.tools.fuse.gpu_call import GpuCall

    return GpuCall(FunctionCall(function, inputs, outputs))


def _written(call: FunctionCall) -> GpuCall:
    return _kernels(call.function, call.inputs, call.outputs)


def place_for(device: str, threads: int, timed: bool) -> Place:
    """Return the place of a device; the threads are those of the CPU, whose coefficients may be calibrated.

    Where kernels may be `timed` those of a GPU are chosen so.
    """
    return Processor(threads, coefficients()) if device == "cpu" else Graphics(device, timed)
