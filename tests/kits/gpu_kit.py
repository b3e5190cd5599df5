"""Triton kernels in the interpreter; `TRITON_INTERPRET` must be set before this is imported.

Two things of the interpreter are replaced: it folds reductions of functions that it does not know element by element,
where halves of arrays do; and it spreads the answer to a comparison of scalars in the type of what was compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from sartor.share.runtime.kernel import FunctionCall
from sartor.tools.fuse import gpu_kernel, gpu_launch
from sartor.tools.fuse.align import gpu_program
from sartor.tools.fuse.gpu_compile import load
from sartor.tools.fuse.gpu_kernel import GpuKernel
from sartor.tools.fuse.gpu_schedule import Walk
from sartor.tools.fuse.schedule import Leaf

Array = np.ndarray[Any, Any]


def _fold_halves(self: Any, input: Sequence[Any]) -> list[Any]:
    """Fold one tensor along an axis with the kernel's own function, half by half."""
    (tensor,) = input
    data = tensor.handle.data
    while data.shape[self.axis] > 1:
        first, second = np.split(data, 2, axis=self.axis)
        folded = self.combine_fn.fn(self.to_tensor(first, tensor.dtype), self.to_tensor(second, tensor.dtype))
        data = folded.handle.data
    if not self.keep_dims:
        data = np.squeeze(data, self.axis)
    return [self.to_tensor(data, tensor.dtype)]


def _splat(self: Any, kind: Any, handle: Any) -> Any:
    """Spread a scalar over a block, whatever its handle says that it is."""
    return interpreter.TensorHandle(np.full(kind.shape, handle.data, dtype=handle.data.dtype), handle.dtype.scalar)


interpreter.ReduceOps.generic_reduce = _fold_halves
interpreter.InterpreterBuilder.create_splat = _splat


def poisoned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Make a tensor full of NaN, or of ones in every bit."""
    room = torch.full((int(np.prod(shape)) * dtype.itemsize,), 0xFF, dtype=torch.uint8, device=device)
    return room.view(dtype).reshape(shape)


gpu_launch.allocate = poisoned


def kernels(call: FunctionCall) -> tuple[GpuKernel, ...]:
    """Write all kernels of a function; raises NotEmittableError."""
    return gpu_kernel.gpu_kernels(gpu_program(call.function, call.inputs))


def able(written: Sequence[GpuKernel], inputs: Sequence[Array | None], most: int = 10**9) -> list[GpuKernel]:
    """Return the kernels whose tiles hold inputs of these sizes, in at most so many steps of loops."""
    names = gpu_kernel.bind(written[0].program, [None if array is None else array.shape for array in inputs])
    fitting = [kernel for kernel in written if gpu_kernel.fits(kernel, names)]
    return [kernel for kernel in fitting if _steps(kernel, names) <= most]


def _steps(kernel: GpuKernel, names: dict[str, int]) -> int:
    """Count how often the bodies of loops run, in all blocks of all phases."""
    tiles = gpu_kernel.configurations(kernel, names)[0].tiles

    def inside(items: Sequence[Walk | Leaf], tile: tuple[int, int]) -> int:
        total = 0
        for item in items:
            block = 1 if isinstance(item, Leaf) or item.axis.dim is None else tile[item.axis.dim]
            times = 1 if isinstance(item, Leaf) else -(-gpu_kernel.number(item.axis.size, names) // block)
            total += times * (1 if isinstance(item, Leaf) else inside(item.body, tile))
        return total

    phases = zip(kernel.schedule.phases, tiles, strict=True)
    return sum(gpu_kernel.blocks(phase, tile, names) * inside(phase.tree, tile) for phase, tile in phases)


def call(kernel: GpuKernel, inputs: Sequence[Array | None]) -> list[Array]:
    """Run a kernel in the interpreter; AssertionError where it changes an input, IndexError where a gather errs."""
    given = [None if array is None else np.array(array, order="C") for array in inputs]
    tensors = [None if array is None else torch.from_numpy(array) for array in given]
    status = torch.zeros(1, dtype=torch.int32)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        outputs = gpu_launch.launch(planned(kernel, inputs), tensors, status)
    if status.item():
        raise IndexError("a gathered index is out of range")
    for before, after in zip(inputs, given, strict=True):
        assert before is None or after is None or np.asarray(before).tobytes() == after.tobytes(), (
            "an input was changed"
        )
    return [output.numpy() for output in outputs]


def planned(
    kernel: GpuKernel, inputs: Sequence[Any], programs: int = 1, config: gpu_kernel.Config | None = None
) -> gpu_launch.Planned:
    """Plan a launch of a kernel on arrays or tensors, in at most so many programs."""
    names = gpu_kernel.bind(kernel.program, [None if one is None else tuple(one.shape) for one in inputs])
    return gpu_launch.plan(kernel, names, programs, config)


def call_shared(
    kernel: GpuKernel, inputs: Sequence[Array], programs: int, config: gpu_kernel.Config | None = None
) -> list[Array]:
    """Run a kernel with barriers in several programs, which the interpreter runs one after the other.

    A program would wait for ever, so the barriers are taken out and the whole grid runs once for every phase: each run
    finds one more phase complete, because a kernel computes the same again.
    """
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        patch.setattr(load(kernel.source), "barrier", lambda *arguments: None, raising=False)
        tensors = [torch.from_numpy(np.array(array, order="C")) for array in inputs]
        one = planned(kernel, inputs, programs, config)
        ready = gpu_launch.prepare(one, tensors, torch.zeros(1, dtype=torch.int32))
        settings = {**gpu_launch.constants(kernel, one.launch), **gpu_launch.options(one.launch)}
        for _ in kernel.schedule.phases:
            load(kernel.source).kernel[(one.launch.grid,)](*ready.arguments, **settings)
    return [output.numpy() for output in ready.outputs]
