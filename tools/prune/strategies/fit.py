"""Counts that meet a budget: the uniform ones, and those nearest in ratio to any wish."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartor.tools.prune.problem import Counts, Floats, Problem

HALVINGS = 40


def fitted(problem: Problem, ratios: Floats, order: NDArray[np.int64]) -> Counts:
    """Scale ratios by one factor until their counts meet the budget, then fill what is left in an order of units.

    Where not even the least counts meet it, they are returned.
    """
    return filled(problem, scaled(problem, ratios[None])[0], order)


def scaled(problem: Problem, ratios: Floats) -> Counts:
    """Scale each row of ratios (times, units) by the largest factor with which it meets the budget."""
    low, high = np.zeros(len(ratios)), 1 / np.maximum(ratios.min(1), 1e-6)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        meets = problem.costs.totals(problem.nearest(ratios * middle[:, None])) <= problem.budget
        low, high = np.where(meets, middle, low), np.where(meets, high, middle)
    return problem.nearest(ratios * low[:, None])


def filled(problem: Problem, counts: Counts, order: NDArray[np.int64]) -> Counts:
    """Add steps, unit by unit in an order, as long as one fits the budget."""
    counts, costs = counts.copy(), problem.costs
    spent = costs.total(counts)
    open_units = [int(unit) for unit in order]
    while open_units:
        for unit in tuple(open_units):
            more = min(counts[unit] + problem.steps[unit], problem.sizes[unit])
            now, then = costs.of_units(counts, np.array([unit, unit]), np.array([counts[unit], more]))
            if more == counts[unit] or spent + then - now > problem.budget:
                open_units.remove(unit)
            else:
                counts[unit] = more
                spent = costs.total(counts)
    return counts


def uniform(problem: Problem) -> Counts:
    """Keep the same share of every unit."""
    return fitted(problem, np.ones(problem.units), np.arange(problem.units))
