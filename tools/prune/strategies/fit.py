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
    low, high = 0.0, float(1 / max(ratios.min(), 1e-6))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        meets = problem.costs.total(_scaled(problem, ratios, middle)) <= problem.budget
        low, high = (middle, high) if meets else (low, middle)
    return filled(problem, _scaled(problem, ratios, low), order)


def filled(problem: Problem, counts: Counts, order: NDArray[np.int64]) -> Counts:
    """Add steps, unit by unit in an order, as long as one fits the budget."""
    counts = counts.copy()
    open_units = list(order)
    while open_units:
        for unit in tuple(open_units):
            more = min(counts[unit] + problem.steps[unit], problem.sizes[unit])
            if more == counts[unit] or problem.costs.limit(counts, unit, problem.budget) < more:
                open_units.remove(unit)
            else:
                counts[unit] = more
    return counts


def uniform(problem: Problem) -> Counts:
    """Keep the same share of every unit."""
    return fitted(problem, np.ones(problem.units), np.arange(problem.units))


def _scaled(problem: Problem, ratios: Floats, factor: float) -> Counts:
    wanted = zip(ratios * factor, problem.sizes, strict=True)
    return np.array([problem.rounded(unit, ratio, size) for unit, (ratio, size) in enumerate(wanted)])
