"""The steps of a program that no single loop serves, and what passes from one to the next.

Reductions and outputs follow one another by dependence. A *step* takes as many of them as one loop allows, its *seed*:
each walks over it, and none needs the finished result of a reduction over it. Blocks of the seed are tasks. A reduction
over the seed leaves a part in every block, and the *join* behind the step folds the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sartor.tools.fuse.axes import Atom
from sartor.tools.fuse.layout import Layout, shifted_values
from sartor.tools.fuse.program import Elementwise, Reduce, Value, operands
from sartor.tools.fuse.schedule import KEEP_COST, Root, exact, loops_of, reads, roots_of, stored, value_cost

FEW = 32
"""Positions of a loop below which there are not enough blocks for tasks."""

MEMORY_COST = 0.4
"""Nanoseconds an element above which a value that two steps need passes through memory of its own."""


@dataclass(frozen=True)
class Step:
    """Roots of one phase and the loop whose blocks are its tasks; a join has no seed."""

    roots: tuple[Root, ...]
    seed: Atom | None

    @property
    def parts(self) -> tuple[Root, ...]:
        """The reductions over the seed."""
        return tuple(root for root in self.roots if root.folds and self.seed in root.over)


@dataclass(frozen=True)
class Kept:
    """A value that memory holds from a step on; `home` is the output of the program that it is written to, if any."""

    value: Value
    home: int | None = None


def steps_of(layout: Layout) -> tuple[Step, ...]:
    """Find the fewest steps that compute all roots; of several ways the one whose seeds lie furthest outside."""
    roots, order = roots_of(layout), _loops(layout)
    outer = set.intersection(*(set(root.own) for root in roots))
    best: dict[int, tuple[Step, ...]] = {len(roots): ()}
    for start in reversed(range(len(roots))):
        seeds: list[Atom | None] = [atom for atom in order if atom in roots[start].domain and atom not in outer]
        ways = []
        for seed in seeds or [None]:
            steps = _first_steps(roots[start:], seed)
            ways.append((*steps, *best[start + sum(len(step.roots) for step in steps)]))
        best[start] = min(ways, key=lambda steps: sum(step.seed is not None for step in steps))
    return best[0]


def _loops(layout: Layout) -> list[Atom]:
    """List all loops, outermost first, but last those known to be short: they leave no tasks to share."""
    return sorted(loops_of(layout, roots_of(layout)), key=lambda atom: not atom.size.names and atom.size.factor < FEW)


def _first_steps(roots: tuple[Root, ...], seed: Atom | None) -> tuple[Step, ...]:
    """Return the longest step over a seed and, where it leaves parts, their join with what needs nothing larger."""
    end = 1
    while end < len(roots) and _fits(roots[: end + 1], seed):
        end += 1
    step = Step(roots[:end], seed)
    if not step.parts:
        return (step,)
    small, after = {atom for root in step.parts for atom in root.own}, end
    while after < len(roots) and roots[after].domain <= small:
        after += 1
    return step, Step(roots[end:after], None)


def _fits(roots: tuple[Root, ...], seed: Atom | None) -> bool:
    """Tell whether the last root can be computed with those before it in blocks of the seed."""
    last, parts = roots[-1], set(Step(roots[:-1], seed).parts)
    if seed is None:
        return not last.domain
    return seed in last.domain and not reads(last, stored(roots)) & parts


def kept(layout: Layout, steps: Sequence[Step]) -> list[list[Kept]]:
    """List, a step, the values that later steps read from memory: reductions, outputs, and what is dear to compute."""
    known = stored(root for step in steps for root in step.roots)
    done = {root: i + (root in step.parts) for i, step in enumerate(steps) for root in step.roots}
    found: list[dict[Value, Kept]] = [{} for _ in steps]
    for i, step in enumerate(steps):
        for other in set().union(*(reads(root, known) for root in step.roots)):
            if done[other] < i:
                found[done[other]][other.value] = Kept(other.value)
    for i, one in _Dear(layout, steps).search():
        found[i][one.value] = one
    place = {value: i for i, value in enumerate(layout.values)}
    return [sorted(values.values(), key=lambda one: place[one.value]) for values in found]


_Users = set[tuple[int, Root]]
"""Roots that evaluate a value, with their steps."""


class _Dear:
    """Finds computed values that several steps need and that are an output, or dear to compute again."""

    def __init__(self, layout: Layout, steps: Sequence[Step]) -> None:
        self.layout, self.order = layout, loops_of(layout, roots_of(layout))
        self.users: _Users = {(i, root) for i, step in enumerate(steps) for root in step.roots}
        self.domains = {root.domain for _, root in self.users if root.domain}
        self.shifted = shifted_values(layout)
        self.cost = _costs(layout)
        self.taken: set[int] = set()

    def search(self) -> Iterator[tuple[int, Kept]]:
        """Yield them with the steps that write them, from the outputs down: the whole of an expression is kept."""
        need: dict[Value, _Users] = {value: set() for value in self.layout.values}
        for i, root in self.users:
            need[root.expression].add((i, root))
        for value in reversed(self.layout.values):
            if isinstance(value, Reduce):
                continue
            found = self._keep(value, need[value])
            if found is not None:
                yield found
                need[value] = {(i, root) for i, root in need[value] if i <= found[0]}
            for operand in operands(value):
                if not isinstance(operand, Reduce):
                    need[operand] |= need[value]

    def _keep(self, value: Value, users: _Users) -> tuple[int, Kept] | None:
        if not isinstance(value, Elementwise) or value.op == "view" or value in self.shifted:
            return None
        loops = set(self.layout.flat(value.axes))
        if not users or not any(domain <= loops for domain in self.domains):
            return None
        written = [(i, root.output) for i, root in users if root.output is not None and root.value is value]
        if written and exact(value):
            at, output = min(written)
            return (at, Kept(value, output)) if any(i > at for i, _ in users) else None
        at = min(i for i, _ in users)
        later = {(i, root) for i, root in users if i > at}
        home = self._home(value, later) if later else None
        if not later or self.cost[value] < (MEMORY_COST if home is None else KEEP_COST):
            return None
        return at, Kept(value, home)

    def _home(self, value: Value, later: _Users) -> int | None:
        """Find the output that the last reader of a value, and nobody with it, writes element by element."""
        last = max(i for i, _ in later)
        root, *others = (root for i, root in later if i == last)
        along = sorted(self.layout.flat(value.axes), key=self.order.index)
        fits = not others and root.value.dtype == value.dtype and exact(value) and list(root.own) == along
        if not fits or root.output is None or root.output in self.taken:
            return None
        self.taken.add(root.output)
        return root.output


def _costs(layout: Layout) -> dict[Value, float]:
    """Return the nanoseconds an element of what is computed in the innermost loops of each value."""
    cost: dict[Value, float] = {}
    for value in layout.values:
        loops = set(layout.flat(value.axes))
        inside = [arg for arg in operands(value) if not isinstance(arg, Reduce) and set(layout.flat(arg.axes)) == loops]
        cost[value] = value_cost(value) + sum(cost[arg] for arg in inside)
    return cost
