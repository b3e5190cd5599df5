"""Bytes that a kernel moves, and how far from the core they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

from sartor.tools.fuse.coefficients import Caches

LINE = 64
"""Bytes that come into a cache together."""

Key = tuple[str, int]


@dataclass
class _Tensor:
    """A tensor in memory: its bytes, those of all passes over it, and the share of it that one task touches."""

    size: float
    passes: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Distances:
    """Bytes that come from beyond the first, second and third cache; each contains the next."""

    l2: float
    l3: float
    memory: float


@dataclass
class Traffic:
    """Collects what passes of innermost loops touch; within one pass a tensor comes into cache once."""

    tensors: dict[Key, _Tensor] = field(default_factory=dict)
    _touched: dict[Key, float] = field(default_factory=dict)

    def touch(self, key: Key, moved: float, size: float, share: float) -> None:
        """Note an access of a pass: bytes moved, bytes of the tensor, and the share of it that a task sees."""
        tensor = self.tensors.setdefault(key, _Tensor(size))
        tensor.share = max(tensor.share, share)
        self._touched[key] = min(size, self._touched.get(key, 0.0) + moved)

    def end_pass(self) -> None:
        """Add up a pass."""
        for key, moved in self._touched.items():
            self.tensors[key].passes += moved
        self._touched.clear()

    @property
    def footprint(self) -> float:
        """The bytes of a call that are touched at all."""
        return sum(min(tensor.passes, tensor.size) for tensor in self.tensors.values())

    def distances(self, caches: Caches, recent: float = 1.0) -> Distances:
        """Tell from where bytes come: first from where the last call left them, then from where the task did.

        `recent` is the share of what a call touches that was touched since the call last had the bytes.
        """
        first = self.footprint
        again = sum(tensor.passes for tensor in self.tensors.values()) - first
        task = sum(min(tensor.passes, tensor.size) * tensor.share for tensor in self.tensors.values())
        return Distances(
            *(first * beyond(first * recent, size) + again * beyond(task, size) for size in _levels(caches))
        )


def _levels(caches: Caches) -> tuple[int, int, int]:
    return caches.l1, caches.l2, caches.l3


def beyond(used: float, size: float) -> float:
    """Return the share of accesses that miss a cache: none up to half of it, all when it is exceeded.

    A cache is shared with outputs of the call before, code and the session, so that it does not serve until it is full.
    """
    return min(1.0, max(0.0, 2 * used / size - 1))


def misses(steps: float, stride: int, size: int, ways: int) -> float:
    """Return the share of accesses at a stride of bytes whose line is gone when the next run of the loop comes by.

    Strides that are multiples of a large power of two fall into few sets of the cache.
    """
    sets = size // (LINE * ways)
    lines = max(1, stride // LINE)
    return beyond(steps, sets // gcd(lines, sets) * ways)
