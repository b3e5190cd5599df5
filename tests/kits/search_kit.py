"""Made-up search problems whose rewards cost nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sartor.tools.prune.allocate import cost_of
from sartor.tools.prune.features import KINDS
from sartor.tools.prune.history import History, Run
from sartor.tools.prune.kernels.resources import AxisCount, NodeCost
from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.strategies.base import Strategy
from sartor.tools.prune.strategies.fit import uniform


def problem(seed: int, units: int = 8, ratio: float = 0.5, step: int = 2) -> Problem:
    """Make a chain of layers, each reading one unit and making the next; units matter unequally."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([8, 16, 32], units)
    ends = [AxisCount(3), *(AxisCount(0, ((u, 1),)) for u in range(units)), AxisCount(10)]
    costs = cost_of([NodeCost(float(9 * 4 ** rng.integers(2, 5)), pair) for pair in pairwise(ends)], units)
    curves = tuple((1 - np.arange(n + 1) / n) ** rng.uniform(0.7, 4) * rng.uniform(0.05, 1) for n in sizes)
    facts = np.zeros((units, len(KINDS) + 6))
    facts[:, 0], facts[:, len(KINDS)] = 1, np.log2(sizes) / 12
    least = np.full(units, step)
    budget = ratio * costs.total(sizes.astype(np.int64))
    names = tuple(f"layer{u}" for u in range(units))
    return Problem(names, sizes.astype(np.int64), least, np.full(units, step), curves, facts, costs, budget)


def score(made: Problem, counts: Counts, seed: int = 0) -> float:
    """Return an accuracy that falls with what is lost, more for some units than their residuals say."""
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, made.units)
    lost = sum(weights[u] * made.curves[u][count] for u, count in enumerate(counts))
    return float(0.1 + 0.8 * np.exp(-1.5 * lost))


def search(strategy: Strategy, made: Problem, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Run a strategy; return counts and scores."""
    base, original = score(made, uniform(made)), score(made, made.sizes)
    counts, scores = [], []
    for _ in range(episodes):
        counts.append(strategy.propose())
        assert made.costs.total(counts[-1]) <= made.budget
        scores.append(score(made, counts[-1]))
        strategy.observe(counts[-1], (scores[-1] - base) / (original - base))
    return np.array(counts), np.array(scores)


def history(made: Problem, counts: np.ndarray, scores: np.ndarray, learned: dict[str, np.ndarray]) -> History:
    """Make the history of a search."""
    base = uniform(made)
    run = Run(
        "m" * 64,
        "d" * 64,
        "accuracy",
        "flops",
        0.5,
        "ddpg",
        "uniform",
        0,
        "1/1",
        score(made, made.sizes),
        score(made, base),
    )
    return History(run, made, base, counts, scores, learned)
