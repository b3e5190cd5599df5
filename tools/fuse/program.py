"""The tensor program of a group: what is computed, over which iteration variables, before anybody decides in which
order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse.axes import Atom, Axes, Size


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the program: element type and, an axis, the atoms that index it."""

    dtype: ir.DataType
    axes: Axes


@dataclass(frozen=True, eq=False)
class Load(Value):
    """An input of the kernel, read where its axes say; every use of an input is a Load of its own."""

    position: int


@dataclass(frozen=True, eq=False)
class Const(Value):
    """A number known at compile time."""

    value: float | int | bool


@dataclass(frozen=True, eq=False)
class Count(Value):
    """The number of elements along some axes, as a number of the value's type (the divisor of a mean)."""

    over: Axes


@dataclass(frozen=True, eq=False)
class Elementwise(Value):
    """A registered scalar operator (`ops.SCALARS`) applied point by point."""

    op: str
    args: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Reduce(Value):
    """A reduction of `arg` over the axes `over`: sum, prod, max or min."""

    op: str
    arg: Value
    over: Axes


@dataclass(frozen=True)
class Affine:
    """The index `start + step * atom`, where start is `length * size + offset`; without atom it is a constant."""

    atom: Atom | None
    step: int
    offset: int
    length: Size | None = None


@dataclass(frozen=True, eq=False)
class At(Value):
    """`arg` with one of its atoms replaced by an affine index (slices)."""

    arg: Value
    atom: Atom
    index: Affine


@dataclass(frozen=True, eq=False)
class Take(Value):
    """A Load with one of its atoms replaced by a computed index (gather); negative indices count from the end."""

    arg: Load
    atom: Atom
    index: Value


@dataclass(frozen=True, eq=False)
class Concat(Value):
    """Parts side by side along `atom`; a part is a value, its own atom there (None for size 1) and its size."""

    atom: Atom
    parts: tuple[tuple[Value, Atom | None, Size], ...]


@dataclass(frozen=True, eq=False)
class Iota(Value):
    """The position along an atom, as int64."""

    atom: Atom


@dataclass(frozen=True)
class Cut:
    """The loop that `atom` is part of, cut into blocks of `length` positions; `blocks` numbers them, each is a task."""

    atom: Atom
    blocks: Atom
    length: int


@dataclass(frozen=True)
class Program:
    """A group ready to be scheduled: its input types, and its output values with their types."""

    inputs: tuple[TensorType | None, ...]
    outputs: tuple[Value, ...]
    types: tuple[TensorType, ...]
    positions: tuple[int, ...] = ()
    """Which outputs of the kernel these are; empty for all of them in order."""
    part: int = 0
    phase: int = 0
    shared: int | None = None
    """The first position that is memory shared by phases; a Load reads it, or an output, behind the inputs."""
    cut: Cut | None = None

    def position(self, output: int) -> int:
        """Return the place of an output among the kernel's."""
        return self.positions[output] if self.positions else output

    @property
    def outside(self) -> tuple[int, ...]:
        """The places among the kernel's outputs, without the memory that phases share."""
        return tuple(i for i in map(self.position, range(len(self.outputs))) if not self.is_shared(i))

    def is_shared(self, position: int) -> bool:
        """Tell whether a position is memory that phases share."""
        return self.shared is not None and position >= self.shared


def operands(value: Value) -> tuple[Value, ...]:
    """List the values that `value` is computed from."""
    match value:
        case Elementwise(args=args):
            return args
        case Reduce(arg=arg) | At(arg=arg):
            return (arg,)
        case Take(arg=arg, index=index):
            return (arg, index)
        case Concat(parts=parts):
            return tuple(part for part, _, _ in parts)
    return ()


def walk(roots: tuple[Value, ...]) -> Iterator[Value]:
    """Yield every value once, operands before users."""
    done: set[Value] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        value, expanded = stack.pop()
        if value in done:
            continue
        if expanded:
            done.add(value)
            yield value
            continue
        stack.append((value, True))
        stack.extend((arg, False) for arg in reversed(operands(value)))


def substituted(value: Value, known: Mapping[Value, Value], made: dict[Value, Value]) -> Value:
    """Replace the values in `known` inside a value; `made` remembers results, so that what is shared stays shared."""
    if value in known:
        return known[value]
    if value not in made:
        made[value] = _with_operands(value, tuple(substituted(arg, known, made) for arg in operands(value)))
    return made[value]


def _with_operands(value: Value, args: tuple[Value, ...]) -> Value:
    if args == operands(value):
        return value
    match value:
        case Elementwise():
            return replace(value, args=args)
        case Reduce() | At():
            return replace(value, arg=args[0])
        case Take():
            assert isinstance(args[0], Load), "a gather reads an input"
            return replace(value, arg=args[0], index=args[1])
        case Concat(parts=parts):
            return replace(value, parts=tuple((arg, *part[1:]) for arg, part in zip(args, parts, strict=True)))
    raise AssertionError(f"{type(value).__name__} has no operands")


def parts(program: Program) -> tuple[Program, ...]:
    """Split a program into those that share no computed value, in the order of their first outputs."""
    owner: dict[Value, int] = {}
    members: dict[int, list[int]] = {}
    for output, root in enumerate(program.outputs):
        computed = [value for value in walk((root,)) if not isinstance(value, Load | Const)] or [root]
        met = sorted({owner[value] for value in computed if value in owner})
        first = met[0] if met else output
        joined = [output, *(other for part in met for other in members.pop(part))]
        members[first] = sorted(joined)
        owner.update(dict.fromkeys(computed, first))
        owner.update({value: first for value, part in owner.items() if part in met})
    if len(members) == 1:
        return (program,)
    return tuple(_part(program, outputs) for outputs in sorted(members.values()))


def _part(program: Program, outputs: list[int]) -> Program:
    return replace(
        program,
        outputs=tuple(program.outputs[i] for i in outputs),
        types=tuple(program.types[i] for i in outputs if program.types),
        positions=tuple(program.position(i) for i in outputs),
    )
