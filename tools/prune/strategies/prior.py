"""The closed-form allocation: counts that lose least by the residual curves, without evaluating any."""

from __future__ import annotations

from sartor.tools.prune.allocate import Unit, allocate
from sartor.tools.prune.problem import Counts, Problem


def prior(problem: Problem) -> Counts:
    """Allocate the budget greedily; raises UsageError where the least counts exceed it."""
    units = [Unit(curve, choices) for curve, choices in zip(problem.curves, problem.choices, strict=True)]
    return allocate(units, problem.costs, problem.budget)
