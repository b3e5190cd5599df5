"""Register kernels with onnxruntime as custom operators."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from sartor.share.runtime.kernel import Kernel
from sartor.share.runtime.library import load_library

if TYPE_CHECKING:
    import onnxruntime

# Without a lock, because the garbage collector may call `_retire` anywhere: each operation on a deque is atomic.
_retired: deque[tuple[ctypes.CDLL, int, tuple[Kernel, ...]]] = deque()


class Registration:
    """The kernels of one session; to be kept as long as the session."""

    def __init__(self, library: ctypes.CDLL, handle: int, kernels: tuple[Kernel, ...]) -> None:
        self.kernels = kernels
        weakref.finalize(self, _retire, library, handle, kernels)


def _retire(library: ctypes.CDLL, handle: int, kernels: tuple[Kernel, ...]) -> None:
    """Free a registration, or leave it to a later call where an IOBinding or a reference cycle keeps its session."""
    _retired.append((library, handle, kernels))
    _sweep()


def _sweep() -> None:
    """Free the retired registrations whose sessions are gone."""
    for _ in range(len(_retired)):
        try:
            library, handle, kernels = _retired.popleft()
        except IndexError:
            return
        if library.sartor_references(handle) == 1:
            library.sartor_release(handle)
        else:
            _retired.append((library, handle, kernels))


def register_operators(
    options: onnxruntime.SessionOptions, path: Path, kernels: Sequence[Kernel], threads: int
) -> Registration:
    """Let the session made from these options run the kernels."""
    _sweep()
    library = load_library(path)
    handle = library.sartor_new(threads)
    if not handle:
        raise MemoryError
    registration = Registration(library, handle, tuple(kernels))
    for operator in operators_of(kernels):
        _add(library, handle, operator)
    # Both calls are made by this thread, which is how the library knows what to register.
    library.sartor_use(handle)
    options.register_custom_ops_library(str(path))
    return registration


def _name(kernel: Kernel) -> tuple[str, str]:
    """Return what an operator is known by."""
    return kernel.domain, kernel.name


@dataclass(frozen=True)
class Operator:
    """A custom operator: a function with one combination of element types, and the kernels for its calls in order."""

    domain: str
    name: str
    inputs: int
    outputs: int
    types: tuple[int, ...]
    optional: tuple[bool, ...]
    kernels: tuple[Kernel, ...]


def operators_of(kernels: Sequence[Kernel]) -> list[Operator]:
    """Return one operator for each combination of element types that the kernels of a function take."""
    found = []
    for _, group in groupby(sorted(kernels, key=_name), key=_name):
        found += _operators(list(group))
    return found


def _operators(kernels: list[Kernel]) -> list[Operator]:
    """Return the operators of one function."""
    inputs = [kernel.inputs for kernel in kernels]
    optional = tuple(any(types[i] is None for types in inputs) for i in range(len(inputs[0])))
    defaults = [
        next((t.dtype for t in column if t is not None), ir.DataType.FLOAT) for column in zip(*inputs, strict=True)
    ]
    by_types: dict[tuple[int, ...], list[Kernel]] = {}
    for kernel in kernels:
        by_types.setdefault(_element_types(kernel, defaults), []).append(kernel)
    return [
        Operator(*_name(mates[0]), len(mates[0].inputs), len(mates[0].outputs), types, optional, tuple(mates))
        for types, mates in by_types.items()
    ]


def _add(library: ctypes.CDLL, handle: int, operator: Operator) -> None:
    """Add an operator and its kernels to a registration."""
    flags = (ctypes.c_uint8 * len(operator.optional))(*operator.optional)
    names = operator.domain.encode(), operator.name.encode()
    added = library.sartor_add_op(handle, *names, operator.inputs, operator.outputs, _int32(operator.types), flags)
    if not added:
        raise MemoryError
    for kernel in operator.kernels:
        ranks = _int32(ranks_of(kernel))
        if library.sartor_add_variant(added, kernel.address, kernel.state, kernel.phases, ranks):
            raise MemoryError


def _element_types(kernel: Kernel, defaults: list[ir.DataType]) -> tuple[int, ...]:
    """Return the numbers of the element types; an absent input takes that of the function's other kernels."""
    inputs = [default if t is None else t.dtype for t, default in zip(kernel.inputs, defaults, strict=True)]
    return tuple(int(dtype) for dtype in (*inputs, *(t.dtype for t in kernel.outputs)))


def ranks_of(kernel: Kernel) -> list[int]:
    """Return the ranks of the inputs, then of the outputs, -1 where a tensor is absent."""
    return [-1 if type_ is None else type_.rank for type_ in (*kernel.inputs, *kernel.outputs)]


def _int32(values: Sequence[int]) -> ctypes.Array[ctypes.c_int32]:
    """Return an array for C."""
    return (ctypes.c_int32 * len(values))(*values)
