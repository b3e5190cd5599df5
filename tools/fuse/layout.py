"""The loops of a program: atoms resolved, and neighbours merged into one long loop where no tensor tells them apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from sartor.tools.fuse.axes import Atom, Axes, NotEmittableError, resolve
from sartor.tools.fuse.program import At, Concat, Iota, Load, Program, Reduce, Take, Value, operands, walk


class Layout:
    """Maps the axes of a program's values to the loops of its kernel."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.values = list(walk(program.outputs))
        self._group: dict[Atom, tuple[Atom, bool]] = {}
        self._merge()

    def flat(self, axes: Axes) -> tuple[Atom, ...]:
        """List the loops that index a tensor, outermost first in memory order."""
        out: list[Atom] = []
        for atom in (atom for axis in axes for atom in resolve(axis)):
            merged, last = self._group.get(atom, (atom, True))
            if last:
                out.append(merged)
        return tuple(out)

    def loop(self, atom: Atom) -> Atom:
        """Return the loop that walks over an atom, alone or with others."""
        return self._group.get(atom, (atom, True))[0]

    def atoms(self, loop: Atom) -> tuple[Atom, ...]:
        """List the atoms that a loop walks over, outermost first."""
        return tuple(atom for atom, (merged, _) in self._group.items() if merged is loop) or (loop,)

    def one(self, atom: Atom) -> Atom:
        """Return the loop of an atom that is sliced, gathered or joined.

        Raises NotEmittableError where the axis was split after the cut.
        """
        loops = self.flat(((atom,),))
        if len(loops) != 1:
            raise NotEmittableError("an axis is both regrouped and cut")
        return loops[0]

    def memory(self) -> Iterator[tuple[Atom, ...]]:
        """Yield the loops of every tensor in memory: inputs as they are read, outputs."""
        for value in self.values:
            if isinstance(value, Load):
                yield self.flat(value.axes)
        for value in self.program.outputs:
            yield self.flat(value.axes)

    def cut(self) -> set[Atom]:
        """Return the loops whose index is used as a number: slices, gathers, joins, positions."""
        out: set[Atom] = set()
        for value in self.values:
            match value:
                case At(atom=atom, index=index):
                    out |= {self.one(atom), *([self.one(index.atom)] if index.atom else [])}
                case Take(atom=atom) | Iota(atom=atom):
                    out.add(self.one(atom))
                case Concat(atom=atom, parts=parts):
                    out |= {self.one(atom), *(self.one(part) for _, part, _ in parts if part)}
        return out

    def pieces(self, atom: Atom) -> list[tuple[int, int]]:
        """Cut a loop at the borders of every concatenation along it."""
        borders = {0}
        for value in self.values:
            if isinstance(value, Concat) and self.one(value.atom) is atom:
                position = 0
                for _, _, size in value.parts:
                    position += size.factor
                    borders.add(position)
        return list(pairwise(sorted(borders)))

    def _merge(self) -> None:
        strings = list(self.memory())
        reduced = [set(self.flat(value.over)) for value in self.values if isinstance(value, Reduce)]
        fixed = self.cut()
        follows: dict[Atom, set[Atom | None]] = {}
        precedes: dict[Atom, set[Atom | None]] = {}
        for string in strings:
            for left, right in zip((None, *string), (*string, None), strict=True):
                if left is not None:
                    follows.setdefault(left, set()).add(right)
                if right is not None:
                    precedes.setdefault(right, set()).add(left)

        def joined(left: Atom, right: Atom) -> bool:
            together = follows[left] == {right} and precedes[right] == {left}
            apart = left in fixed or right in fixed or any((left in over) != (right in over) for over in reduced)
            return together and not apart

        for chain in _chains(follows, joined):
            size = chain[0].size
            for atom in chain[1:]:
                size = size * atom.size
            merged = Atom(size)
            self._group.update({atom: (merged, atom is chain[-1]) for atom in chain})


def _chains(follows: dict[Atom, set[Atom | None]], joined: object) -> list[list[Atom]]:
    assert callable(joined)
    after = {
        left: right for left, rights in follows.items() for right in rights if right is not None and joined(left, right)
    }
    heads = [atom for atom in after if atom not in after.values()]
    out = []
    for head in heads:
        chain = [head]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        out.append(chain)
    return out


def ranked(strings: Iterable[tuple[Atom, ...]]) -> list[Atom]:
    """Order all loops as the largest tensors in memory have them, outermost first."""
    order: list[Atom] = []
    for string in sorted(strings, key=len, reverse=True):
        for position, atom in enumerate(string):
            if atom not in order:
                before = [order.index(other) for other in string[:position]]
                order.insert(max(before, default=-1) + 1, atom)
    return order


def shifted_values(layout: Layout) -> set[Value]:
    """Return the values that some user reads at a changed index; a reduction there must not depend on that index.

    Raises NotEmittableError where one does.
    """
    out: set[Value] = set()
    for value in layout.values:
        match value:
            case At(arg=arg, atom=atom):
                _mark(layout, arg, layout.one(atom), out)
            case Concat(parts=parts):
                for part, own, _ in parts:
                    if own is not None:
                        _mark(layout, part, layout.one(own), out)
    return out


def _mark(layout: Layout, value: Value, atom: Atom, out: set[Value]) -> None:
    stack, seen = [value], set()
    while stack:
        value = stack.pop()
        if value in seen or atom not in layout.flat(value.axes):
            continue
        if isinstance(value, Reduce):
            raise NotEmittableError("a reduction is read at a changed index")
        seen.add(value)
        stack.extend(operands(value))
    out |= seen
