"""Register kernels with onnxruntime as custom operators."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from sartor.share.runtime.kernel import Kernel, TensorType
from sartor.share.runtime.library import load_library

if TYPE_CHECKING:
    import onnxruntime

_Types = tuple[TensorType | None, ...]

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
    by_name = sorted(kernels, key=_name)
    for _, group in groupby(by_name, key=_name):
        _add_function(library, handle, list(group))
    # Both calls are made by this thread, which is how the library knows what to register.
    library.sartor_use(handle)
    options.register_custom_ops_library(str(path))
    return registration


def _name(kernel: Kernel) -> tuple[str, str]:
    """Return what an operator is known by."""
    return kernel.domain, kernel.name


def _add_function(library: ctypes.CDLL, handle: int, kernels: list[Kernel]) -> None:
    """Add one operator for each combination of element types that the kernels of a function take."""
    inputs = [kernel.inputs for kernel in kernels]
    optional = [any(types[i] is None for types in inputs) for i in range(len(inputs[0]))]
    defaults = [
        next((t.dtype for t in column if t is not None), ir.DataType.FLOAT) for column in zip(*inputs, strict=True)
    ]
    operators: dict[tuple[int, ...], int] = {}
    for kernel in kernels:
        types = _element_types(kernel, defaults)
        if types not in operators:
            operators[types] = _add_operator(library, handle, kernel, types, optional)
        ranks = _ranks(kernel.inputs + kernel.outputs)
        if library.sartor_add_variant(operators[types], kernel.address, _int32(ranks)):
            raise MemoryError


def _add_operator(
    library: ctypes.CDLL, handle: int, kernel: Kernel, types: tuple[int, ...], optional: list[bool]
) -> int:
    """Add an operator and return its handle."""
    flags = (ctypes.c_uint8 * len(optional))(*optional)
    names = kernel.domain.encode(), kernel.name.encode()
    operator: int | None = library.sartor_add_op(
        handle, *names, len(kernel.inputs), len(kernel.outputs), _int32(types), flags
    )
    if not operator:
        raise MemoryError
    return operator


def _element_types(kernel: Kernel, defaults: list[ir.DataType]) -> tuple[int, ...]:
    """Return the numbers of the element types; an absent input takes that of the function's other kernels."""
    inputs = [default if t is None else t.dtype for t, default in zip(kernel.inputs, defaults, strict=True)]
    return tuple(int(dtype) for dtype in (*inputs, *(t.dtype for t in kernel.outputs)))


def _ranks(types: _Types) -> list[int]:
    """Return the ranks, -1 where a tensor is absent."""
    return [-1 if type_ is None else type_.rank for type_ in types]


def _int32(values: Sequence[int]) -> ctypes.Array[ctypes.c_int32]:
    """Return an array for C."""
    return (ctypes.c_int32 * len(values))(*values)
