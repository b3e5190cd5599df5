"""Iteration variables of a kernel: sizes known up to names, unified over the tensors that meet, split by reshapes.

Every axis of a value is a tuple of atoms, outermost first; an axis of size 1 is the empty tuple. An element-wise
operator unifies the axes of its operands, a transpose permutes them, a reshape regroups them (and splits an atom where
it must), a reduction drops them. After a whole group has been traced, each atom is one loop of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce


class NotEmittableError(Exception):
    """A group has no kernel; the message says why in a few words."""


@dataclass(frozen=True)
class Size:
    """A product of a positive integer and named sizes, the names sorted."""

    factor: int = 1
    names: tuple[str, ...] = ()

    def __mul__(self, other: Size) -> Size:
        return Size(self.factor * other.factor, tuple(sorted(self.names + other.names)))

    def over(self, other: Size) -> Size | None:
        """Divide exactly; None where that is not possible for every value of the names."""
        rest = list(self.names)
        for name in other.names:
            if name not in rest:
                return None
            rest.remove(name)
        if other.factor == 0 or self.factor % other.factor:
            return None
        return Size(self.factor // other.factor, tuple(rest))

    @property
    def is_one(self) -> bool:
        """Tell whether this is the number one."""
        return self.factor == 1 and not self.names

    def __str__(self) -> str:
        return "*".join([str(self.factor)] * (self.factor != 1 or not self.names) + list(self.names))


def parse_size(dim: int | str | None) -> Size:
    """Read a dimension such as 768, "batch" or "12*batch"; any other expression is one opaque name.

    Raises NotEmittableError for an unknown or zero dimension.
    """
    if dim is None:
        raise NotEmittableError("a size is unknown")
    if isinstance(dim, int):
        if dim <= 0:
            raise NotEmittableError("a tensor is empty")
        return Size(dim)
    factors = [part.strip() for part in dim.split("*")]
    if all(part.isdigit() or part.isidentifier() for part in factors):
        number = reduce(lambda a, b: a * b, (int(part) for part in factors if part.isdigit()), 1)
        return Size(number, tuple(sorted(part for part in factors if not part.isdigit())))
    return Size(1, (dim,))


def size_of(size: Size, axes: Mapping[str, int]) -> int | None:
    """Work out a size, or return None where a name is not known."""
    if any(name not in axes for name in size.names):
        return None
    return reduce(lambda total, name: total * axes[name], size.names, size.factor)


class Atom:
    """One iteration variable; `parts` is what it was unified with or split into."""

    __slots__ = ("parts", "size")

    def __init__(self, size: Size) -> None:
        self.size = size
        self.parts: tuple[Atom, ...] | None = None

    def __repr__(self) -> str:
        return f"Atom({self.size}, {id(self):x})" if self.parts is None else f"Atom->{self.parts}"


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


def fresh(size: Size) -> Axis:
    """Make the axis of a new tensor."""
    return () if size.is_one else (Atom(size),)


def resolve(axis: Axis) -> Axis:
    """Replace atoms by what they were unified with or split into."""
    out: list[Atom] = []
    for atom in axis:
        out.extend((atom,) if atom.parts is None else resolve(atom.parts))
    return tuple(out)


def axis_size(axis: Axis) -> Size:
    """Multiply the sizes of an axis's atoms."""
    return reduce(lambda size, atom: size * atom.size, axis, Size())


def unify(left: Axis, right: Axis) -> None:
    """Make two axes of equal size one and the same, splitting atoms where their factors differ.

    Raises NotEmittableError where the factors do not nest.
    """
    a, b = list(resolve(left)), list(resolve(right))
    while a and b:
        x, y = a.pop(), b.pop()
        if x is y:
            continue
        if x.size == y.size:
            x.parts = (y,)
        elif (high := x.size.over(y.size)) is not None:
            x.parts = (Atom(high), y)
            a.append(x.parts[0])
        elif (high := y.size.over(x.size)) is not None:
            y.parts = (Atom(high), x)
            b.append(y.parts[0])
        else:
            raise NotEmittableError(f"sizes {x.size} and {y.size} do not match")
    if a or b:
        raise NotEmittableError(f"sizes {axis_size(left)} and {axis_size(right)} do not match")


def regroup(axes: Axes, shape: tuple[Size, ...]) -> Axes:
    """Give the atoms of `axes` the grouping of `shape`, as a reshape does.

    Raises NotEmittableError where a new axis cuts across the old ones.
    """
    rest = [atom for axis in axes for atom in resolve(axis)]
    out: list[Axis] = []
    for size in reversed(shape):
        axis: list[Atom] = []
        want = size
        while not want.is_one:
            if not rest:
                raise NotEmittableError("a reshape changes the number of elements")
            atom = rest.pop()
            if (more := want.over(atom.size)) is not None:
                want = more
            elif (high := atom.size.over(want)) is not None:
                low = Atom(want)
                atom.parts = (Atom(high), low)
                rest.append(atom.parts[0])
                atom, want = low, Size()
            else:
                raise NotEmittableError(f"a reshape cuts {atom.size} at {want}")
            axis.insert(0, atom)
        out.insert(0, tuple(axis))
    if rest:
        raise NotEmittableError("a reshape changes the number of elements")
    return tuple(out)
