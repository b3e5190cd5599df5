"""The binary interface between a session and a compiled kernel.

A kernel is one C function that replaces one model-local function:

    int64_t kernel(void **inputs, void **outputs, const int64_t *dims, char *scratch, int64_t begin, int64_t end)

`dims` holds the sizes of all inputs, one input after the other (an absent optional input has none). Behind the
addresses of the inputs stands that of the kernel's own state, or null: what it made of constants beforehand. Work is
divided into tasks; a call with `0 <= begin <= end` runs tasks `begin..end-1` with `scratch` bytes of private memory
aligned to 64. A call with `begin == -1` is the plan query: it touches no tensor, reads `dims` and the state, finds the
session's threads where it writes the number of tasks, and writes int64 values to `scratch`: the number of tasks, the
scratch bytes a thread needs, the bytes that the whole call moves, then the sizes of all outputs, one output after the
other. Either call returns 0, or 1 when the sizes are not those that the kernel was compiled for.

The tasks of a kernel of several phases (AStitch's global barrier) are numbered phase by phase, and those of one phase
run after all of the phase before. They share memory whose address follows those of the outputs, aligned to 64 and
uninitialised. The plan of such a kernel ends with the bytes of that memory, a number of slices, and, a phase, its tasks
and the nanoseconds of work as `tools/fuse/ops.py` counts them. Slices divide the tasks of every phase evenly and in
order; those of one slice need nothing of another, so that it may be done with all phases before another begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

if TYPE_CHECKING:
    import torch

    from sartor.share.packs import Packs

PLAN_TASKS, PLAN_SCRATCH, PLAN_BYTES, PLAN_DIMS = 0, 1, 2, 3
"""Positions in the answer to a plan query."""

PLAN_SHARED, PLAN_SLICES, PLAN_PHASES, PHASE_FACTS = 0, 1, 2, 2
"""Positions behind the sizes of the outputs, where there are several phases, and the numbers that tell of a phase."""

Dim = int | str | None
"""A size: known, named (equal names are equal sizes), or unknown."""


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor."""

    dtype: ir.DataType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class FunctionCall:
    """A model-local function together with the types that one call gives it (None for an absent optional input).

    `constants` holds the inputs that are constants of the model, None for the others; `packs` is what the caller
    keeps of what kernels made of them before, if anything.
    """

    function: ir.Function
    inputs: tuple[TensorType | None, ...]
    outputs: tuple[TensorType, ...]
    constants: tuple[ir.TensorProtocol | None, ...] = ()
    packs: Packs | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ObjectCode:
    """An object file that defines one kernel under a symbol of its own, for a processor with these extensions."""

    symbol: str
    data: bytes
    processor: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """Machine code for one function and one combination of types; `owner` keeps the code alive.

    `code` is what a library without Python can be linked from; None where the executor has no such thing. `phases` is
    the number of phases, `state` the address of what the kernel made of the call's constants, so that it is for no
    other call.
    """

    domain: str
    name: str
    address: int
    inputs: tuple[TensorType | None, ...]
    outputs: tuple[TensorType, ...]
    owner: object
    code: ObjectCode | None = None
    phases: int = 1
    state: int | None = None


Executor = Callable[[FunctionCall], Kernel | None]
"""What a tool registers for its function domain; None means: run the function's body."""


OUT_OF_RANGE, STALLED = 1, 2


class DeviceKernel(Protocol):
    """A kernel that runs on tensors of torch, on the device where they are."""

    def run(self, inputs: Sequence[torch.Tensor | None], status: torch.Tensor) -> list[torch.Tensor]:
        """Enqueue one call on the current stream and return the outputs; never waits for the device.

        `status` is one int32 on the device. A kernel that meets an index outside its axis makes it OUT_OF_RANGE, one
        whose programs wait for one another in vain STALLED.
        """


DeviceExecutor = Callable[[FunctionCall], DeviceKernel | None]
"""The like for sessions of torch."""
