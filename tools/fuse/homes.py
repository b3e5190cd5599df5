"""Where the values that a kernel keeps live: memory is used again once its last reader is done (AStitch, section 4.4).

A kept value lives from the first leaf that writes it to the last that reads it, both widened to the loops that they do
not share: outside those it is dead. Two values of one extent whose lives do not meet share memory. A value whose last
reader writes an output of the same element type at the same index lives in that output, as the exponentials of a
softmax do: what is kept then takes no memory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom
from sartor.tools.fuse.schedule import Root, Schedule, exact, leaves, paths, reads, stored


@dataclass(frozen=True)
class Life:
    """The first and the last leaf in which a value is needed."""

    first: int
    last: int


def homes(schedule: Schedule) -> dict[Root, Root]:
    """Map every root with a buffer to the root whose memory it uses: its own, an earlier one's or an output's."""
    lives = _Lives(schedule)
    found: dict[Root, Root] = {}
    for root in sorted(schedule.buffers, key=lambda root: lives.of[root].first):
        output = lives.output(root)
        if output in found.values():
            output = None
        found[root] = output or _left(root, found, lives) or root
    return found


class _Lives:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.where = paths(schedule.tree)
        ordered = [root for leaf in leaves(schedule.tree) for root in leaf.roots]
        self.order = {root: i for i, root in enumerate(ordered)}
        self.leaf = {root: i for i, leaf in enumerate(leaves(schedule.tree)) for root in leaf.roots}

    @cached_property
    def readers(self) -> dict[Root, list[Root]]:
        """Map every root with a buffer to those that read it, in the order in which they run."""
        known = stored(self.schedule.roots)
        out: dict[Root, list[Root]] = {root: [] for root in self.schedule.buffers}
        for reader in self.order:
            for root in reads(reader, known) & out.keys():
                out[root].append(reader)
        return out

    @cached_property
    def of(self) -> dict[Root, Life]:
        """Map every root with a buffer to its life."""
        return {root: self._life(root) for root in self.schedule.buffers}

    def _life(self, root: Root) -> Life:
        users, depth = [root, *self.readers[root]], 0
        for loop in self.where[root]:
            if not all(loop in self.where[user] for user in users):
                break
            depth += 1
        inside = [other for user in users for other in self._around(user, depth)]
        return Life(min(self.leaf[other] for other in inside), max(self.leaf[other] for other in inside))

    def _around(self, root: Root, depth: int) -> tuple[Root, ...]:
        """Return the roots in the outermost loop around a root below the loops that are shared."""
        path = self.where[root]
        return path[depth].roots if len(path) > depth else (root,)

    def output(self, root: Root) -> Root | None:
        """Return the output that is written, element by element, by the last reader of a value."""
        readers = self.readers[root]
        if root.folds or not readers or not exact(root.value):
            return None
        last, path = readers[-1], self.where[root]
        if last.output is None or last.value.dtype != root.value.dtype or set(last.own) != set(root.own):
            return None
        # Only where both are written along the same loop: a buffer is laid out as it is made.
        return last if path and path[-1].atom is last.own[-1] else None


def _left(root: Root, found: Mapping[Root, Root], lives: _Lives) -> Root | None:
    """Return memory of the same extent of which no user is alive any more."""
    for home in dict.fromkeys(found.values()):
        if home.output is not None or _extent(home, lives.schedule) != _extent(root, lives.schedule):
            continue
        users = [other for other, place in found.items() if place is home]
        if all(lives.of[other].last < lives.of[root].first for other in users):
            return home
    return None


def _extent(root: Root, schedule: Schedule) -> tuple[frozenset[Atom], int]:
    return frozenset(schedule.buffers[root]), ops.STORAGE[root.value.dtype].size
