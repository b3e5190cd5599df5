"""The explorer on random graphs: legal plans, never worse than none, the optimum where that is known, linear time."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from graphlib import TopologicalSorter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.tools.fuse.explore import (
    BEST,
    MOST_VERTICES,
    Pattern,
    Plan,
    Space,
    Vertex,
    bits,
    closes_cycle,
    connected,
    explore,
    reduce_patterns,
)  # fmt: skip

DISPATCH = 0.5


def space_of(edges: list[tuple[int, int]], count: int, seed: int, penalties: float = 0.0, barred: float = 0.0) -> Space:
    """Give a graph random savings; a share of the vertices loses by fusion, a share of the edges is barred."""
    generator = random.Random(seed)
    vertices = []
    for i in range(count):
        consumers = tuple(sorted({b for a, b in edges if a == i}))
        call = generator.uniform(0.1, 1.0) * (-3 if generator.random() < penalties else 1)
        not_allowed = frozenset(consumer for consumer in consumers if generator.random() < barred)
        outside = generator.random() < 0.2
        vertices.append(Vertex(consumers, call, generator.random(), generator.random(), outside, not_allowed))
    return Space(vertices, DISPATCH)


def random_space(seed: int, count: int, fan: int = 2) -> Space:
    """Make a random graph in topological order."""
    generator = random.Random(seed)
    edges = [
        (generator.randrange(max(0, i - 8), i), i) for i in range(1, count) for _ in range(generator.randint(0, fan))
    ]
    return space_of(edges, count, seed, penalties=0.2, barred=0.1)


def contracted_is_acyclic(space: Space, plan: Plan) -> bool:
    """Contract the patterns and sort what is left; graphlib raises where there is a cycle."""
    owner = {i: pattern.mask for pattern in plan.patterns for i in bits(pattern.mask)}
    unit = [owner.get(i, 1 << i) for i in range(len(space.vertices))]
    before: dict[int, set[int]] = {one: set() for one in unit}
    for i, vertex in enumerate(space.vertices):
        for consumer in vertex.consumers:
            if unit[i] != unit[consumer]:
                before[unit[consumer]].add(unit[i])
    TopologicalSorter(before).prepare()
    return True


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 3))
def test_plans_are_legal(seed: int, count: int, fan: int) -> None:
    """Patterns are disjoint, large enough, allowed, and leave the graph acyclic; no plan is worse than no fusion."""
    space = random_space(seed, count, fan)
    plans = explore(space)
    assert plans
    assert [plan.score for plan in plans] == sorted((plan.score for plan in plans), reverse=True)
    for plan in plans:
        assert sum(pattern.mask.bit_count() for pattern in plan.patterns) == plan.used.bit_count()
        assert contracted_is_acyclic(space, plan)
        assert plan.score >= 0
        for pattern in plan.patterns:
            assert 2 <= pattern.mask.bit_count() <= MOST_VERTICES
            assert pattern.score == pytest.approx(fresh_score(space, pattern.mask))
            assert not any(space.is_barred(i, pattern.mask) for i in bits(pattern.mask))


def fresh_score(space: Space, mask: int) -> float:
    """Score a pattern from its vertices, without what the space remembers."""
    return sum(space.share(i, mask) for i in bits(mask)) - DISPATCH


def optimum(space: Space) -> float:
    """Try every set of disjoint legal connected patterns."""
    count = len(space.vertices)
    legal = []
    for size in range(2, count + 1):
        for members in combinations(range(count), size):
            pattern = space.union([space.single(i) for i in members])
            if pattern is not None and pattern.score > 0 and len(connected(space, pattern.mask)) == 1:
                legal.append(pattern)

    def best(start: int, chosen: tuple[Pattern, ...], used: int) -> float:
        found = sum(pattern.score for pattern in chosen)
        for i in range(start, len(legal)):
            if not legal[i].mask & used and not closes_cycle(legal[i], chosen, used):
                found = max(found, best(i + 1, (*chosen, legal[i]), used | legal[i].mask))
        return found

    return best(0, (), 0)


def test_near_the_optimum() -> None:
    """On small graphs, penalties and forbidden edges included, plans reach nearly all that there is to save."""
    spaces = [random_space(seed, 7) for seed in range(60)]
    most = [optimum(space) for space in spaces]
    found = [explore(space)[0].score for space in spaces]
    assert sum(found) > 0.95 * sum(most)
    assert sum(one > 0.999 * other for one, other in zip(found, most, strict=True)) > 40


@pytest.mark.parametrize("seed", range(10))
def test_a_chain_is_one_pattern(seed: int) -> None:
    """Without penalties nothing speaks against stitching all of a chain or a diamond."""
    chain = space_of([(i, i + 1) for i in range(9)], 10, seed)
    assert [pattern.mask for pattern in explore(chain)[0].patterns] == [2**10 - 1]
    diamond = space_of([(0, 1), (0, 2), (1, 3), (2, 3)], 4, seed)
    assert [pattern.mask for pattern in explore(diamond)[0].patterns] == [15]


def test_two_producers_meet() -> None:
    """Producers without a common ancestor end in the pattern of the consumer in which they meet."""
    space = space_of([(0, 2), (1, 2), (2, 3)], 4, 1)
    assert [pattern.mask for pattern in explore(space)[0].patterns] == [15]


def test_a_vertex_that_loses_is_left_out() -> None:
    """A penalty larger than what its edges save keeps a vertex out; its neighbours still fuse."""
    space = space_of([(0, 1), (1, 2), (2, 3), (3, 4)], 5, 2)
    spoilt = list(space.vertices)
    spoilt[4] = replace(spoilt[4], call=-50.0)
    assert [pattern.mask for pattern in explore(Space(spoilt, DISPATCH))[0].patterns] == [0b01111]


def test_a_barred_edge_is_not_inside_a_pattern() -> None:
    """Two operators that no kernel takes together end in different patterns, by whatever way they are connected."""
    space = space_of([(0, 1), (1, 2), (2, 3), (0, 3)], 4, 3)
    barred = list(space.vertices)
    barred[0] = replace(barred[0], barred=frozenset({3}))
    for plan in explore(Space(barred, DISPATCH)):
        assert not any(pattern.mask & 1 and pattern.mask & 8 for pattern in plan.patterns)


def test_reduction_by_hand() -> None:
    """Two consumers with three candidates each have fifteen unions, of which the best three stay."""
    space = space_of([(0, 1), (0, 2), *((1, i) for i in (3, 4)), *((2, i) for i in (5, 6))], 7, 4)
    left = tuple(space.union([space.single(i) for i in picked]) for picked in ((1, 3), (1, 4), (1, 3, 4)))
    right = tuple(space.union([space.single(i) for i in picked]) for picked in ((2, 5), (2, 6), (2, 5, 6)))
    assert all(pattern is not None for pattern in (*left, *right))
    found = reduce_patterns(space, [left, right])  # type: ignore[arg-type]
    unions = [space.union([a, b]) for a in left for b in right]  # type: ignore[list-item]
    everything = sorted((p for p in (*left, *right, *unions) if p is not None), key=lambda pattern: pattern.rank)
    assert len(everything) == 15
    assert found == tuple(everything[:BEST])


def test_equal_input_gives_equal_plans() -> None:
    """Nothing depends on the order of sets or on what ran before."""
    assert explore(random_space(5, 50)) == explore(random_space(5, 50))


def test_time_grows_about_linearly() -> None:
    """Ten times as many vertices take no more than some twenty-five times as long; ten thousand take seconds."""
    spent = []
    for count in (1000, 10000):
        space = random_space(6, count)
        begin = time.process_time()
        explore(space)
        spent.append(time.process_time() - begin)
    assert spent[1] < 30
    assert spent[1] / spent[0] < 25
