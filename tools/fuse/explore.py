"""The fusion explorer: disjoint patterns of vertices with the largest sum of scores (FusionStitching, section 4).

It works on numbered vertices in topological order and knows nothing of operators; patterns are sets of vertices, kept
as bit masks. What the paper leaves open is chosen here:

- *Split rule*: more than two consumers are cut into halves, which are reduced apart; of the two results the best of
  either, and the unions of one of each, go on.
- *Ties*: the higher score, then more vertices, then the lower mask, so that equal input gives equal plans.
- *Scores* add up over vertices, each vertex's share depending on which of its consumers are in the pattern: a pattern
  that grows by a producer is scored from the pattern before, overlapping unions anew. Inputs that two members share are
  not counted as saved.
- *Duplication*: a producer belongs to one pattern and is not copied into its consumers' patterns.
- *Remote fusion*: a virtual vertex produces all that have no producer; what its reduction proposes comes first. Parts
  of a pattern without an edge between them are taken apart at the end: packing.py merges kernels that have nothing to
  do with each other, once it is known which of them win.
- *Joins*: a pattern has one first vertex, so that two producers which meet in one consumer compete for it. After the
  beam, patterns with an edge between them are merged, and vertices moved over such edges, as long as the sum rises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

BEST = 3
"""Candidates of a vertex (k of the paper)."""

WIDTH = 3
"""States of the beam."""

MOST_VERTICES = 128
"""Vertices of one pattern: larger kernels take long to compile and save little more."""


WINDOW = 1024
"""Vertices that are explored together."""

ROUNDS = 4
"""Passes over the edges that refine a plan."""

LEAST_GAIN = 1e-9
"""Microseconds below which a change is no gain but rounding."""


@dataclass(frozen=True)
class Vertex:
    """One operator: its consumers in the space, and what is saved (microseconds) once it shares a kernel.

    `call` for its own dispatch; `read` for each of its consumers in the kernel; `write` if all consumers are there and
    nobody `outside` needs its value. A negative `call` is a penalty: what the operator loses inside a kernel. `barred`
    consumers can't be in one kernel with it.
    """

    consumers: tuple[int, ...]
    call: float
    read: float
    write: float
    outside: bool = False
    barred: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Pattern:
    """A set of vertices with its score, all that they reach, and all that reaches them."""

    mask: int
    score: float
    reach: int
    origin: int

    @property
    def rank(self) -> tuple[float, int, int]:
        """Order patterns, the best first."""
        return (-self.score, -self.mask.bit_count(), self.mask)

    @property
    def is_convex(self) -> bool:
        """Tell whether no path leaves the pattern and comes back."""
        return not self.reach & self.origin & ~self.mask


@dataclass(frozen=True)
class Plan:
    """Disjoint patterns and the sum of their scores."""

    patterns: tuple[Pattern, ...] = ()

    @property
    def score(self) -> float:
        """The sum of the patterns' scores."""
        return sum(pattern.score for pattern in self.patterns)

    @property
    def used(self) -> int:
        """The vertices in patterns."""
        out = 0
        for pattern in self.patterns:
            out |= pattern.mask
        return out


class Space:
    """Vertices in topological order; `dispatch` is the price (microseconds) of running a kernel."""

    def __init__(self, vertices: Sequence[Vertex], dispatch: float) -> None:
        self.vertices, self.dispatch = tuple(vertices), dispatch
        self.scores: dict[int, float] = {}

    @cached_property
    def reach(self) -> tuple[int, ...]:
        """Return, of each vertex, the vertices behind it."""
        out = [0] * len(self.vertices)
        for i in reversed(range(len(out))):
            for consumer in self.vertices[i].consumers:
                out[i] |= out[consumer] | 1 << consumer
        return tuple(out)

    @cached_property
    def origin(self) -> tuple[int, ...]:
        """Return, of each vertex, the vertices before it."""
        out = [0] * len(self.vertices)
        for i, vertex in enumerate(self.vertices):
            for consumer in vertex.consumers:
                out[consumer] |= out[i] | 1 << i
        return tuple(out)

    def window(self, start: int, stop: int) -> Space:
        """Return a run of vertices as a space of its own; consumers beyond it count as outside."""
        if start == 0 and stop >= len(self.vertices):
            return self
        return Space([_shifted(vertex, start, stop) for vertex in self.vertices[start:stop]], self.dispatch)

    def single(self, index: int) -> Pattern:
        """Return the pattern of one vertex, which saves nothing."""
        return Pattern(1 << index, 0.0, self.reach[index], self.origin[index])

    def pattern(self, mask: int) -> Pattern:
        """Return the pattern of a set of vertices."""
        reach = origin = 0
        for index in bits(mask):
            reach, origin = reach | self.reach[index], origin | self.origin[index]
        return Pattern(mask, self.score(mask), reach, origin)

    def share(self, index: int, mask: int) -> float:
        """Return what a vertex adds to the score of a pattern that it belongs to."""
        vertex = self.vertices[index]
        inside = [consumer for consumer in vertex.consumers if mask >> consumer & 1]
        whole = inside and len(inside) == len(vertex.consumers) and not vertex.outside
        return vertex.call + vertex.read * len(inside) + (vertex.write if whole else 0.0)

    def score(self, mask: int) -> float:
        """Return the score of a pattern: the shares of its vertices less one dispatch; a single vertex has none."""
        if not mask & (mask - 1):
            return 0.0
        if mask not in self.scores:
            self.scores[mask] = sum(self.share(i, mask) for i in bits(mask)) - self.dispatch
        return self.scores[mask]

    def is_barred(self, index: int, mask: int) -> bool:
        """Tell whether a vertex can't be in one kernel with some member of a pattern."""
        return any(mask >> other & 1 for other in self.vertices[index].barred)

    def union(self, patterns: Iterable[Pattern]) -> Pattern | None:
        """Join patterns; None if the result is too large, is barred or lets a path out and in again."""
        mask = reach = origin = 0
        for pattern in patterns:
            mask, reach, origin = mask | pattern.mask, reach | pattern.reach, origin | pattern.origin
        joined = Pattern(mask, self.score(mask), reach, origin)
        if mask.bit_count() > MOST_VERTICES or not joined.is_convex:
            return None
        return None if any(self.is_barred(i, mask) for i in bits(mask) if self.vertices[i].barred) else joined


def _shifted(vertex: Vertex, start: int, stop: int) -> Vertex:
    here = tuple(consumer - start for consumer in vertex.consumers if consumer < stop)
    barred = frozenset(consumer - start for consumer in vertex.barred if consumer < stop)
    outside = vertex.outside or len(here) < len(vertex.consumers)
    return replace(vertex, consumers=here, barred=barred, outside=outside)


def bits(mask: int) -> Iterator[int]:
    """Yield the positions of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def explore(space: Space) -> tuple[Plan, ...]:
    """Return the best plans, the best first.

    More than WINDOW vertices are explored one window of the topological order after the other, which keeps the time
    linear; no pattern lies in two windows, and none of two windows can close a cycle.
    """
    starts = range(0, len(space.vertices), WINDOW)
    found = [_explore(space.window(start, start + WINDOW)) for start in starts]
    plans = []
    for rank in range(max(map(len, found), default=0)):
        chosen = [plans_here[min(rank, len(plans_here) - 1)] for plans_here in found]
        masks = [p.mask << start for start, plan in zip(starts, chosen, strict=True) for p in plan.patterns]
        plans.append(Plan(tuple(map(space.pattern, masks))))
    return tuple(sorted(plans, key=_plan_rank))


def _explore(space: Space) -> tuple[Plan, ...]:
    candidates: list[tuple[Pattern, ...]] = [()] * len(space.vertices)
    for index in reversed(range(len(space.vertices))):
        candidates[index] = _candidates(space, index, candidates)
    sources = [i for i in range(len(space.vertices)) if not space.origin[i]]
    remote = reduce_patterns(space, [candidates[i] for i in sources])
    plans = _beam(space, [remote, *candidates])
    return tuple(sorted({refine(space, plan) for plan in plans}, key=_plan_rank))


def _plan_rank(plan: Plan) -> tuple[float, tuple[int, ...]]:
    return (-plan.score, tuple(pattern.mask for pattern in plan.patterns))


def _candidates(space: Space, index: int, known: Sequence[tuple[Pattern, ...]]) -> tuple[Pattern, ...]:
    """Return the best patterns whose first vertex is `index`."""
    consumers = [known[consumer] for consumer in space.vertices[index].consumers]
    grown = [_grow(space, index, tail) for tail in reduce_patterns(space, consumers)]
    return _best([space.single(index), *(pattern for pattern in grown if pattern is not None)])


def _grow(space: Space, index: int, tail: Pattern) -> Pattern | None:
    """Put a producer before a pattern of things that it reaches."""
    mask = tail.mask | 1 << index
    alone = not tail.mask & (tail.mask - 1)
    behind = sum(space.share(i, mask) for i in bits(tail.mask)) if alone else tail.score + space.dispatch
    score = space.share(index, mask) + behind - space.dispatch
    grown = Pattern(mask, score, space.reach[index], tail.origin | space.origin[index])
    legal = mask.bit_count() <= MOST_VERTICES and grown.is_convex and not space.is_barred(index, mask)
    return grown if legal else None


def reduce_patterns(space: Space, choices: Sequence[Sequence[Pattern]]) -> tuple[Pattern, ...]:
    """Return the best unions of at most one pattern of each choice (PatternReduction)."""
    if len(choices) > 2:
        half = len(choices) // 2
        choices = [reduce_patterns(space, choices[:half]), reduce_patterns(space, choices[half:])]
    unions = []
    for picked in product(*([None, *choice] for choice in choices)):
        patterns = [pattern for pattern in picked if pattern is not None]
        joined = patterns[0] if len(patterns) == 1 else space.union(patterns) if patterns else None
        unions += [] if joined is None else [joined]
    return _best(unions)


def _best(patterns: Iterable[Pattern]) -> tuple[Pattern, ...]:
    distinct = {pattern.mask: pattern for pattern in patterns}
    return tuple(sorted(distinct.values(), key=lambda pattern: pattern.rank)[:BEST])


def _beam(space: Space, candidates: Sequence[tuple[Pattern, ...]]) -> list[Plan]:
    """Walk over the vertices and keep the plans with the largest sums."""
    states: list[tuple[float, int, tuple[Pattern, ...]]] = [(0.0, 0, ())]
    for choice in candidates:
        worth = [pattern for pattern in choice if pattern.score > 0]
        grown = [
            (score + pattern.score, used | pattern.mask, (*patterns, pattern))
            for score, used, patterns in states
            for pattern in worth
            if not used & pattern.mask and not closes_cycle(pattern, patterns, used)
        ]
        states = sorted([*states, *grown], key=lambda state: (-state[0], state[1]))[:WIDTH]
    return [Plan(patterns) for _, _, patterns in states]


def closes_cycle(pattern: Pattern, others: Sequence[Pattern], used: int) -> bool:
    """Tell whether a path leads out of a pattern, through other contracted patterns, and back into it."""
    ahead = pattern.reach & ~pattern.mask
    if not ahead & used:
        return False
    rest = list(others)
    while True:
        met = [other for other in rest if other.mask & ahead]
        if not met:
            return bool(ahead & pattern.mask)
        rest = [other for other in rest if not other.mask & ahead]
        for other in met:
            ahead |= other.reach | other.mask


def refine(space: Space, plan: Plan) -> Plan:
    """Take unconnected parts apart, then merge patterns and move vertices along edges while the sum of scores rises."""
    parts = _Parts(space, [part for pattern in plan.patterns for part in connected(space, pattern.mask)])
    edges = [(i, consumer) for i, vertex in enumerate(space.vertices) for consumer in vertex.consumers]
    for _ in range(ROUNDS):
        if not sum(parts.merge(*edge) or parts.move(*edge) or parts.move(*edge[::-1]) for edge in edges):
            break
    return parts.plan()


def connected(space: Space, mask: int) -> list[Pattern]:
    """Split a set of vertices into those that edges connect."""
    near = dict.fromkeys(bits(mask), 0)
    for i in near:
        for consumer in space.vertices[i].consumers:
            if mask >> consumer & 1:
                near[i] |= 1 << consumer
                near[consumer] |= 1 << i
    out = []
    while mask:
        part, edge = 0, mask & -mask
        while edge:
            part |= edge
            ahead = 0
            for i in bits(edge):
                ahead |= near[i]
            edge = ahead & ~part
        mask &= ~part
        out.append(space.pattern(part))
    return out


class _Parts:
    """A plan under change: which pattern every vertex is in, single ones included."""

    def __init__(self, space: Space, patterns: Iterable[Pattern]) -> None:
        self.space = space
        self.alive = {pattern.mask: pattern for pattern in patterns if pattern.mask & (pattern.mask - 1)}
        self.owner = {i: pattern for pattern in self.alive.values() for i in bits(pattern.mask)}

    def plan(self) -> Plan:
        """Return the patterns that pay, in order of their first vertices."""
        worth = [pattern for pattern in self.alive.values() if pattern.score > 0]
        return Plan(tuple(sorted(worth, key=lambda pattern: pattern.mask & -pattern.mask)))

    def of(self, index: int) -> Pattern:
        """Return the pattern that a vertex is in."""
        return self.owner.get(index) or self.space.single(index)

    def merge(self, left: int, right: int) -> bool:
        """Unite the patterns of two vertices if that is legal and worth it."""
        one, other = self.of(left), self.of(right)
        return one.mask != other.mask and self._replace((one, other), [self.space.union((one, other))])

    def move(self, index: int, target: int) -> bool:
        """Move a vertex into another's pattern if that is legal and worth it; what it leaves may fall apart."""
        one, other = self.of(index), self.of(target)
        if one.mask == other.mask:
            return False
        rest = connected(self.space, one.mask & ~(1 << index))
        grown = self.space.union((self.space.single(index), other))
        return self._replace((one, other), [grown, *rest])

    def _replace(self, old: tuple[Pattern, ...], new: Sequence[Pattern | None]) -> bool:
        made = [pattern for pattern in new if pattern is not None]
        gain = sum(pattern.score for pattern in made) - sum(pattern.score for pattern in old)
        if len(made) < len(new) or gain <= LEAST_GAIN:
            return False
        gone = {pattern.mask for pattern in old}
        rest = {mask: pattern for mask, pattern in self.alive.items() if mask not in gone}
        for pattern in made:
            if not pattern.is_convex or closes_cycle(pattern, list(rest.values()), _used(rest)):
                return False
            if pattern.mask & (pattern.mask - 1):
                rest[pattern.mask] = pattern
        self.alive = rest
        self.owner.update({i: pattern for pattern in made for i in bits(pattern.mask)})
        return True


def _used(masks: Iterable[int]) -> int:
    out = 0
    for mask in masks:
        out |= mask
    return out
