"""Call kernels on numpy arrays, without onnxruntime."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sartor.share.runtime.kernel import (
    PHASE_FACTS,
    PLAN_BYTES,
    PLAN_DIMS,
    PLAN_PHASES,
    PLAN_SCRATCH,
    PLAN_SHARED,
    PLAN_TASKS,
    Kernel,
)

Array = npt.NDArray[np.generic]

_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_int64)
_ALIGNMENT = 64
_FORK_BYTES, _FORK_WORK = 1 << 20, 100_000
"""Calls that move less, and phases of less work, run in the calling thread: from Python, waking another costs tens of
microseconds."""


@dataclass(frozen=True)
class Invocation:
    """A kernel bound to its arrays; `phases` follow one another, each in functions over part of its tasks."""

    name: str
    outputs: tuple[Array, ...]
    phases: tuple[tuple[Callable[[], int], ...], ...]
    keep: tuple[object, ...]


def prepare(kernels: Sequence[Kernel], inputs: Sequence[Array | None], threads: int) -> Invocation:
    """Bind the first kernel that fits to C-contiguous arrays, and make arrays for its outputs.

    Raises onnxruntime's Fail where none fits, as a session with the library does.
    """
    dims = np.array([size for array in inputs if array is not None for size in array.shape] or [0], dtype=np.int64)
    for kernel in kernels:
        if not _same_ranks(kernel, inputs):
            continue
        plan = np.zeros(PLAN_DIMS + _output_dims(kernel) + _phase_facts(kernel), dtype=np.int64)
        plan[PLAN_TASKS] = threads
        state = (ctypes.c_void_p * (len(inputs) + 1))(*[None] * len(inputs), kernel.state)
        if _FUNCTION(kernel.address)(state, None, dims.ctypes.data, plan.ctypes.data, -1, -1) == 0:
            return _bind(kernel, inputs, dims, [int(number) for number in plan], threads)
    raise _failure(kernels[0].name, "no kernel fits these sizes")


def invoke(invocation: Invocation, pool: Pool | None) -> None:
    """Run a bound kernel; raises onnxruntime's Fail if it gives up."""
    for ranges in invocation.phases:
        first, *others = ranges
        futures = [pool.submit(run) for run in others] if pool is not None else []
        failed = first()
        # Wait for all of them before anything is raised: they write to the arrays.
        results = [future.result() for future in futures]
        if failed or any(results):
            raise _failure(invocation.name, "the kernel gave up in the middle of its work")


def _output_dims(kernel: Kernel) -> int:
    """Count the sizes of all outputs."""
    return sum(type_.rank for type_ in kernel.outputs)


def _phase_facts(kernel: Kernel) -> int:
    """Count what a plan tells of phases."""
    return PLAN_PHASES + kernel.phases * PHASE_FACTS if kernel.phases > 1 else 0


def _failure(name: str, reason: str) -> Exception:
    """Return the error that the custom-op library reports too."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    error: Exception = Fail(f"sartor: {name}: {reason}")
    return error


def _same_ranks(kernel: Kernel, inputs: Sequence[Array | None]) -> bool:
    """Tell whether the kernel takes tensors of these ranks and element types."""
    for type_, array in zip(kernel.inputs, inputs, strict=True):
        if type_ is None or array is None:
            if (type_ is None) != (array is None):
                return False
        elif type_.rank != array.ndim or type_.dtype.numpy() != array.dtype:
            return False
    return True


def _bind(
    kernel: Kernel, inputs: Sequence[Array | None], dims: npt.NDArray[np.int64], plan: list[int], threads: int
) -> Invocation:
    """Make the output arrays and the functions that run parts of the tasks."""
    outputs = _outputs(kernel, plan[PLAN_DIMS:])
    told = plan[PLAN_DIMS + _output_dims(kernel) :]
    shared = _aligned(told[PLAN_SHARED] if told else 0)
    scratches = [_aligned(plan[PLAN_SCRATCH]) for _ in range(threads)]
    pointers = _pointers(inputs, kernel.state), _pointers([*outputs, shared])
    function = _FUNCTION(kernel.address)

    def part(index: int, begin: int, end: int) -> Callable[[], int]:
        scratch = scratches[index].ctypes.data
        return lambda: int(function(*pointers, dims.ctypes.data, scratch, begin, end))

    whole = [(plan[PLAN_TASKS], plan[PLAN_BYTES] > _FORK_BYTES)]
    facts = told[PLAN_PHASES::PHASE_FACTS], told[PLAN_PHASES + 1 :: PHASE_FACTS]
    shared_out = [(tasks, work > _FORK_WORK) for tasks, work in zip(*facts, strict=True)] or whole
    phases = [
        tuple(part(i, *bounds) for i, bounds in enumerate(pairwise(borders)))
        for borders in _borders(shared_out, threads)
    ]
    return Invocation(kernel.name, outputs, tuple(filter(None, phases)), (inputs, dims, scratches, shared))


def _borders(phases: list[tuple[int, bool]], threads: int) -> Iterator[list[int]]:
    """Yield, a phase, the borders of its threads' tasks; told are its tasks and whether threads share them."""
    first = 0
    for tasks, forks in phases:
        parts = min(threads, tasks) if forks else min(1, tasks)
        yield [first + tasks * part // max(parts, 1) for part in range(parts + 1)]
        first += tasks


def _outputs(kernel: Kernel, sizes: list[int]) -> tuple[Array, ...]:
    """Return new arrays of the planned sizes."""
    arrays: list[Array] = []
    for type_ in kernel.outputs:
        shape, sizes = sizes[: type_.rank], sizes[type_.rank :]
        arrays.append(np.empty(shape, dtype=type_.dtype.numpy()))
    return tuple(arrays)


def _pointers(arrays: Sequence[Array | None], last: int | None = None) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of arrays, null where one is absent, and one more."""
    addresses = [None if array is None else array.ctypes.data for array in arrays]
    return (ctypes.c_void_p * (len(addresses) + 1))(*addresses, last)


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    """Return uninitialised memory at an address that kernels accept as scratch."""
    block = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    skip = -block.ctypes.data % _ALIGNMENT
    return block[skip : skip + size]
