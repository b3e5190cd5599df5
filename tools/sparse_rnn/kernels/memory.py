"""What the loop over time calls: words and bytes of memory, and what threads of a team tell one another by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sartor.tools.sparse_rnn.kernels.vector import BYTE, LONG, WORD, Writer, instruction

_POINTER = ir.PointerType()

compiled: Callable[[Callable[..., Any]], Any] = njit(error_model="numpy")
"""Makes functions of Python those of a kernel."""


def _address_of(typingctx: Any, pointer: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], LONG)

    return types.int64(pointer), generate


address_of: Any = intrinsic(_address_of)
"""Return a pointer as an integer."""


def _word(writer: Writer, address: Any, index: Any) -> Any:
    return writer.load(writer.at(address, writer.scaled(index, 8)), LONG)


def _set_word(writer: Writer, address: Any, index: Any, value: Any) -> None:
    writer.store(value, writer.at(address, writer.scaled(index, 8)))


def _length(writer: Writer, address: Any, index: Any) -> Any:
    return writer.builder.sext(writer.load(writer.at(address, writer.scaled(index, 4)), WORD), LONG)


def _copy(writer: Writer, target: Any, source: Any, size: Any) -> None:
    pointers = [writer.builder.inttoptr(one, _POINTER) for one in (target, source)]
    writer.call("llvm.memcpy.p0.p0.i64", ir.VoidType(), [*pointers, size, ir.IntType(1)(0)])


def _clear(writer: Writer, target: Any, size: Any) -> None:
    pointer = writer.builder.inttoptr(target, _POINTER)
    writer.call("llvm.memset.p0.i64", ir.VoidType(), [pointer, BYTE(0), size, ir.IntType(1)(0)])


def _claim(writer: Writer, address: Any, stage: Any) -> Any:
    builder = writer.builder
    pointer = builder.inttoptr(address, LONG.as_pointer())
    result = builder.cmpxchg(pointer, stage, builder.add(stage, LONG(1)), "acq_rel", "monotonic")
    return builder.extract_value(result, 1)


def _count(writer: Writer, address: Any) -> None:
    pointer = writer.builder.inttoptr(address, LONG.as_pointer())
    writer.builder.atomic_rmw("add", pointer, LONG(1), "acq_rel")


def _counted(writer: Writer, address: Any) -> Any:
    return writer.builder.load_atomic(writer.builder.inttoptr(address, LONG.as_pointer()), "acquire", 8)


def _pause(writer: Writer, turn: Any) -> None:
    """Let a moment pass; every so often let another thread have the core."""
    builder = writer.builder
    seldom = builder.icmp_unsigned("==", builder.and_(turn, LONG(YIELD_EVERY - 1)), LONG(YIELD_EVERY - 1))
    with builder.if_then(seldom, likely=False):
        writer.call("sched_yield", WORD, [])
    if str(builder.module.triple).startswith(("x86", "i686", "amd64")):
        writer.call("llvm.x86.sse2.pause", ir.VoidType(), [])


YIELD_EVERY = 1024
"""How many pauses a waiting thread makes before it offers its core to others."""

word = instruction(2, _word, "long")
"""Return word `index` behind an address."""

set_word = instruction(3, _set_word)
"""Set word `index` behind an address."""

length = instruction(2, _length, "long")
"""Return int32 `index` behind an address."""

copy = instruction(3, _copy)
"""Copy `size` bytes to the first address from the second."""

clear = instruction(2, _clear)
"""Fill `size` bytes with zeros."""

claim = instruction(2, _claim, "bool")
"""Change the word at an address from `stage` to `stage + 1`; tell whether this thread did."""

count = instruction(1, _count)
"""Add 1 to the word at an address, after all that this thread has written."""

counted = instruction(1, _counted, "long")
"""Return the word at an address; what was written before it got so is seen after."""

pause = instruction(1, _pause)
"""Wait for a moment, on the so many-th turn of a loop."""
