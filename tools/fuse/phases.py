"""Cutting a program that one task would have to compute into phases with a barrier between them (AStitch, section 4).

Reductions and outputs follow one another by dependence. A *step* takes as many of them as one loop allows, its *seed*:
each walks over it, and none needs the finished result of a reduction over it. The blocks of the seed are tasks. A
reduction over the seed leaves a part in every block, and the *join* behind the step folds the parts in their order,
so that results do not depend on which thread did what. Between phases values pass through memory that all tasks share:
parts, finished reductions, and what is dear to compute twice. Every phase is a program of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from sartor.tools.fuse.axes import Atom, Axes, Size
from sartor.tools.fuse.layout import Layout, ranked, shifted_values
from sartor.tools.fuse.program import Cut, Elementwise, Load, Program, Reduce, Value, operands, substituted
from sartor.tools.fuse.schedule import Root, exact, reads, roots_of, stored, strip, value_cost

BLOCK = 8192
"""Elements of a block of the seed with all that is inside it: a task."""

LEAST_ROWS = 32
"""Positions of a block whose parts are vectors: each of them is written, and read again by the join."""

FEW = 32
"""Positions of a loop below which there are not enough blocks for tasks."""

UNKNOWN = 1024
"""What a named size counts as."""

ROUND = 64
"""Positions of which longer blocks are multiples, so that their loops are whole vectors."""

KEEP_COST = 0.4
"""Nanoseconds an element above which a value that two phases need passes through memory."""

_WIDE = {ir.DataType.FLOAT16: ir.DataType.FLOAT}
"""Types that memory between phases holds as they are computed."""


@dataclass(frozen=True)
class Step:
    """Roots of one phase and the loop whose blocks are its tasks; a join has no seed."""

    roots: tuple[Root, ...]
    seed: Atom | None

    @property
    def parts(self) -> tuple[Root, ...]:
        """The reductions over the seed."""
        return tuple(root for root in self.roots if root.folds and self.seed in root.over)


def phases(program: Program, memory: int) -> tuple[Program, ...]:
    """Cut a program into phases; what passes between them is numbered from `memory` on.

    Raises NotEmittableError where a reduction is read at a changed index.
    """
    layout = Layout(program)
    steps = steps_of(layout)
    return tuple(_Writer(layout, steps, memory).programs())


def steps_of(layout: Layout) -> tuple[Step, ...]:
    """Find the fewest steps that compute all roots; of several ways the one whose seeds lie furthest outside."""
    roots, order = roots_of(layout), _loops(layout)
    best: dict[int, tuple[Step, ...]] = {len(roots): ()}
    for start in reversed(range(len(roots))):
        seeds: list[Atom | None] = [atom for atom in order if atom in roots[start].domain]
        ways = []
        for seed in seeds or [None]:
            steps = _first_steps(roots[start:], seed)
            ways.append((*steps, *best[start + sum(len(step.roots) for step in steps)]))
        best[start] = min(ways, key=lambda steps: sum(step.seed is not None for step in steps))
    return best[0]


def _loops(layout: Layout) -> list[Atom]:
    """List all loops, outermost first, but last those known to be short: they leave no tasks to share."""
    order = ranked(layout.memory())
    order += [atom for root in roots_of(layout) for atom in root.domain if atom not in order]
    return sorted(order, key=lambda atom: not atom.size.names and atom.size.factor < FEW)


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


class _Writer:
    """Writes the programs of all phases; `known` maps the values that are in memory to what reads them."""

    def __init__(self, layout: Layout, steps: tuple[Step, ...], memory: int) -> None:
        self.layout, self.steps, self.program = layout, steps, layout.program
        self.order = ranked(layout.memory())
        self.kept = _kept(layout, steps)
        self.shared = self.memory = memory
        self.known: dict[Value, Value] = {}

    def programs(self) -> Iterator[Program]:
        """Yield the programs of the phases in order."""
        held: set[Value] = set()
        for number, step in enumerate(self.steps):
            made: dict[Value, Value] = {}
            outputs = {
                self.program.position(root.output): substituted(self.program.outputs[root.output], self.known, made)
                for root in step.roots
                if root.output is not None
            }
            keep = [value for value in self.kept[number] if value not in held]
            cut = self._cut(step, [substituted(value, self.known, made) for value in keep], made)
            held |= {*keep, *(root.value for root in step.parts if cut is None)}
            after = {value: self._hold(value, outputs, made) for value in keep}
            for root in step.parts:
                after[root.value] = self._part(root, cut, outputs, made)
            self.known |= after
            yield self._program(number, outputs, cut)

    def _program(self, phase: int, outputs: dict[int, Value], cut: Cut | None) -> Program:
        where = tuple(outputs)
        return replace(
            self.program,
            outputs=tuple(outputs.values()),
            types=(),
            positions=where,
            phase=phase,
            shared=self.shared,
            cut=cut,
        )

    def _hold(self, value: Value, outputs: dict[int, Value], made: dict[Value, Value]) -> Value:
        """Write a value to an output that it is anyway, or to memory of its own; return what reads it."""
        for position, whole in outputs.items():
            if strip(whole) is substituted(value, self.known, made) and exact(value):
                return self._read(value.dtype, value.axes, whole.axes, position)
        axes = tuple(self.layout.atoms(loop) for loop in self._sorted(self.layout.flat(value.axes)))
        return self._write(value, axes, value.axes, outputs, made)

    def _part(self, root: Root, cut: Cut | None, outputs: dict[int, Value], made: dict[Value, Value]) -> Value:
        """Write the parts of a reduction; return their fold."""
        assert isinstance(root.value, Reduce)
        if cut is None:
            return self._hold(root.value, outputs, made)
        seed = self.layout.loop(cut.atom)
        loops = self._sorted((*root.own, seed))
        axes = tuple((cut.blocks,) if loop is seed else self.layout.atoms(loop) for loop in loops)
        parts = self._write(root.value, axes, axes, outputs, made)
        return replace(root.value, arg=parts, over=((cut.blocks,),))

    def _write(
        self, value: Value, axes: Axes, view: Axes, outputs: dict[int, Value], made: dict[Value, Value]
    ) -> Value:
        wide, written = _WIDE.get(value.dtype, value.dtype), substituted(value, self.known, made)
        if wide != value.dtype:
            written = Elementwise(wide, value.axes, "cast", (written,))
        position, self.memory = self.memory, self.memory + 1
        outputs[position] = Elementwise(wide, axes, "view", (written,))
        return self._read(value.dtype, view, axes, position)

    def _read(self, dtype: ir.DataType, view: Axes, axes: Axes, position: int) -> Value:
        load = Load(_WIDE.get(dtype, dtype), axes, len(self.program.inputs) + position)
        return Elementwise(dtype, view, "view", (load,))

    def _sorted(self, loops: tuple[Atom, ...]) -> list[Atom]:
        return sorted(loops, key=self.order.index)

    def _cut(self, step: Step, others: Sequence[Value], made: dict[Value, Value]) -> Cut | None:
        """Cut the loop of a seed into blocks; None where nothing is reduced over it, or it is but one block."""
        if step.seed is None or not step.parts:
            return None
        seed = self.layout.atoms(step.seed)[-1]
        values = [substituted(root.value, self.known, made) for root in step.roots]
        # What remains of the program may tell fewer loops apart.
        inside = Layout(replace(self.program, outputs=(*values, *others), cut=None))
        loop = inside.loop(seed)
        length = self._length(step, inside, loop)
        blocks = blocks_of(loop.size, length)
        return None if blocks.is_one else Cut(seed, Atom(blocks), length)

    def _length(self, step: Step, inside: Layout, seed: Atom) -> int:
        """Choose the positions of a block: a task is some thousand elements, and parts are few."""
        order = ranked(inside.memory())
        domains = [self._inner(root.domain, inside) for root in step.roots]
        shared = set.intersection(*(self._inner(frozenset(root.own), inside) for root in step.roots))
        outer = {loop for loop in shared if order.index(loop) < order.index(seed)}
        inner = set().union(*domains) - outer - {seed}
        vectors = any(self._inner(frozenset(root.own), inside) & inner for root in step.parts)
        elements: int = prod(loop.size.factor * UNKNOWN ** len(loop.size.names) for loop in inner)
        length = max(LEAST_ROWS if vectors else 1, BLOCK // max(elements, 1))
        return length if length < ROUND else length // ROUND * ROUND

    def _inner(self, loops: frozenset[Atom], inside: Layout) -> set[Atom]:
        return {inside.loop(atom) for loop in loops for atom in self.layout.atoms(loop)}


def blocks_of(size: Size, length: int) -> Size:
    """Return the number of blocks of a loop: a number, or a name of its own."""
    return Size(1, (f"ceil({size}/{length})",)) if size.names else Size(-(-size.factor // length))


def _kept(layout: Layout, steps: tuple[Step, ...]) -> list[list[Value]]:
    """List the values that memory holds from a step on: reductions, outputs and dear values that later steps need."""
    roots = [root for step in steps for root in step.roots]
    done = {root: i + (root in step.parts) for i, step in enumerate(steps) for root in step.roots}
    kept: list[dict[Value, None]] = [{} for _ in steps]
    for i, step in enumerate(steps):
        for root in step.roots:
            for other in reads(root, stored(roots)):
                if done[other] < i:
                    kept[done[other]][other.value] = None
    for value, at in _dear(layout, steps).items():
        kept[at][value] = None
    return [list(values) for values in kept]


def _dear(layout: Layout, steps: tuple[Step, ...]) -> dict[Value, int]:
    """Map computed values that several steps need to the step that keeps them: its output, or dear to compute again."""
    need: dict[Value, set[int]] = {value: set() for value in layout.values}
    written: dict[Value, int] = {}
    domains = {root.domain for step in steps for root in step.roots if root.domain}
    for i, step in enumerate(steps):
        for root in step.roots:
            need[root.expression].add(i)
            if root.output is not None and exact(root.value):
                written.setdefault(root.value, i)
    cost, shifted = _costs(layout), shifted_values(layout)
    kept: dict[Value, int] = {}
    for value in reversed(layout.values):
        if isinstance(value, Reduce):
            continue
        at = written.get(value, min(need[value], default=0))
        whole = any(domain <= set(layout.flat(value.axes)) for domain in domains)
        computed = isinstance(value, Elementwise) and value.op != "view"
        worth = value in written or cost[value] >= KEEP_COST
        if whole and computed and worth and value not in shifted and max(need[value], default=0) > at:
            kept[value] = at
            need[value] = {i for i in need[value] if i <= at}
        for operand in operands(value):
            if not isinstance(operand, Reduce):
                need[operand] |= need[value]
    return kept


def _costs(layout: Layout) -> dict[Value, float]:
    """Return the nanoseconds an element of what is computed in the innermost loops of each value."""
    cost: dict[Value, float] = {}
    for value in layout.values:
        loops = set(layout.flat(value.axes))
        inside = [arg for arg in operands(value) if not isinstance(arg, Reduce) and set(layout.flat(arg.axes)) == loops]
        cost[value] = value_cost(value) + sum(cost[arg] for arg in inside)
    return cost
