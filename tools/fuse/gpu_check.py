"""What must hold between a schedule for a GPU and its rendering, checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sartor.tools.fuse.axes import size_of
from sartor.tools.fuse.gpu_schedule import Axis, GpuSchedule, Phase, Walk
from sartor.tools.fuse.schedule import Leaf, Root, reads, stored

ELEMENTS_LIMIT = 1 << 20
"""Elements of a tile beyond which Triton refuses it."""


class BrokenScheduleError(Exception):
    """A schedule would compute something else than its program: a mistake of ours."""


def check_schedule(schedule: GpuSchedule) -> None:
    """Raise BrokenScheduleError for a schedule that no kernel can follow."""
    placed = [root for phase in schedule.phases for root in phase.roots]
    _require(len(placed) == len(set(placed)) and set(placed) == set(schedule.roots), "a root is missing or done twice")
    for phase in schedule.phases:
        _check_axes(phase)
        _check_masks(phase)
    _Reads(schedule).check()


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise BrokenScheduleError(message)


def _check_axes(phase: Phase) -> None:
    """Every loop lies on one axis, every tile dimension takes one axis, and every root sees all of an axis or none."""
    atoms = [atom for axis in phase.axes for atom in axis.atoms]
    _require(len(atoms) == len(set(atoms)), "a loop lies on two axes")
    dims = [axis.dim for axis in phase.axes if axis.dim is not None]
    _require(len(dims) == len(set(dims)), "two axes share a tile dimension")
    _require(sum(axis.spread for axis in phase.axes) == (phase.spread is not None), "the spread axis is not one")
    for axis in phase.axes:
        _require(axis.dim is not None or not axis.whole, "a whole axis has no tile dimension")
        for root in phase.roots:
            alike = {(atom in root.own, atom in root.over) for atom in axis.atoms}
            _require(len(alike) == 1, "a root treats the loops of an axis differently")
    for root in phase.roots:
        _require(root.domain <= set(atoms), "a loop of a root has no axis")


def _check_masks(phase: Phase) -> None:
    """Only a whole axis whose size is a known power of two always fills its tile."""
    for axis in phase.axes:
        size = axis.size
        fills = axis.whole and not size.names and size.factor & (size.factor - 1) == 0
        _require(axis.dim is None or axis.masked or fills, "a partial tile has no mask")


class _Reads:
    """Follows a schedule in the order of execution and asks of every read where the value is then."""

    def __init__(self, schedule: GpuSchedule) -> None:
        self.schedule = schedule
        self.known = stored(schedule.roots)
        self.ended: set[Root] = set()
        self.parts: set[Root] = set()
        self.held: list[set[Root]] = [set()]

    def check(self) -> None:
        """Raise BrokenScheduleError for a value that is read before it is complete or where nobody holds it."""
        for phase in self.schedule.phases:
            self.held = [set()]
            opened = {axis for axis in phase.axes if axis.whole or axis.spread}
            self._items(phase, phase.tree, opened)
            # After the barrier, what all programs have left is there.
            self.ended |= {root for root in phase.roots if root.folds}
            self.parts.clear()

    def _items(self, phase: Phase, items: Iterable[Walk | Leaf], opened: set[Axis]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._root(phase, root, opened)
                continue
            _require(item.axis not in opened, "a loop is walked over twice")
            self.held.append(set())
            self._items(phase, item.body, opened | {item.axis})
            self.held.pop()
            self._complete(phase, [root for root in item.roots if root.folds], opened)

    def _root(self, phase: Phase, root: Root, opened: set[Axis]) -> None:
        _require(set(phase.axes_of(root.domain)) <= opened, "a root is computed outside its loops")
        for other in reads(root, self.known):
            _require(other not in self.parts, "a reduction over the spread axis is read before a barrier")
            held = any(other in names for names in self.held)
            kept = other in self.ended and other in self.schedule.scratch
            _require(held or kept, "a value is read before it is made or where it is not held")
        if root.folds:
            self._complete(phase, [root], opened)

    def _complete(self, phase: Phase, roots: Iterable[Root], opened: set[Axis]) -> None:
        """Note the reductions of which no loop is open any more but the spread one."""
        for root in roots:
            walked = {axis for axis in phase.axes_of(root.over) if not axis.whole and not axis.spread}
            if walked & opened or root in self.ended or root in self.parts:
                continue
            if phase.partial(root):
                self.parts.add(root)
                continue
            own = set(phase.axes_of(root.own))
            _require(own <= opened, "an accumulator lies outside the loops that index it")
            self.held[-1].add(root)
            self.ended.add(root)


def check_tiles(schedule: GpuSchedule, tiles: tuple[tuple[int, int], ...], names: Mapping[str, int]) -> None:
    """Raise BrokenScheduleError for tiles that Triton refuses or that do not hold their whole axes."""
    _require(len(tiles) == len(schedule.phases), "a phase has no tile")
    for phase, tile in zip(schedule.phases, tiles, strict=True):
        _require(all(size > 0 and size & (size - 1) == 0 for size in tile), "a tile size is no power of two")
        _require(tile[0] * tile[1] <= ELEMENTS_LIMIT, "a tile is too large")
        for axis in phase.axes:
            if axis.whole and axis.dim is not None:
                size = size_of(axis.size, names)
                _require(size is not None and size <= tile[axis.dim], "a whole axis does not fit its tile")
                _require(axis.masked or size == tile[axis.dim], "a partial tile has no mask")
