"""The executor of the domain `sartor.fuse`: from a function body to a kernel."""

from __future__ import annotations

from sartor.share.kernels.machine import link
from sartor.share.runtime.kernel import FunctionCall, Kernel, TensorType
from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.compile import compile_object
from sartor.tools.fuse.composition import phase_count, schedules
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.program import Program, walk
from sartor.tools.fuse.render.frame import render
from sartor.tools.fuse.schedule import Schedule

DOMAIN = "sartor.fuse"


def kernel_for_call(call: FunctionCall) -> Kernel | None:
    """Compile a function for the types of one call; None where its body must run instead."""
    try:
        program, planned = kernel_schedules(call)
        code = compile_object(render(planned))
    except NotEmittableError:
        return None
    address, owner = link(code)
    name = call.function.domain, call.function.name
    return Kernel(*name, address, call.inputs, _ranked(program), owner, code, phase_count(planned))


def kernel_source(call: FunctionCall) -> tuple[Program, str]:
    """Write the kernel of a function for the types of one call.

    Raises NotEmittableError where there is none.
    """
    program, planned = kernel_schedules(call)
    return program, render(planned)


def kernel_schedules(call: FunctionCall) -> tuple[Program, tuple[Schedule, ...]]:
    """Trace the function of a call and schedule it.

    Raises NotEmittableError where there is no kernel.
    """
    program = lower(call.function, call.inputs)
    for value in walk(program.outputs):
        if value.dtype not in ops.CPU_STORAGE:
            raise NotEmittableError(f"element type {value.dtype.name.lower()} is not known")
    return program, schedules(program)


def _ranked(program: Program) -> tuple[TensorType, ...]:
    return program.types
