"""The loops of one part of a numba kernel: from a schedule to the body of its tasks."""

from __future__ import annotations

from collections.abc import Callable

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom
from sartor.tools.fuse.program import Reduce
from sartor.tools.fuse.render.source import Placed
from sartor.tools.fuse.render.values import Values, factor
from sartor.tools.fuse.schedule import Leaf, Loop, Root

KNOWN = range(100, 256)
"""Constant trip counts that LLVM is told.

It unrolls shorter loops completely before it tries to vectorise them, and longer ones afterwards, until the vectors of
a row no longer fit the registers; in between it makes the best of a row's tail.
"""


def write_task(values: Values) -> list[str]:
    """Write what one task, the variable `task`, does.

    Raises NotEmittableError for what the schedule can't express.
    """
    return _Part(values).tasks()


class _Part:
    def __init__(self, values: Values) -> None:
        self.schedule = values.schedule
        self.values = values
        self.out = values.out
        self.accumulators: dict[Root, str] = {}

    def tasks(self) -> list[str]:
        """Find the indices of the parallel loops, then run the others."""
        rest = "task"
        atoms = list(self.schedule.parallel)
        for atom in reversed(atoms):
            count = self.values.loop_count(atom)
            index = rest if atom is atoms[0] else f"{rest} % {count}"
            if self.schedule.tile and atom is self.schedule.tile[1]:
                self.values.block = self.out.hold(Placed(f"{factor(index)} * {self.schedule.tile[2]}"), "lo")
                self.values.index[atom] = Placed(factor(index))
            else:
                self.values.index[atom] = self.out.hold(Placed(index), "k")
            if atom is not atoms[0]:
                rest = self.out.hold(Placed(f"{rest} // {count}"), "q").text
        self._branch(atoms, lambda: self._body(self.schedule.tree, ()))
        return self.out.blocks[0].lines

    def _branch(self, atoms: list[Atom], body: Callable[[], None]) -> None:
        """Run the body under `if`s where a parallel loop walks over a concatenation."""
        cut = next((atom for atom in atoms if len(self.values.pieces(atom)) > 1 and atom in self.values.index), None)
        if cut is None:
            body()
            return
        outer = self.values.index[cut]
        for low, high in self.values.pieces(cut):
            self.out.open()
            self.values.segments[cut], self.values.index[cut] = (low, high), Placed(outer.text, self.out.depth)
            self._branch(atoms[atoms.index(cut) + 1 :], body)
            self.out.close(f"if {outer.text} >= {low} and {outer.text} < {high}:")
        self.values.index[cut] = outer
        del self.values.segments[cut]

    def _body(self, items: tuple[Loop | Leaf, ...], above: tuple[Atom, ...]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._write(root)
            else:
                self._loop(item, above)

    def _loop(self, loop: Loop, above: tuple[Atom, ...]) -> None:
        parallel = set(self.schedule.parallel)
        opening = [root for root in loop.roots if root.folds and loop.atom in root.over and not root.over & set(above)]
        bound = parallel | set(above)
        for root in opening:
            self._begin(root, bound)
        variable = self.out.fresh("k")
        pieces = self.values.pieces(loop.atom)
        for low, high in pieces or [(0, 0)]:
            self.out.open()
            self.values.index[loop.atom] = Placed(variable, self.out.depth)
            if pieces:
                self.values.segments[loop.atom] = (low, high)
            self._body(loop.body, (*above, loop.atom))
            self.out.close(f"for {variable} in range({self._bounds(loop.atom, (low, high) if pieces else None)}):")
        del self.values.index[loop.atom]
        self.values.segments.pop(loop.atom, None)
        for root in opening:
            self._finish(root, bound)

    def _bounds(self, atom: Atom, piece: tuple[int, int] | None) -> str:
        tile = self.schedule.tile
        low, high = (str(piece[0]), str(piece[1])) if piece else ("0", self.values.size(atom))
        high = self._opaque(low, high)
        if tile and atom is tile[0] and self.values.block:
            end = f"min({self.values.block.text} + {tile[2]}, {high})"
            return f"{self.values.block.text}, {end}" if low == "0" else f"max({self.values.block.text}, {low}), {end}"
        return high if low == "0" else f"{low}, {high}"

    def _opaque(self, low: str, high: str) -> str:
        """Hide a constant trip count of which LLVM would make the wrong use."""
        if not high.isdigit() or int(high) - int(low) in KNOWN:
            return high
        zero = self.values.sizes.hide()
        return f"{high} + {zero}" if zero else high

    def _begin(self, root: Root, bound: set[Atom]) -> None:
        """Set an accumulator, or a buffer of them, to the neutral element."""
        assert isinstance(root.value, Reduce)
        kind = ops.compute_type(root.value.dtype)
        start = f"{kind}({ops.neutral(root.value.op, kind)})"
        if self._scalar(root, bound):
            name = self.out.fresh("a")
            self.out.line(f"{name} = {start}")
            self.accumulators[root] = name
            return
        order = self.values.slot_order(root)
        inner = [atom for atom in order if atom not in bound]
        assert order[len(order) - len(inner) :] == tuple(inner), "a buffer's inner loops are not innermost"
        base = (
            self.values.offset(order[: len(order) - len(inner)], {}, self.values.stored_count, shift=True)
            if len(inner) < len(order)
            else Placed("0")
        )
        count = " * ".join(self.values.stored_count(atom) for atom in inner)
        i = self.out.fresh("j")
        self.out.line(f"for {i} in range({count}):")
        place = i if base.text == "0" else f"{factor(base.text)} * {count} + {i}"
        self.out.line(f"    store_{kind}({self.values.slot(root, Placed(place), start)})")

    def _scalar(self, root: Root, bound: set[Atom]) -> bool:
        return set(root.own) <= bound

    def _finish(self, root: Root, bound: set[Atom]) -> None:
        """Make a finished accumulator readable in the block around its loops, and store it if others need it later."""
        name = self.accumulators.get(root)
        if name is None:
            return
        kind = ops.compute_type(root.value.dtype)
        if settled := _settled(root, name, kind):
            self.out.line(f"{name} = {settled}")
        if root in self.values.homes:
            self._keep(root, name)
        self.out.remember((root.value, ()), Placed(name, self.out.depth))

    def _write(self, root: Root) -> None:
        place = self.values.value(root.expression, {}) if root.folds else self.values.fresh_value(root)
        kind = ops.compute_type(root.value.dtype)
        if root.folds:
            self._accumulate(root, place, kind)
        elif root.output is not None:
            at = self.values.offset(root.own, {}, self.values.size)
            memory, number = ops.STORAGE[root.value.dtype].memory, self.values.tensor["out", self.values.position(root)]
            self.out.line(f"store_{memory}(y{self.values.position(root)}, {at.text}, {place.text}, {number})")
        elif root in self.values.homes:
            self._keep(root, place.text)
        if root.kept:
            self.out.blocks[-1].memo[(root.value, ())] = place

    def _accumulate(self, root: Root, place: Placed, kind: str) -> None:
        assert isinstance(root.value, Reduce)
        op, dtype = ops.REDUCTIONS[root.value.op], root.value.dtype
        name = self.accumulators.get(root)
        if name is not None:
            self.out.line(f"{name} = {kind}({ops.scalar_expression(op, dtype, [name, place.text])})")
            return
        old = f"load_{kind}({self.values.slot(root, self.values.slot_offset(root, {}))})"
        folded = f"{kind}({ops.scalar_expression(op, dtype, [old, place.text])})"
        self._keep(root, _settled(root, folded, kind) or folded)

    def _keep(self, root: Root, text: str) -> None:
        kind, at = ops.compute_type(root.value.dtype), self.values.slot_offset(root, {})
        self.out.line(f"store_{kind}({self.values.slot(root, at, text)})")


def _settled(root: Root, text: str, kind: str) -> str:
    """Spell what makes a number of a fold that LLVM may leave undefined; empty where a fold is always defined."""
    assert isinstance(root.value, Reduce)
    return f"settle_{kind}({text})" if root.value.op == "peak" else ""
