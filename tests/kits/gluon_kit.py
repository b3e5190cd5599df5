"""Runs Gluon kernels on arrays of numpy, each program in a thread of its own, so that they may wait for one another.

Triton interprets no Gluon. Here the very functions that are compiled run as Python: tensors are arrays, pointers an
array with indices, and shared memory bytes that begin as NaN. Layouts have no meaning; what a view may not reach, what
is read before it is written, and what programs write for each other at the wrong time shows in results. Helpers that
consist of PTX are given as functions of Python.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

_LOCK = threading.RLock()


class Kind:
    """An element type of Gluon."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.primitive_bitwidth = 8 * self.dtype.itemsize


class Tensor(np.ndarray):
    """An array with the methods of a tensor; nothing works in place."""

    def to(self, kind: Any, bitcast: bool = False) -> Tensor:
        return self.view(kind.dtype) if bitcast else self.astype(kind.dtype)

    @property
    def type(self) -> Any:
        return SimpleNamespace(layout=None)

    def __iadd__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self + other


def tensor(array: Any) -> Tensor:
    """Return an array as a tensor."""
    return np.asarray(array).view(Tensor)


class Pointer:
    """Addresses of elements of a flat array."""

    def __init__(self, array: Any, at: Any = 0) -> None:
        self.array, self.at = array, at

    def __add__(self, offset: Any) -> Pointer:
        return Pointer(self.array, self.at + np.asarray(offset))

    __iadd__ = __add__

    def to(self, kind: Any, bitcast: bool) -> Pointer:
        scale = self.array.itemsize // kind.dtype.itemsize
        return Pointer(self.array.view(kind.dtype), np.asarray(self.at) * scale)

    def read(self, mask: Any = None, other: Any = 0) -> Tensor:
        at = np.asarray(self.at)
        inside = np.ones(at.shape, bool) if mask is None else np.broadcast_to(mask, at.shape)
        assert ((at >= 0) & (at < len(self.array)))[inside].all(), "a load out of bounds"
        found = np.full(at.shape, other, self.array.dtype)
        found[inside] = self.array[at[inside]]
        return tensor(found)

    def write(self, value: Any, mask: Any = None) -> None:
        at = np.asarray(self.at)
        inside = np.ones(at.shape, bool) if mask is None else np.broadcast_to(mask, at.shape)
        assert ((at >= 0) & (at < len(self.array)))[inside].all(), "a store out of bounds"
        assert len(np.unique(at[inside])) == inside.sum(), "two threads store to one place"
        self.array[at[inside]] = np.broadcast_to(value, at.shape)[inside]


class Shared:
    """A view of shared memory."""

    def __init__(self, data: Any, kind: Any, shape: Sequence[int]) -> None:
        self.data, self.kind, self.shape = data, kind, list(shape)
        size = int(np.prod(shape)) * kind.dtype.itemsize
        assert size <= len(data), "a view reaches beyond shared memory"
        self.array = data[:size].view(kind.dtype).reshape(shape)

    def slice(self, start: int, length: int) -> Shared:
        row = self.array[0].nbytes
        return Shared(self.data[start * row : (start + length) * row], self.kind, [length, *self.shape[1:]])

    def reinterpret(self, kind: Any, shape: Sequence[int], _layout: Any) -> Shared:
        return Shared(self.data, kind, shape)

    def index(self, i: int) -> Shared:
        row = self.array[0].nbytes
        return Shared(self.data[int(i) * row : (int(i) + 1) * row], self.kind, self.shape[1:])

    def load(self, _layout: Any) -> Tensor:
        return tensor(self.array.copy())

    def store(self, value: Any) -> None:
        assert list(value.shape) == self.shape
        self.array[...] = value

    def gather(self, at: Any, axis: int) -> Tensor:
        assert axis == 0
        return tensor(np.take_along_axis(self.array, np.asarray(at, np.int64), 0))

    def scatter(self, values: Any, at: Any, axis: int) -> None:
        assert axis == 0
        np.put_along_axis(self.array, np.asarray(at, np.int64), np.asarray(values), 0)


class _Language:
    """What kernels call; one for each program."""

    int16, int32, int64 = Kind(np.int16), Kind(np.int32), Kind(np.int64)
    float16, float32, bfloat16 = Kind(np.float16), Kind(np.float32), Kind(ml_dtypes.bfloat16)
    constexpr = staticmethod(lambda value: value)
    pointer_type = staticmethod(lambda kind: kind)
    static_range = range
    exp, log, abs, minimum, maximum = map(staticmethod, (np.exp, np.log, np.abs, np.minimum, np.maximum))
    expand_dims = staticmethod(np.expand_dims)

    def __init__(self, program: int) -> None:
        self._program = program

    def program_id(self, _axis: int) -> Tensor:
        return tensor(np.int32(self._program))

    def BlockedLayout(self, *_: Any) -> None:
        return None

    SliceLayout = SwizzledSharedLayout = BlockedLayout

    def allocate_shared_memory(self, kind: Any, shape: Sequence[int], _layout: Any) -> Shared:
        size = int(np.prod(shape)) * kind.dtype.itemsize
        return Shared(np.full(size, 0xFF, np.uint8), kind, shape)

    def arange(self, first: int, end: int, _layout: Any) -> Tensor:
        assert (end - first) & (end - first - 1) == 0, "tensors have powers of two"
        return tensor(np.arange(first, end, dtype=np.int32))

    def full(self, shape: Sequence[int], value: Any, kind: Any, _layout: Any) -> Tensor:
        return tensor(np.full(shape, value, kind.dtype))

    def zeros(self, shape: Sequence[int], kind: Any, layout: Any) -> Tensor:
        return self.full(shape, 0, kind, layout)

    def convert_layout(self, value: Any, _layout: Any) -> Any:
        return value

    def where(self, condition: Any, a: Any, b: Any) -> Tensor:
        return tensor(np.where(condition, a, b))

    def sum(self, value: Any, axis: int) -> Tensor:
        return tensor(np.sum(value, axis, dtype=value.dtype))

    def join(self, a: Any, b: Any) -> Tensor:
        return tensor(np.stack([a, b], -1))

    def load(self, pointer: Pointer, mask: Any = None, other: Any = 0, volatile: bool = False) -> Tensor:
        return pointer.read(mask, other)

    def store(self, pointer: Pointer, value: Any, mask: Any = None) -> None:
        pointer.write(value, mask)

    def atomic_store(self, pointer: Pointer, value: Any, mask: Any, sem: str, scope: str) -> None:
        """Store element by element, in any order, and let others look meanwhile."""
        chosen = np.flatnonzero(np.broadcast_to(mask, np.shape(pointer.at)))
        random.shuffle(chosen)
        for part in np.array_split(chosen, 3):
            pointer.array[np.asarray(pointer.at)[part]] = np.asarray(value)[part]
            time.sleep(0)

    def atomic_add(self, pointer: Pointer, value: int, sem: str, scope: str) -> None:
        with _LOCK:
            pointer.array[int(pointer.at)] += value

    def atomic_xchg(self, pointer: Pointer, value: int, sem: str, scope: str) -> None:
        pointer.array[int(pointer.at)] = value

    def barrier(self) -> None:
        time.sleep(0)

    def static_assert(self, condition: bool) -> None:
        assert condition


class _Copies:
    """Copies into shared memory."""

    def async_load(self, target: Shared, source: Pointer) -> None:
        target.store(source.read())

    def commit_group(self) -> None:
        return None

    def wait_group(self, _count: int) -> None:
        return None


def run(
    kernel: Any, modules: Sequence[ModuleType], programs: int, arguments: Mapping[str, Any],
    helpers: Mapping[str, Callable[..., Any]],
) -> None:  # fmt: skip
    """Run a kernel of the modules with so many programs; arrays among the arguments become pointers."""
    given = {
        name: Pointer(value.reshape(-1)) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
    failures: list[BaseException] = []

    def one(program: int) -> None:
        try:
            with np.errstate(all="ignore"):
                _bound(kernel, modules, program, helpers)(**given)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(program,)) for program in range(programs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _bound(kernel: Any, modules: Sequence[ModuleType], program: int, helpers: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a kernel as a function of Python, and all that it calls."""
    names: dict[str, Any] = {}
    for module in modules:
        for name, value in vars(module).items():
            if type(value).__name__ == "constexpr":
                names[name] = value.value
            elif isinstance(function := getattr(value, "fn", None), FunctionType):
                names[name] = FunctionType(function.__code__, names, name, function.__defaults__)
    names |= {"gl": _Language(program), "async_copy": _Copies(), "__builtins__": __builtins__, **helpers}
    found: Callable[..., Any] = names[kernel.fn.__name__]
    return found
