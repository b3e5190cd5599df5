"""The closed-form allocation meets the budget, and keeps what matters."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from tests.kits import search_kit as kit

from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.strategies.fit import uniform
from sartor.tools.prune.strategies.prior import prior


def lost(problem: Problem, counts: Counts) -> float:
    """Return the sum of residuals."""
    return float(sum(curve[count] for curve, count in zip(problem.curves, counts, strict=True)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
def test_it_meets_the_budget_and_loses_less_than_uniform(seed: int, ratio: float) -> None:
    problem = kit.problem(seed, 10, ratio)
    counts = prior(problem)
    assert problem.costs.total(counts) <= problem.budget
    assert (counts >= problem.least).all()
    assert (counts <= problem.sizes).all()
    assert lost(problem, counts) <= lost(problem, uniform(problem))


@pytest.mark.parametrize("seed", range(8))
def test_it_is_near_the_best_there_is(seed: int) -> None:
    """Of all allocations of three units, on the sum of residuals."""
    problem = kit.problem(seed, 3, 0.5, step=1)
    every = [np.array(one) for one in product(*(range(1, size + 1) for size in problem.sizes))]
    best = min(lost(problem, one) for one in every if problem.costs.total(one) <= problem.budget)
    assert lost(problem, prior(problem)) <= best + 0.05


def test_the_whole_budget_keeps_everything() -> None:
    problem = kit.problem(3, ratio=1.0)
    np.testing.assert_array_equal(prior(problem), problem.sizes)


def test_what_is_worth_nothing_goes_first() -> None:
    problem = kit.problem(5, 6)
    curves = list(problem.curves)
    curves[2] = np.zeros_like(curves[2])
    assert prior(replace(problem, curves=tuple(curves)))[2] <= prior(problem)[2]
