"""Allocation under a budget against the greedy definition, and against all allocations where there are few."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
from tests.prune.test_kernels_resources import random_nodes

from sartor.share.errors import UsageError
from sartor.tools.prune.allocate import (
    STEPS,
    Cost,
    Unit,
    allocate,
    choices_of,
    cost_of,
)
from sartor.tools.prune.kernels.resources import AxisCount, NodeCost

Array = np.ndarray


class FunctionCost(Cost):
    """A cost by any function from counts [B, U] to costs [B], of which nothing is known."""

    def __init__(self, function: Callable[[Array], Array], units: int) -> None:
        super().__init__(*vars(cost_of([], units)).values())
        object.__setattr__(self, "function", function)

    def total(self, counts: Array) -> float:
        """Return the cost at counts [U]."""
        return float(self.function(counts[None])[0])

    def of_units(self, counts: Array, units: Array, values: Array) -> Array:
        """Return the total [m] after each change."""
        changed = np.tile(counts, (len(units), 1))
        changed[np.arange(len(units)), units] = values
        return self.function(changed)

    def touched(self, unit: int) -> Array:
        """Return all units."""
        return np.arange(len(self.neighbours))


def drawn_units(count: int, seed: int, convex: bool = True) -> list[Unit]:
    """Draw curves that fall from one to zero and choices of one, four or eight classes."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        classes = int(rng.integers(1, 70))
        falls = rng.random(classes)
        falls = np.sort(falls)[::-1] ** 3 if convex else falls
        curve = np.append(1.0, 1 - np.cumsum(falls) / falls.sum()).clip(0)
        found.append(Unit(curve, choices_of(classes, int(rng.choice([1, 4, 8])), int(rng.integers(1, 12)))))
    return found


def chain(widths: list[int]) -> Callable[[Array], Array]:
    """Count multiply-adds of a chain of layers, where each unit is one layer's output and the next one's input."""

    def macs(counts: Array) -> Array:
        inputs = np.concatenate([np.full((len(counts), 1), 3), counts], axis=1)
        outputs = np.concatenate([counts, np.full((len(counts), 1), 10)], axis=1)
        return (inputs * outputs * np.array([*widths, 1])).sum(1).astype(float)

    return macs


def by_definition(units: list[Unit], total: Callable[[Array], float], budget: float) -> list[int]:
    """Allocate as the first paragraph of the module says, evaluating the whole cost each time."""
    counts = [int(unit.choices[-1]) for unit in units]

    def moved(u: int, value: int) -> list[int]:
        return [*counts[:u], value, *counts[u + 1 :]]

    while total(np.array(counts)) > budget:
        best = None
        for u, unit in enumerate(units):
            below = [k for k in unit.choices if k <= counts[u] - max(unit.choices[-1] // STEPS, 1)]
            target = int(below[-1] if below else unit.choices[0])
            if target < counts[u]:
                saved = total(np.array(counts)) - total(np.array(moved(u, target)))
                score = (unit.curve[target] - unit.curve[counts[u]]) / saved
                if best is None or score < best[0]:
                    best = score, u, target
        assert best is not None
        counts = moved(*best[1:])
    while True:
        best = None
        for u, unit in enumerate(units):
            above = [int(k) for k in unit.choices if k > counts[u]]
            if above and total(np.array(moved(u, above[0]))) <= budget:
                cost = total(np.array(moved(u, above[0]))) - total(np.array(counts))
                score = (unit.curve[counts[u]] - unit.curve[above[0]]) / cost
                if best is None or score > best[0]:
                    best = score, u, above[0]
        if best is None:
            return counts
        counts = moved(*best[1:])


@pytest.mark.parametrize("share", [0.99, 0.7, 0.5, 0.3])
@pytest.mark.parametrize("seed", range(6))
def test_allocation_is_the_greedy_one(seed: int, share: float) -> None:
    units = drawn_units(8, seed, convex=seed % 2 == 0)
    positions = np.random.default_rng(seed).integers(1, 100, 8).tolist()
    function = chain(positions)
    full, least = (float(function(np.array([[u.choices[end] for u in units]]))[0]) for end in (-1, 0))
    budget = least + share * (full - least)
    axes = [AxisCount(3), *(AxisCount(0, ((u, 1),)) for u in range(8)), AxisCount(10)]
    nodes = [NodeCost(p, (a, b)) for p, a, b in zip([*positions, 1], axes, axes[1:], strict=False)]
    expected = by_definition(units, lambda counts: float(function(counts[None])[0]), budget)
    for cost in (cost_of(nodes, 8), FunctionCost(function, 8)):
        assert allocate(units, cost, budget).tolist() == expected


def check(units: list[Unit], cost: Cost, budget: float, counts: Array) -> None:
    """Fail where the budget is exceeded or a unit could be wider by one choice."""
    assert cost.total(counts) <= budget
    for u, unit in enumerate(units):
        assert counts[u] in unit.choices
        wider = counts.copy()
        wider[u] = unit.choices[min(np.searchsorted(unit.choices, counts[u]) + 1, len(unit.choices) - 1)]
        assert wider[u] == counts[u] or cost.total(wider) > budget


@pytest.mark.parametrize("share", [1.0, 0.8, 0.5, 0.2, 0.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_budget_is_met_as_closely_as_choices_allow(seed: int, share: float) -> None:
    """For any network of any sharing of units."""
    units = drawn_units(30, seed, convex=False)
    cost = cost_of(random_nodes(30, 80, seed), 30)
    least, full = (cost.total(np.array([unit.choices[end] for unit in units])) for end in (0, -1))
    budget = least + share * (full - least)
    counts = allocate(units, cost, budget)
    check(units, cost, budget, counts)
    if share in (0, 1):
        assert counts.tolist() == [unit.choices[-1 if share else 0] for unit in units]


@pytest.mark.parametrize("seed", range(10))
def test_allocation_is_near_the_best_of_all(seed: int) -> None:
    """Among all allocations of three small units, few lose less."""
    rng = np.random.default_rng(seed)
    units = []
    for _ in range(3):
        falls = np.sort(rng.random(8))[::-1] ** 2
        units.append(Unit(np.append(1, 1 - np.cumsum(falls) / falls.sum()), np.arange(1, 9)))
    function = chain(rng.integers(1, 20, 3).tolist())
    every = np.array(list(itertools.product(range(1, 9), repeat=3)))
    costs = function(every)
    losses = sum(unit.curve[every[:, u]] for u, unit in enumerate(units))
    budget = 0.5 * float(function(np.array([[8, 8, 8]]))[0])
    counts = allocate(units, FunctionCost(function, 3), budget)
    check(units, FunctionCost(function, 3), budget, counts)
    loss = sum(float(unit.curve[count]) for unit, count in zip(units, counts, strict=True))
    fitting = losses[costs <= budget]
    assert np.mean(fitting < loss - 1e-12) < 0.03


def test_equal_costs_and_convex_curves_give_the_best() -> None:
    """Where every class costs the same and curves are convex, greedy is exact."""
    rng = np.random.default_rng(0)
    falls = [np.sort(rng.random(6))[::-1] for _ in range(3)]
    units = [Unit(np.append(f.sum(), f.sum() - np.cumsum(f)).clip(0), np.arange(1, 7)) for f in falls]
    cost = FunctionCost(lambda counts: counts.sum(1).astype(float), 3)
    every = np.array([c for c in itertools.product(range(1, 7), repeat=3) if sum(c) <= 9])
    losses = sum(unit.curve[every[:, u]] for u, unit in enumerate(units))
    assert allocate(units, cost, 9).tolist() == every[np.argmin(losses)].tolist()


def test_a_latency_of_plateaus() -> None:
    """Latency falls only with every eighth channel: steps between save nothing and are taken back."""
    units = [Unit(np.linspace(1, 0, 33), np.arange(1, 33)), Unit(np.linspace(2, 0, 33), np.arange(1, 33))]
    cost = FunctionCost(lambda counts: np.ceil(counts / 8).sum(1), 2)
    assert allocate(units, cost, 6.5).tolist() == [16, 32]
    assert allocate(units, cost, 2.0).tolist() == [8, 8]


def test_a_cost_that_falls_only_with_all_units() -> None:
    units = [Unit(np.linspace(1, 0, 9), np.arange(1, 9)) for _ in range(2)]
    assert allocate(units, FunctionCost(lambda counts: counts.max(1).astype(float), 2), 3).tolist() == [3, 3]


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    units = [Unit(np.linspace(1, 0, 9), np.arange(2, 9))]
    message = "the least that can be kept costs 2, more than the budget of 1"
    with pytest.raises(UsageError, match=message):
        allocate(units, FunctionCost(lambda counts: counts.sum(1).astype(float), 1), 1)


def test_neighbours_share_a_node() -> None:
    """A changed unit touches those in its nodes, all of whose other costs stay."""
    cost = cost_of(random_nodes(15, 20), 15)
    counts = np.random.default_rng(0).integers(1, 50, 15)
    units, values = np.arange(15), np.full(15, 7)
    before = cost.of_units(counts, units, values)
    for unit in range(15):
        changed = counts.copy()
        changed[unit] += 3
        differs = np.flatnonzero(cost.of_units(changed, units, values) != before)
        assert set(differs.tolist()) - {unit} == set(cost.touched(unit).tolist()) - {unit}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((20, 8, 1), [8, 16, 20]),
        ((16, 8, 9), [16]),
        ((16, 8, 8), [8, 16]),
        ((5, 8, 1), [5]),
        ((4, 1, 2), [2, 3, 4]),
        ((1, 1, 1), [1]),
    ],
)
def test_choices(arguments: tuple[int, int, int], expected: list[int]) -> None:
    assert choices_of(*arguments).tolist() == expected


def test_a_hundred_units_take_milliseconds() -> None:
    axes = [AxisCount(3), *(AxisCount(0, ((u, 1),)) for u in range(100)), AxisCount(10)]
    cost = cost_of([NodeCost(9.0, pair) for pair in itertools.pairwise(axes)], 100)
    rng = np.random.default_rng(0)
    units = [
        Unit(np.append(1, 1 - np.cumsum(np.sort(f)[::-1]) / f.sum()), choices_of(256, 8, 8))
        for f in rng.random((100, 256))
    ]
    budget = 0.5 * cost.total(np.full(100, 256))

    def seconds() -> float:
        started = perf_counter()
        check(units, cost, budget, allocate(units, cost, budget))
        return perf_counter() - started

    assert min(seconds() for _ in range(5)) < 0.5
