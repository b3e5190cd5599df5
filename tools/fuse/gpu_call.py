"""The executor of the domain `sartor.fuse` on GPUs: from a function body to launches of Triton kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sartor.share.runtime.kernel import FunctionCall
from sartor.tools.fuse.align import gpu_program
from sartor.tools.fuse.axes import NotEmittableError, axis_size
from sartor.tools.fuse.gpu_facts import DeviceFacts, facts_of
from sartor.tools.fuse.gpu_kernel import bind, gpu_kernels
from sartor.tools.fuse.gpu_launch import Planned, launch, launch_pack
from sartor.tools.fuse.gpu_tune import Choice, MakeTrial, decided, ranked, settled
from sartor.tools.fuse.program import Load, parts, walk

if TYPE_CHECKING:
    import torch

_Shapes = tuple[tuple[int, ...] | None, ...]


class GpuCall:
    """The kernels of one function for the types of one call, those of each independent part in all compositions.

    Which composition runs, and with which parameters, is decided once for each combination of sizes: as it was when the
    model was planned for these sizes and this device, else by the estimate.
    """

    def __init__(self, call: FunctionCall) -> None:
        """Write the kernels; raises NotEmittableError for the first thing that no kernel can do."""
        self.types = call
        self._program = gpu_program(call.function, call.inputs)
        self._kernels = tuple(gpu_kernels(part) for part in parts(self._program))
        self._planned: dict[_Shapes, tuple[Planned, ...]] = {}

    def run(self, inputs: Sequence[torch.Tensor | None], status: torch.Tensor) -> list[torch.Tensor]:
        """Enqueue the kernels on the current stream and return the outputs; nothing waits for the device.

        `status` is an int32 on the device that becomes 1 where a gathered index is out of range. Raises
        SizesRefusedError for sizes that the function was not made for.
        """
        planned = self._plan(inputs, facts_of(status.device))
        if self.packs(planned):
            found = launch_pack(planned, [inputs] * len(planned), status)
        else:
            found = [launch(one, inputs, status) for one in planned]
        outputs: dict[int, torch.Tensor] = {}
        for one, tensors in zip(planned, found, strict=True):
            outputs.update({one.kernel.program.position(i): tensor for i, tensor in enumerate(tensors)})
        return [outputs[i] for i in range(len(outputs))]

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of all kernels."""
        return tuple(kernel.source for kernels in self._kernels for kernel in kernels)

    @cached_property
    def names(self) -> frozenset[str]:
        """The named sizes that a launch depends on."""
        loads = [value for value in walk(self._program.outputs) if isinstance(value, Load)]
        axes = [axis for value in (*loads, *self._program.outputs) for axis in value.axes]
        return frozenset(name for axis in axes for name in axis_size(axis).names)

    @staticmethod
    def packs(planned: Sequence[Planned]) -> bool:
        """Tell whether all parts run in one launch: none has barriers."""
        return len(planned) > 1 and all(len(one.kernel.schedule.phases) == 1 for one in planned)

    def predicted(self, names: Mapping[str, int], facts: DeviceFacts) -> tuple[Choice, ...]:
        """Return how the parts run best for the values of named sizes, by the estimate alone."""
        return tuple(ranked(kernels, self._own(names), facts)[0] for kernels in self._kernels)

    def settled(self, names: Mapping[str, int], facts: DeviceFacts, trial: MakeTrial | None) -> tuple[Choice, ...]:
        """Settle how the parts run for the values of named sizes; with a trial by timing them."""
        return tuple(settled(kernels, self._own(names), facts, trial) for kernels in self._kernels)

    def _own(self, names: Mapping[str, int]) -> dict[str, int]:
        return {name: names[name] for name in sorted(self.names)}

    def _plan(self, inputs: Sequence[torch.Tensor | None], facts: DeviceFacts) -> tuple[Planned, ...]:
        """Decide how the parts run on inputs of these sizes, or remember what was decided."""
        key = tuple(None if tensor is None else tuple(tensor.shape) for tensor in inputs)
        if key not in self._planned:
            names = self._own(bind(self._program, key))
            self._planned[key] = tuple(decided(kernels, names, facts).planned for kernels in self._kernels)
        return self._planned[key]


def kernel_for_call(call: FunctionCall) -> GpuCall | None:
    """Write the kernels of a call; None where the function's body must run instead."""
    try:
        return GpuCall(call)
    except NotEmittableError:
        return None
