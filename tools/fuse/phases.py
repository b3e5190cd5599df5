"""Cutting a program that one task would have to compute into phases with a barrier between them (AStitch, section 4).

The steps of the program become phases, each a program of its own. The join of a step folds the parts of a reduction in
their order, and blocks are cut by sizes alone, so that results do not depend on which thread did what. Between phases
values pass through memory that all tasks share: parts, finished reductions, and what is dear to compute twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import onnx_ir as ir

from sartor.tools.fuse.axes import Atom, Axes, Size
from sartor.tools.fuse.layout import Layout
from sartor.tools.fuse.program import Cut, Elementwise, Load, Program, Reduce, Value, substituted
from sartor.tools.fuse.schedule import Root, loops_of, roots_of
from sartor.tools.fuse.steps import Kept, Step, kept, steps_of

BLOCK = 8192
"""Elements of a block of the seed with all that is inside it: a task."""

LEAST_ROWS, MOST_VECTORS = 32, 256
"""Positions of a block whose parts are vectors, and blocks of it: each part is written, and read again by the join."""

ROUND = 64
"""Positions of which longer blocks are multiples, so that their loops are whole vectors."""

UNKNOWN = 1024
"""What a named size counts as."""

_WIDE = {ir.DataType.FLOAT16: ir.DataType.FLOAT}
"""Types that memory between phases holds as they are computed."""


def phases(program: Program, memory: int) -> tuple[Program, ...]:
    """Cut a program into phases; what passes between them is numbered from `memory` on.

    Raises NotEmittableError where a reduction is read at a changed index.
    """
    layout = Layout(program)
    return tuple(_Writer(layout, steps_of(layout), memory).programs())


class _Writer:
    """Writes the programs of all phases; `known` maps the values that are in memory to what reads them."""

    def __init__(self, layout: Layout, steps: tuple[Step, ...], memory: int) -> None:
        self.layout, self.steps, self.program = layout, steps, layout.program
        self.order = loops_of(layout, roots_of(layout))
        self.kept = kept(layout, steps)
        self.shared = self.memory = memory
        self.known: dict[Value, Value] = {}

    def programs(self) -> Iterator[Program]:
        """Yield the programs of the phases in order."""
        held: set[Value] = set()
        phase = 0
        for step, wanted in zip(self.steps, self.kept, strict=True):
            made: dict[Value, Value] = {}
            outputs = {
                self.program.position(root.output): substituted(self.program.outputs[root.output], self.known, made)
                for root in step.roots
                if root.output is not None
            }
            keep = [one for one in wanted if one.value not in held]
            cut = self._cut(step, [substituted(one.value, self.known, made) for one in keep], made)
            held |= {*(one.value for one in keep), *(root.value for root in step.parts if cut is None)}
            after = {one.value: self._hold(one, outputs, made) for one in keep}
            for root in step.parts:
                after[root.value] = self._part(root, cut, outputs, made)
            self.known |= after
            if outputs:
                yield self._program(phase, outputs, cut)
                phase += 1

    def _program(self, phase: int, outputs: dict[int, Value], cut: Cut | None) -> Program:
        where = tuple(outputs)
        values = tuple(outputs.values())
        return replace(
            self.program, outputs=values, types=(), positions=where, phase=phase, shared=self.shared, cut=cut
        )

    def _hold(self, one: Kept, outputs: dict[int, Value], made: dict[Value, Value]) -> Value:
        """Write a value to an output, or to memory of its own; return what reads it."""
        value = one.value
        if one.home is None:
            axes = tuple(self.layout.atoms(loop) for loop in self._sorted(self.layout.flat(value.axes)))
            return self._write(value, axes, value.axes, outputs, made)
        position, axes = self.program.position(one.home), self.program.outputs[one.home].axes
        if position not in outputs:
            outputs[position] = Elementwise(value.dtype, axes, "view", (substituted(value, self.known, made),))
        return self._read(value.dtype, value.axes, axes, position)

    def _part(self, root: Root, cut: Cut | None, outputs: dict[int, Value], made: dict[Value, Value]) -> Value:
        """Write the parts of a reduction; return their fold."""
        assert isinstance(root.value, Reduce)
        if cut is None:
            return self._hold(Kept(root.value), outputs, made)
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
        order = loops_of(inside, roots_of(inside))
        domains = [self._inner(root.domain, inside) for root in step.roots]
        shared = set.intersection(*(self._inner(frozenset(root.own), inside) for root in step.roots))
        outer = {loop for loop in shared if order.index(loop) < order.index(seed)}
        inner = set().union(*domains) - outer - {seed}
        vectors = any(self._inner(frozenset(root.own), inside) & inner for root in step.parts)
        elements: int = prod(loop.size.factor * UNKNOWN ** len(loop.size.names) for loop in inner)
        length = max(1, BLOCK // max(elements, 1))
        if vectors:
            length = max(length, LEAST_ROWS, 0 if seed.size.names else -(-seed.size.factor // MOST_VECTORS))
        return length if length < ROUND else length // ROUND * ROUND

    def _inner(self, loops: frozenset[Atom], inside: Layout) -> set[Atom]:
        return {inside.loop(atom) for loop in loops for atom in self.layout.atoms(loop)}


def blocks_of(size: Size, length: int) -> Size:
    """Return the number of blocks of a loop: a number, or a name of its own."""
    return Size(1, (f"ceil({size}/{length})",)) if size.names else Size(-(-size.factor // length))
