"""Writing LLVM instructions on vectors in memory: addresses are int64, loops carry values from turn to turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BYTE, WORD, LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
HALF, SINGLE = ir.HalfType(), ir.FloatType()
_SIZES = {BYTE: 1, WORD: 4, LONG: 8, HALF: 2, SINGLE: 4}


def size_of(kind: Any) -> int:
    """Return the bytes of a type."""
    return kind.count * size_of(kind.element) if isinstance(kind, ir.VectorType) else _SIZES[kind]


@dataclass(frozen=True)
class Writer:
    """Writes instructions at the end of a builder's block."""

    builder: Any

    def at(self, address: Any, offset: Any) -> Any:
        """Add bytes, a number or a value, to an address."""
        return self.builder.add(address, LONG(offset) if isinstance(offset, int) else offset)

    def scaled(self, index: Any, size: int) -> Any:
        """Return an index times a number of bytes."""
        return self.builder.mul(index, LONG(size))

    def load(self, address: Any, kind: Any) -> Any:
        """Load a number or vector, aligned as its elements are."""
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        return self.builder.load(pointer, align=size_of(getattr(kind, "element", kind)))

    def store(self, value: Any, address: Any) -> None:
        """Store a number or vector."""
        kind = value.type
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        self.builder.store(value, pointer, align=size_of(getattr(kind, "element", kind)))

    def spread(self, value: Any, lanes: int) -> Any:
        """Repeat a number in all lanes."""
        kind = ir.VectorType(value.type, lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, WORD(0))
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.VectorType(WORD, lanes)(None))

    def multiply_add(self, x: Any, y: Any, addend: Any) -> Any:
        """Return x y + addend, rounded once where the processor can."""
        name = f"llvm.fmuladd.v{x.type.count}f32"
        return self.call(name, x.type, [x, y, addend])

    def call(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """Call a function of LLVM or of the C library."""
        module = self.builder.module
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, arguments)

    def repeat(self, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]) -> list[Any]:
        """Run `body(turn, carried)` count times; it returns what the next turn and, last, the caller get."""
        builder = self.builder
        before = builder.block
        head, inner, after = (builder.append_basic_block(name) for name in ("head", "turn", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        phis = [builder.phi(kind) for kind in (LONG, *(value.type for value in carried))]
        for phi, value in zip(phis, (LONG(0), *carried), strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", phis[0], count), inner, after)
        builder.position_at_end(inner)
        results = body(phis[0], list(phis[1:]))
        following = (builder.add(phis[0], LONG(1)), *results)
        for phi, value in zip(phis, following, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return list(phis[1:])


_Body = Callable[..., Any]
_KINDS: dict[str, Any] = {"none": types.none, "long": types.int64, "bool": types.boolean}


def instruction(count: int, body: _Body, result: str = "none") -> Any:
    """Make a numba function of `count` int64, most of them addresses, from what `body(writer, *values)` writes."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value = body(Writer(builder), *arguments)
        return context.get_dummy_value() if result == "none" else value

    names = ", ".join(f"a{i}" for i in range(count))
    scope: dict[str, Any] = {"kind": _KINDS[result], "operand": types.int64, "generate": generate}
    operands = ", ".join(["operand"] * count)
    # numba reads the parameters off the function, so that it has to have exactly these.
    exec(f"def typed(typingctx, {names}):\n    return kind({operands}), generate", scope)
    return intrinsic(scope["typed"])
