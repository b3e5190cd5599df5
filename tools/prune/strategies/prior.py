"""The closed-form allocation: counts that lose least by the residual curves, without evaluating any."""

from __future__ import annotations

import heapq

import numpy as np

from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.strategies.fit import filled

PARTS = 16
"""The steps in which a unit is emptied."""


def prior(problem: Problem) -> Counts:
    """Allocate a budget greedily.

    From full width take the step, a sixteenth of a unit's classes, with the least rise of the sum of residuals for what
    it saves, until the budget is met; then fill what is left, where a class brings most first.
    """
    counts = problem.sizes.copy()
    queue = [(*_price(problem, counts, unit), unit) for unit in range(problem.units)]
    heapq.heapify(queue)
    while queue and problem.costs.total(counts) > problem.budget:
        price, fewer, unit = heapq.heappop(queue)
        again = _price(problem, counts, unit)
        # What a step saves falls as the units that it is multiplied with shrink; a stale price is put back.
        if again[0] > price and queue and again[0] > queue[0][0]:
            heapq.heappush(queue, (*again, unit))
            continue
        if fewer < counts[unit]:
            counts[unit] = fewer
            heapq.heappush(queue, (*_price(problem, counts, unit), unit))
    gains = [problem.curves[unit][count] for unit, count in enumerate(counts)]
    return filled(problem, counts, np.argsort(-np.array(gains), kind="stable"))


def _price(problem: Problem, counts: Counts, unit: int) -> tuple[float, int]:
    """Return the rise of the residual for each unit of cost that the next step saves, and the count that it leaves."""
    step, least = int(problem.steps[unit]), int(problem.least[unit])
    part = max(round(problem.sizes[unit] / PARTS / step), 1) * step
    fewer = max(-(-(int(counts[unit]) - part) // step) * step, least)
    if fewer >= counts[unit]:
        return np.inf, int(counts[unit])
    trial = counts.copy()
    trial[unit] = fewer
    saved = problem.costs.total(counts) - problem.costs.total(trial)
    rise = problem.curves[unit][fewer] - problem.curves[unit][counts[unit]]
    return float(rise / max(saved, 1e-30)), fewer
