"""The cost model in arrays counts what the products say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kits import search_kit as kit

from sartor.tools.prune.kernels.costs import product_costs, total_reference


@pytest.mark.parametrize("seed", range(10))
def test_totals_and_limits(seed: int) -> None:
    problem = kit.problem(seed)
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, problem.sizes + 1)
    costs = problem.costs
    assert costs.total(counts) == total_reference(costs, counts)
    np.testing.assert_array_equal(costs.totals(np.stack([counts, problem.sizes]))[0], costs.total(counts))
    for unit in range(problem.units):
        limit = costs.limit(counts, unit, problem.budget)
        for count in range(max(limit, 1), limit + 2):
            trial = counts.copy()
            trial[unit] = count
            assert (total_reference(costs, trial) <= problem.budget) == (count == limit)


def test_no_budget_has_no_limit_above_nothing() -> None:
    problem = kit.problem(0)
    assert problem.costs.limit(problem.sizes, 0, 1.0) == 0


def test_without_products_nothing_costs() -> None:
    assert product_costs(()).total(np.zeros(0, np.int64)) == 0
