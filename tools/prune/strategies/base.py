"""What all strategies have in common, and those that need no learning."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.strategies.fit import filled, fitted

CHANGED = 0.3
"""The share of units that a step of the hill climb changes, at least one."""

STEP = 0.15
"""The standard deviation of the change of a ratio."""


class Strategy(Protocol):
    """Proposes what to evaluate, and learns what it was worth; the same seed and rewards give the same proposals."""

    def propose(self) -> Counts:
        """Return counts within the budget."""

    def observe(self, counts: Counts, reward: float) -> None:
        """Learn the standardised reward of what was proposed last."""


class Random:
    """The start, then ratios drawn evenly and scaled to the budget."""

    def __init__(self, problem: Problem, start: Counts, seed: int) -> None:
        self._problem, self._start = problem, start
        self._rng = np.random.default_rng(seed)
        self._first = True

    def propose(self) -> Counts:
        """Draw ratios."""
        if self._first:
            self._first = False
            return self._start
        low = self._problem.least / self._problem.sizes
        ratios = low + (1 - low) * self._rng.random(self._problem.units)
        return fitted(self._problem, ratios, self._rng.permutation(self._problem.units))

    def observe(self, counts: Counts, reward: float) -> None:
        """Learn nothing."""


class HillClimb:
    """(1+1): change the best so far a little, and keep what is no worse."""

    def __init__(self, problem: Problem, start: Counts, seed: int) -> None:
        self._problem = problem
        self._rng = np.random.default_rng(seed)
        self._best, self._reward = start, -np.inf
        self._first = True

    def propose(self) -> Counts:
        """Change the ratios of some units, and scale all to the budget."""
        if self._first:
            return self._best
        count = self._problem.units
        chosen = self._rng.random(count) < CHANGED
        chosen[self._rng.integers(count)] = True
        ratios = self._best / self._problem.sizes + chosen * self._rng.normal(0, STEP, count)
        low = self._problem.least / self._problem.sizes
        order = self._rng.permutation(count)
        counts = fitted(self._problem, np.clip(ratios, low, 1), order)
        return filled(self._problem, counts, order)

    def observe(self, counts: Counts, reward: float) -> None:
        """Keep what is no worse."""
        self._first = False
        if reward >= self._reward:
            self._best, self._reward = counts, reward
