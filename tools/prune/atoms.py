"""Atoms: what can be removed of an axis, and which of them live or die together.

Every position along an axis of a tensor carries the number of an atom. Operators put the same atom at several places or
merge atoms; frozen atoms can't be removed. A class of merged atoms is the least that can be removed at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""The atoms along one axis, (size,)."""

_ROOM = 1024


class Atoms:
    """A union-find over atoms whose operations take whole axes at a time."""

    def __init__(self) -> None:
        self._parent = np.arange(_ROOM, dtype=np.int64)
        self._frozen: list[tuple[Labels, str]] = []
        self.count = 0

    def fresh(self, size: int) -> Labels:
        """Make new atoms for an axis."""
        first, self.count = self.count, self.count + size
        if self.count > len(self._parent):
            grown = np.arange(max(self.count, 2 * len(self._parent)), dtype=np.int64)
            grown[: len(self._parent)] = self._parent
            self._parent = grown
        return np.arange(first, self.count, dtype=np.int64)

    def find(self, labels: Labels) -> Labels:
        """Return the atom that stands for the class of each; any shape."""
        roots = self._parent[labels]
        while not np.array_equal(above := self._parent[roots], roots):
            roots = above
        self._parent[labels] = roots
        return roots

    def merge(self, left: Labels, right: Labels) -> None:
        """Let atoms live or die together, position by position; shapes as numpy broadcasts them."""
        left, right = np.broadcast_arrays(left, right)
        while True:
            a, b = self.find(left.reshape(-1)), self.find(right.reshape(-1))
            apart = a != b
            if not apart.any():
                return
            # Where one root is in several pairs the last one wins, and the next round joins the others.
            self._parent[np.maximum(a, b)[apart]] = np.minimum(a, b)[apart]

    def freeze(self, labels: Labels, reason: str) -> None:
        """Keep atoms, and all that live or die with them, for a reason that people can read."""
        if labels.size:
            self._frozen.append((labels.reshape(-1).copy(), reason))

    def roots(self) -> Labels:
        """Return the class of every atom."""
        return self.find(np.arange(self.count, dtype=np.int64))

    def frozen(self) -> NDArray[np.bool_]:
        """Tell of every atom whether its class is frozen."""
        roots = self.roots()
        marked = np.zeros(self.count, bool)
        for labels, _ in self._frozen:
            marked[roots[labels]] = True
        return marked[roots]

    def reasons(self, labels: Labels) -> tuple[str, ...]:
        """Return why atoms are frozen, the first reason first."""
        roots = set(self.find(labels).tolist())
        found = (reason for held, reason in self._frozen if roots & set(self.find(held).tolist()))
        return tuple(dict.fromkeys(found))


def joined(parts: Sequence[Labels]) -> Labels:
    """Lay axes end to end."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
