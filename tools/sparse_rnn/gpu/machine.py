"""What launches run on: a CUDA device, or in tests what stands for one."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Protocol

from sartor.tools.sparse_rnn.gpu.cubin import cubin_for
from sartor.tools.sparse_rnn.gpu.launch import Program, values_of
from sartor.tools.sparse_rnn.gpu.limits import Gpu
from sartor.tools.sparse_rnn.gpu.operands import Call, Resident
from sartor.tools.sparse_rnn.gpu.shape import Shape

if TYPE_CHECKING:
    import torch

PATIENCE = 10_000_000_000
"""Nanoseconds that programs wait for one another before all give up; a step takes some thousands."""


class Machine(Protocol):
    """Where the kernel runs."""

    @property
    def facts(self) -> Gpu:
        """What fits."""

    def load(self, shape: Shape) -> None:
        """Get ready for a shape; raises UnavailableError where there is no code for it."""

    def run(self, held: Resident, call: Call) -> None:
        """Enqueue a launch on the current stream."""


class CudaMachine:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        import torch

        found = torch.cuda.get_device_properties(device)
        self._device = device
        self._programs: dict[Shape, Program] = {}
        shared = found.shared_memory_per_block_optin  # type: ignore[attr-defined]
        self.facts = Gpu(10 * found.major + found.minor, found.multi_processor_count, shared)

    def load(self, shape: Shape) -> None:
        """Load machine code, compiled now if it has to be."""
        import torch

        if shape not in self._programs:
            code = cubin_for(shape, self.facts.capability)
            with torch.cuda.device(self._device):
                self._programs[shape] = Program(code)

    def run(self, held: Resident, call: Call) -> None:
        """Enqueue a launch on the current stream of the device."""
        import torch

        self.load(held.shape)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        values = values_of(call.tensors, call.steps, call.samples, PATIENCE)
        with torch.cuda.device(self._device):
            self._programs[held.shape].launch(held.shape.directions * held.shape.programs, values, stream)


@cache
def cuda_machine(device: torch.device) -> CudaMachine:
    """Return a device, whose programs are loaded once."""
    return CudaMachine(device)
