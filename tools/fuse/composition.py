"""How the operators of a kernel hand on their values, in the words of FusionStitching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, Size, axis_size
from sartor.tools.fuse.layout import Layout
from sartor.tools.fuse.phases import UNKNOWN, blocks_of, phases
from sartor.tools.fuse.program import Load, Program, parts
from sartor.tools.fuse.schedule import Leaf, Loop, Root, Schedule, schedule

FEW_TASKS = 16
"""Tasks below which threads may be idle."""

LARGE = 1 << 16
"""Elements from which on it pays to share one task."""

SMALL_BYTES = 128 << 10
"""Calls that are known to move less run in one thread (share/runtime/ops.c)."""


def schedules(program: Program) -> tuple[Schedule, ...]:
    """Schedule the parts of a program, which share a kernel (kernel packing), in the order of their phases.

    Raises NotEmittableError as `schedule` does.
    """
    out: list[Schedule] = []
    memory = len(program.types)
    for number, part in enumerate(parts(program)):
        planned = _planned(replace(part, part=number), memory)
        written = [position for one in planned for position in one.layout.program.positions]
        memory = max([memory, *(position + 1 for position in written)])
        out += planned
    return tuple(sorted(out, key=lambda one: one.layout.program.phase))


def _planned(part: Program, memory: int) -> list[Schedule]:
    """Return one schedule where its tasks are enough, else those of phases."""
    single = schedule(part)
    if _is_small(single.layout) or not (_is_lonely(single) or _is_scattered(single)):
        return [single]
    found = phases(part, memory)
    if len(found) == 1:
        return [single]
    return [schedule(piece) for phase in found for piece in ((phase,) if phase.cut else parts(phase))]


def _is_lonely(planned: Schedule) -> bool:
    """Tell whether tasks are known to be few, and one of them large."""
    tile, tasks = planned.tile, Size()
    if not any(root.folds for root in planned.roots) or (tile and tile[0].size.names):
        return False
    for loop in planned.parallel:
        tasks = tasks * (blocks_of(tile[0].size, tile[2]) if tile and loop is tile[1] else loop.size)
    if tasks.factor >= FEW_TASKS or len(tasks.names) > 1:
        return False
    return tasks.is_one or max(_elements(planned, root) for root in planned.roots) >= LARGE


def _is_scattered(planned: Schedule) -> bool:
    """Tell whether a task reduces a long strip of columns, which lies apart in memory."""
    folds = [root for root in planned.roots if root.folds]
    tile = planned.tile
    if not tile or tile[1] not in planned.parallel or any(loop.size.names for root in folds for loop in root.domain):
        return False
    return any(_elements(planned, root) >= LARGE for root in folds)


def _elements(planned: Schedule, root: Root) -> int:
    """Count the elements of a root that one task computes."""
    inside = root.domain - set(planned.parallel)
    sizes = [Size(planned.tile[2]) if planned.tile and loop is planned.tile[0] else loop.size for loop in inside]
    return prod(size.factor * UNKNOWN ** len(size.names) for size in sizes)


def _is_small(layout: Layout) -> bool:
    """Tell whether the tensors of a program are known to have few bytes."""
    read = {value.position: value for value in layout.values if isinstance(value, Load)}
    tensors = [(value.dtype, layout.flat(value.axes)) for value in (*read.values(), *layout.program.outputs)]
    if any(loop.size.names for _, loops in tensors for loop in loops):
        return False
    return sum(ops.STORAGE[dtype].size * prod(x.size.factor for x in loops) for dtype, loops in tensors) <= SMALL_BYTES


def slices(planned: Sequence[Schedule]) -> Size:
    """Return into how many slices that need nothing of each other the tasks of all phases fall.

    They are the outermost loops of the tasks as far as all phases have the same.
    """
    shared: set[tuple[Atom, ...]] = set.intersection(*(set(_outermost(one)) for one in planned))
    if phase_count(planned) < len(planned):
        return Size()
    return axis_size(max(shared, key=len))


def _outermost(planned: Schedule) -> Iterator[tuple[Atom, ...]]:
    """Yield the atoms of the first none, one, two, ... loops of the tasks."""
    for count in range(len(planned.parallel) + 1):
        yield tuple(atom for loop in planned.parallel[:count] for atom in planned.layout.atoms(loop))


def phase_count(planned: Sequence[Schedule]) -> int:
    """Return the number of phases of a kernel."""
    return 1 + planned[-1].layout.program.phase


def composition(parts: Sequence[Schedule]) -> str:
    """Name how the operators of a kernel hand on their values (FusionStitching, table 1).

    packing: parts of a kernel have no value in common; thread: in registers; warp: a row in cache between loops over
    it; block: several rows; global: over the whole tensor, in phases that follow one another or in one task.
    """
    if len({one.layout.program.part for one in parts}) > 1:
        return "packing"
    planned = parts[0]
    if len(parts) > 1:
        return "global"
    if not any(root.folds for root in planned.roots):
        return "thread"
    if not planned.parallel:
        return "global"
    return "block" if _depth(planned.tree) > 1 else "warp"


def _depth(tree: Sequence[Loop | Leaf]) -> int:
    return max((1 + _depth(item.body) for item in tree if isinstance(item, Loop)), default=0)
