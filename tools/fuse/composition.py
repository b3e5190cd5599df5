"""How the operators of a kernel hand on their values, in the words of FusionStitching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from sartor.tools.fuse import ops
from sartor.tools.fuse.layout import Layout
from sartor.tools.fuse.phases import phases
from sartor.tools.fuse.program import Load, Program, parts
from sartor.tools.fuse.schedule import Leaf, Loop, Schedule, schedule

SMALL_BYTES = 128 << 10
"""Calls that are known to move less run in one thread (share/runtime/ops.c)."""


def schedules(program: Program) -> tuple[Schedule, ...]:
    """Schedule the parts of a program, which share a kernel (kernel packing), in the order of their phases.

    Raises NotEmittableError as `schedule` does.
    """
    out: list[Schedule] = []
    memory = len(program.types)
    for number, part in enumerate(parts(program)):
        planned = list(_phased(replace(part, part=number), memory))
        written = [position for one in planned for position in one.layout.program.positions]
        memory = max([memory, *(position + 1 for position in written)])
        out += planned
    return tuple(sorted(out, key=lambda one: one.layout.program.phase))


def _phased(part: Program, memory: int) -> Iterator[Schedule]:
    """Yield one schedule where tasks share it, else those of phases, of which each has tasks."""
    single = schedule(part)
    if single.parallel or _is_small(single.layout):
        yield single
        return
    for phase in phases(part, memory):
        for piece in (phase,) if phase.cut else parts(phase):
            yield schedule(piece)


def _is_small(layout: Layout) -> bool:
    sizes = [
        (ops.STORAGE[value.dtype].size, [atom.size for atom in layout.flat(value.axes)])
        for value in (*layout.values, *layout.program.outputs)
        if isinstance(value, Load) or value in layout.program.outputs
    ]
    if any(size.names for _, axes in sizes for size in axes):
        return False
    return sum(width * prod(size.factor for size in axes) for width, axes in sizes) <= SMALL_BYTES


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
