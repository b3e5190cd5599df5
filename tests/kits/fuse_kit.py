"""Functions to make kernels of, and a caller that looks for everything a kernel must not do."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from sartor.share.kernels.machine import link
from sartor.share.runtime.kernel import (
    PHASE_FACTS,
    PLAN_DIMS,
    PLAN_PHASES,
    PLAN_SCRATCH,
    PLAN_SHARED,
    PLAN_TASKS,
    FunctionCall,
    TensorType,
)
from sartor.share.shapes import infer_shapes
from sartor.tools.fuse.compile import compile_object
from sartor.tools.fuse.composition import phase_count
from sartor.tools.fuse.kernel import kernel_schedules
from sartor.tools.fuse.outline import Outline, outline, tensor_type
from sartor.tools.fuse.render.frame import render

Array = np.ndarray[Any, Any]
Shape = Sequence[int | str | None]

_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_int64)
_GUARD = 64
"""Bytes around every output and scratch buffer that a kernel must leave alone; also their alignment."""
_POISON = 0xFF
"""Fills what a kernel has not written: as a floating-point number this is NaN."""


class KernelFailedError(Exception):
    """A kernel refused its sizes or gave up."""


@dataclass(frozen=True)
class CompiledKernel:
    """A function's machine code; `types` are those of its outputs."""

    address: int
    owner: object
    types: tuple[TensorType, ...]
    phases: int = 1


def value(name: str, dtype: Any, shape: Shape | None) -> onnx.ValueInfoProto:
    """Declare an input or output by its numpy type."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[Any, Shape]],
    outputs: Sequence[str],
    weights: dict[str, Array] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """Make a model; the types of its outputs are those that inference finds."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def typed(proto: onnx.ModelProto) -> ir.Model:
    """Return a model with symbolic shapes."""
    made = ir.serde.deserialize_model(proto)
    infer_shapes(made)
    return made


def whole(proto: onnx.ModelProto) -> tuple[Outline, FunctionCall]:
    """Outline all nodes of a model."""
    made = typed(proto)
    nodes = [node for node in made.graph if node.op_type != "Constant"]
    outlined = outline(nodes, made.opset_imports[""])
    inputs = tuple(None if v is None else tensor_type(v) for v in outlined.inputs)
    outputs = tuple(kind for v in outlined.outputs if (kind := tensor_type(v)) is not None)
    assert len(outputs) == len(outlined.outputs)
    return outlined, FunctionCall(outlined.function, inputs, outputs)


def compiled(call: FunctionCall) -> CompiledKernel:
    """Compile a function; raises NotEmittableError."""
    program, planned = kernel_schedules(call)
    address, owner = link(compile_object(render(planned)))
    return CompiledKernel(address, owner, program.types, phase_count(planned))


def call(kernel: CompiledKernel, inputs: Sequence[Array | None], seed: int = 0) -> list[Array]:
    """Run the tasks of each phase in random ranges and order, each with fresh scratch memory, all of it poisoned.

    Raises KernelFailedError where it refuses or fails; AssertionError where it writes outside its memory.
    """
    given = [None if array is None else np.asarray(array, order="C") for array in inputs]
    dims = np.array([size for array in given if array is not None for size in array.shape] or [0], np.int64)
    plan = _plan(kernel, dims)
    shapes = _shapes(kernel, plan)
    guarded = [_guarded(int(np.prod(shape)) * _width(kind)) for shape, kind in zip(shapes, kernel.types, strict=True)]
    copies = [None if array is None else array.copy() for array in given]
    pointers = _pointers([None if array is None else array.ctypes.data for array in copies])
    told = [int(number) for number in plan[PLAN_DIMS + sum(kind.rank for kind in kernel.types) : -1]]
    shared = _guarded(told[PLAN_SHARED] if told else 0)
    targets = _pointers([buffer.ctypes.data + _GUARD for buffer in (*guarded, shared)])
    generator, first = np.random.default_rng(seed), 0
    for tasks in told[PLAN_PHASES::PHASE_FACTS] or [int(plan[PLAN_TASKS])]:
        for begin, end in _ranges(tasks, generator):
            scratch = _guarded(int(plan[PLAN_SCRATCH]))
            span = first + begin, first + end
            if _FUNCTION(kernel.address)(pointers, targets, dims.ctypes.data, scratch.ctypes.data + _GUARD, *span):
                raise KernelFailedError("a task failed")
            _check_guards(scratch)
        first += tasks
    assert first == plan[PLAN_TASKS], "the phases have other tasks than the kernel"
    for buffer in (*guarded, shared):
        _check_guards(buffer)
    for before, after in zip(given, copies, strict=True):
        assert before is None or after is None or before.tobytes() == after.tobytes(), "an input was changed"
    return [
        buffer[_GUARD:-_GUARD].view(kind.dtype.numpy()).reshape(shape).copy()
        for buffer, kind, shape in zip(guarded, kernel.types, shapes, strict=True)
    ]


def _plan(kernel: CompiledKernel, dims: Array) -> Array:
    phases = PLAN_PHASES + kernel.phases * PHASE_FACTS if kernel.phases > 1 else 0
    plan = np.full(PLAN_DIMS + sum(kind.rank for kind in kernel.types) + phases + 1, -1, np.int64)
    if _FUNCTION(kernel.address)(None, None, dims.ctypes.data, plan.ctypes.data, -1, -1):
        raise KernelFailedError("the sizes are refused")
    assert plan[-1] == -1, "the plan query wrote too much"
    assert (plan[:-1] >= 0).all(), "the plan query left something out"
    return plan


def _shapes(kernel: CompiledKernel, plan: Array) -> list[tuple[int, ...]]:
    sizes = iter(int(size) for size in plan[PLAN_DIMS:-1])
    return [tuple(next(sizes) for _ in range(kind.rank)) for kind in kernel.types]


def _width(kind: TensorType) -> int:
    return int(np.dtype(kind.dtype.numpy()).itemsize)


def _guarded(size: int) -> Array:
    """Return poisoned memory, aligned, with a guard on either side."""
    room = np.full(size + 3 * _GUARD, _POISON, np.uint8)
    start = -room.ctypes.data % _GUARD
    return room[start : start + size + 2 * _GUARD]


def _check_guards(buffer: Array) -> None:
    assert (buffer[:_GUARD] == _POISON).all(), "a kernel wrote before its memory"
    assert (buffer[-_GUARD:] == _POISON).all(), "a kernel wrote behind its memory"


def _pointers(addresses: Sequence[int | None]) -> Any:
    return (ctypes.c_void_p * max(len(addresses), 1))(*addresses)


def _ranges(tasks: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Cut the tasks at random places and shuffle the pieces."""
    count = int(generator.integers(0, min(tasks, 5) + 1))
    borders = sorted({0, tasks, *generator.integers(0, tasks + 1, size=count).tolist()})
    pieces = list(pairwise(borders))
    return [pieces[i] for i in generator.permutation(len(pieces))]
