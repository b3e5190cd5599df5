"""Scheduling for a GPU: which axes are shared among programs, held in tiles, or looped over, in one phase or several.

Loops that every root treats alike (stores, reduces or lacks) are flattened into one *axis*. A value at a point is a
tile of two dimensions, rows and columns. In a phase an axis is

- *spread*: programs share its positions, a block of ROWS or COLS each, or one where it has no tile dimension;
- *whole*: a tile dimension holds all of it, so that a reduction over it stays in registers and shared memory;
- *looped*: walked over, a block of a tile dimension at a time, or one by one where both dimensions are taken.

One phase is enough where some loop indexes all roots and no root reduces over it: a program then needs no other. Else
phases follow one another with a barrier of the whole grid between, and a reduction over the spread axis leaves a part
per program, which the next phase adds up (the global composition of AStitch, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce

from sartor.tools.fuse.axes import Atom, Size
from sartor.tools.fuse.layout import Layout, ranked, shifted_values
from sartor.tools.fuse.program import Load, Program, Reduce
from sartor.tools.fuse.schedule import Leaf, Root, reads, stored, strip

ROWS, COLUMNS = 0, 1
"""The dimensions of a tile."""


@dataclass(frozen=True)
class Form:
    """How a kernel is to be composed: in phases, and with how many tile dimensions held whole."""

    phased: bool
    whole: int


@dataclass(frozen=True, eq=False)
class Axis:
    """Loops flattened into one, outermost first, and what becomes of them; `dim` is None without a tile dimension."""

    atoms: tuple[Atom, ...]
    dim: int | None = None
    spread: bool = False
    whole: bool = False
    masked: bool = True

    @property
    def size(self) -> Size:
        """The number of positions."""
        return reduce(lambda size, atom: size * atom.size, self.atoms, Size())


@dataclass(frozen=True)
class Walk:
    """A loop over an axis and what runs inside it; `roots` are all roots inside."""

    axis: Axis
    body: tuple[Walk | Leaf, ...]
    roots: tuple[Root, ...]


@dataclass(frozen=True)
class Phase:
    """What runs between two barriers: the roots, their axes, and the loops inside the spread axis."""

    axes: tuple[Axis, ...]
    spread: Axis | None
    tree: tuple[Walk | Leaf, ...]
    roots: tuple[Root, ...]

    def axes_of(self, atoms: Sequence[Atom] | frozenset[Atom]) -> tuple[Axis, ...]:
        """Return the axes that hold some loops."""
        return tuple(axis for axis in self.axes if axis.atoms[0] in atoms)

    def partial(self, root: Root) -> bool:
        """Tell whether the root reduces over the spread axis, so that each program has a part of the result."""
        return self.spread is not None and root.folds and self.spread.atoms[0] in root.over


@dataclass(frozen=True)
class GpuSchedule:
    """A kernel's phases, and the roots whose values pass through memory."""

    layout: Layout
    roots: tuple[Root, ...]
    phases: tuple[Phase, ...]
    scratch: tuple[Root, ...]
    form: Form

    def phase_of(self, root: Root) -> Phase:
        """Return the phase that computes a root."""
        return next(phase for phase in self.phases if root in phase.roots)

    def partial(self, root: Root) -> bool:
        """Tell whether the root's scratch memory holds a part per program."""
        return self.phase_of(root).partial(root)


def gpu_schedule(program: Program, form: Form) -> GpuSchedule:
    """Choose phases, axes and storage for a program.

    Raises NotEmittableError where an index map reaches through a reduction.
    """
    layout = Layout(program)
    # A reduction that is read at a changed index of its own is refused there.
    shifted_values(layout)
    roots = _roots(layout)
    builder = _Builder(layout, roots, form)
    phases = tuple(builder.phases()) if form.phased else (builder.single(),)
    return GpuSchedule(layout, roots, phases, _scratch(roots, phases), form)


def _roots(layout: Layout) -> tuple[Root, ...]:
    """List reductions and outputs by the longest chain of reductions before them."""
    roots = [
        Root(value, layout.flat(value.axes), frozenset(layout.flat(value.over)))
        for value in layout.values
        if isinstance(value, Reduce)
    ]
    known = stored(roots)
    level: dict[Root, int] = {}
    for root in roots:
        level[root] = 1 + max((level[other] for other in reads(root, known)), default=0)
    for position, whole in enumerate(layout.program.outputs):
        root = Root(strip(whole), layout.flat(whole.axes), frozenset(), position)
        level[root] = 1 + max((level[other] for other in reads(root, known)), default=0)
    return tuple(sorted(level, key=lambda root: level[root]))


@dataclass(frozen=True)
class _Builder:
    layout: Layout
    roots: tuple[Root, ...]
    form: Form
    order: list[Atom] = field(init=False)
    needs: dict[Root, set[Root]] = field(init=False)

    def __post_init__(self) -> None:
        order = ranked(self.layout.memory())
        order += [atom for root in self.roots for atom in root.domain if atom not in order]
        known = stored(self.roots)
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "needs", {root: reads(root, known) for root in self.roots})

    def common(self) -> set[Atom]:
        """Return the loops that index all roots."""
        return set(self.roots[0].own).intersection(*(root.own for root in self.roots))

    def single(self) -> Phase:
        """Put all roots into one phase, spread over the loops that index all of them."""
        common = self.common()
        seed = next((atom for atom in self.order if atom in common), None)
        phase = self.phase(self.roots, seed)
        assert phase is not None, "roots without a common reduction fit one phase"
        return phase

    def phases(self) -> Iterator[Phase]:
        """Cut the roots into as few phases as each next one allows, every phase spread over some axis."""
        start = 0
        while start < len(self.roots):
            best = max(self._options(start), key=lambda phase: len(phase.roots))
            yield best
            start += len(best.roots)

    def _options(self, start: int) -> Iterator[Phase]:
        """Yield the longest phase from a root on for every axis that it may be spread over.

        Where the loops that index all roots were enough, there would be one phase; so they come last.
        """
        first, common = self.roots[start], self.common()
        seeds = [*sorted(first.own, key=self.order.index), *sorted(first.over, key=self.order.index)]
        better = [phase for seed in seeds if seed not in common for phase in self._longest(start, seed)]
        later = [
            phase for seed in (*seeds, None) if seed is None or seed in common for phase in self._longest(start, seed)
        ]
        yield from better or later

    def _longest(self, start: int, seed: Atom | None) -> list[Phase]:
        """Take as many roots as the axis of `seed` allows; without one, which leaves one program, a single root."""
        found: list[Phase] = []
        for end in range(start + 1, len(self.roots) + 1 if seed is not None else start + 2):
            phase = self.phase(self.roots[start:end], seed)
            if phase is None:
                break
            found = [phase]
        return found

    def phase(self, roots: tuple[Root, ...], seed: Atom | None) -> Phase | None:
        """Spread roots over the axis of `seed`; None where they can't be computed without a barrier between."""
        if seed is not None and any(seed not in root.domain for root in roots):
            return None
        parts = [root for root in roots if seed in root.over]
        if any(self.needs[root] & set(parts) for root in roots):
            return None
        classes = self._classes(roots)
        spread = next((atoms for atoms in classes if seed in atoms), None)
        kept = {atoms for root in parts for atoms in classes if atoms[0] in root.own}
        dims = self._dims(classes, spread, kept)
        axes = tuple(self._axis(atoms, dims.get(atoms), atoms is spread) for atoms in classes)
        if any(axis.atoms in kept and not axis.whole for axis in axes):
            return None
        open_axes = {axis for axis in axes if axis.whole or axis.spread}
        nest = _Nest(axes, self.needs)
        rest = {root: nest.axes_of(root.domain) - open_axes for root in roots}
        return Phase(axes, next((axis for axis in axes if axis.spread), None), nest.build(roots, rest), roots)

    def _classes(self, roots: tuple[Root, ...]) -> list[tuple[Atom, ...]]:
        """Group the loops that every root treats alike, outermost first."""
        groups: dict[tuple[int, ...], list[Atom]] = {}
        for atom in self.order:
            signature = tuple(1 if atom in root.own else 2 * (atom in root.over) for root in roots)
            if any(signature):
                groups.setdefault(signature, []).append(atom)
        return [tuple(atoms) for atoms in groups.values()]

    def _dims(
        self, classes: list[tuple[Atom, ...]], spread: tuple[Atom, ...] | None, kept: set[tuple[Atom, ...]]
    ) -> dict[tuple[Atom, ...], int]:
        """Give columns to the axis with unit stride; rows to one whose sums each program keeps, or else to an inner
        one before the spread one.
        """
        if not classes:
            return {}
        unit = unit_atom(self.layout, {atom for atoms in classes for atom in atoms})
        columns = next((atoms for atoms in classes if unit in atoms), classes[-1])
        others = [atoms for atoms in classes if atoms is not columns]
        inner = [atoms for atoms in others if atoms is not spread]
        rows = [*(atoms for atoms in others if atoms in kept), *reversed(inner), *others][:1]
        return {columns: COLUMNS, **dict.fromkeys(rows, ROWS)}

    def _axis(self, atoms: tuple[Atom, ...], dim: int | None, spread: bool) -> Axis:
        whole = not spread and dim is not None and dim >= 2 - self.form.whole
        size = Axis(atoms).size
        exact = whole and not size.names and size.factor & (size.factor - 1) == 0
        return Axis(atoms, dim, spread, whole, dim is not None and not exact)


def unit_atom(layout: Layout, among: set[Atom]) -> Atom | None:
    """Choose the loop with unit stride in the largest tensors; outputs count more, scattered stores being dear."""
    votes: dict[Atom, int] = {}
    inputs = len([value for value in layout.values if isinstance(value, Load)])
    for i, string in enumerate(layout.memory()):
        if string and string[-1] in among:
            votes[string[-1]] = votes.get(string[-1], 0) + (3 if i >= inputs else 2) * 4 ** len(string)
    return max(votes, key=lambda atom: votes[atom], default=None)


@dataclass(frozen=True)
class _Nest:
    """Builds the loops of a phase; `needs` are the direct dependences between roots."""

    axes: tuple[Axis, ...]
    needs: dict[Root, set[Root]]

    def axes_of(self, atoms: frozenset[Atom]) -> set[Axis]:
        """Return the axes that hold some loops."""
        return {axis for axis in self.axes if axis.atoms[0] in atoms}

    def build(self, roots: tuple[Root, ...], rest: dict[Root, set[Axis]]) -> tuple[Walk | Leaf, ...]:
        """Nest `roots`, of which the axes `rest` are still to be walked over."""
        out: list[Walk | Leaf] = []
        position = 0
        while position < len(roots):
            end, axes = self._run(roots, position, rest)
            run = roots[position:end]
            if not axes:
                out.append(Leaf(run))
            else:
                axis = min(axes, key=self._rank)
                inner = {root: rest[root] - {axis} for root in run}
                out.append(Walk(axis, self.build(run, inner), run))
            position = end
        return tuple(out)

    def _rank(self, axis: Axis) -> tuple[int, int]:
        """Put loops without a tile dimension outside, columns inside."""
        return -1 if axis.dim is None else axis.dim, self.axes.index(axis)

    def _run(self, roots: tuple[Root, ...], start: int, rest: dict[Root, set[Axis]]) -> tuple[int, set[Axis]]:
        axes, end = self._candidates(roots[start : start + 1], rest), start + 1
        while end < len(roots):
            more = self._candidates(roots[start : end + 1], rest)
            if not more and (axes or rest[roots[end]]):
                break
            axes, end = more, end + 1
        return end, axes

    def _candidates(self, run: tuple[Root, ...], rest: dict[Root, set[Axis]]) -> set[Axis]:
        common = set.intersection(*(rest[root] for root in run))
        needed = set().union(*(self.needs[root] for root in run)) & set(run)
        for root in needed:
            common -= self.axes_of(root.over)
        for root in run:
            # An accumulator stays in registers only inside the loops that index it.
            if rest[root] & self.axes_of(frozenset(root.own)):
                common -= self.axes_of(root.over)
        return common


def walks(tree: tuple[Walk | Leaf, ...], above: tuple[Axis, ...] = ()) -> dict[Root, tuple[Axis, ...]]:
    """Map every root to the axes walked over around it, outermost first."""
    out: dict[Root, tuple[Axis, ...]] = {}
    for item in tree:
        if isinstance(item, Leaf):
            out.update(dict.fromkeys(item.roots, above))
        else:
            out.update(walks(item.body, (*above, item.axis)))
    return out


def _scratch(roots: tuple[Root, ...], phases: tuple[Phase, ...]) -> tuple[Root, ...]:
    """List the roots whose values are needed outside the loops, or the phase, that hold them in registers."""
    known = stored(roots)
    out = []
    for root in roots:
        users = [user for user in roots if root in reads(user, known)]
        if root.folds and not all(_in_registers(root, user, phases) for user in users):
            out.append(root)
    return tuple(out)


def _in_registers(root: Root, user: Root, phases: tuple[Phase, ...]) -> bool:
    phase = next(phase for phase in phases if root in phase.roots)
    if user not in phase.roots or phase.partial(root):
        return False
    made, used = _paths(phase.tree)[root], _paths(phase.tree)[user]
    shared = {walk.axis for walk in made if walk in used}
    return all(axis.whole or axis.spread or axis in shared for axis in phase.axes_of(root.own))


def _paths(tree: tuple[Walk | Leaf, ...], above: tuple[Walk, ...] = ()) -> dict[Root, tuple[Walk, ...]]:
    out: dict[Root, tuple[Walk, ...]] = {}
    for item in tree:
        if isinstance(item, Leaf):
            out.update(dict.fromkeys(item.roots, above))
        else:
            out.update(_paths(item.body, (*above, item)))
    return out
