"""What all strategies have in common, and those that need no learning."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.strategies.fit import filled, fitted, scaled

CHANGED = 0.3
"""The share of units that a step of the hill climb changes, at least one."""

TRIES = 16
"""Changes that are tried to find counts that are new."""

STEP = 0.15
"""The standard deviation of the change of a ratio."""


Transfer = Literal["none", "weights", "augmented"]
"""What an agent takes over from earlier searches."""


class Strategy(Protocol):
    """Proposes what to evaluate, and learns what it was worth; the same seed and rewards give the same proposals.

    `doubted` says whether it has lost its trust in a model of its own by the last reward.
    """

    doubted: bool

    def propose(self) -> Counts:
        """Return counts within the budget."""

    def observe(self, counts: Counts, reward: float) -> None:
        """Learn the standardised reward of what was proposed last."""

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return what was learned, by name."""


class Random:
    """The start, then ratios drawn evenly and scaled to the budget."""

    doubted = False

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

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return nothing."""
        return {}


def changed(problem: Problem, counts: Counts, rng: np.random.Generator, times: int) -> Counts:
    """Change the ratios of some units at random, and scale all to the budget: (times, units)."""
    shape = (times, problem.units)
    chosen = rng.random(shape) < CHANGED
    chosen[np.arange(times), rng.integers(problem.units, size=times)] = True
    ratios = counts / problem.sizes + chosen * rng.normal(0, STEP, shape)
    return scaled(problem, np.clip(ratios, problem.least / problem.sizes, 1))


class HillClimb:
    """(1+1): change the best so far a little, and keep what is no worse."""

    doubted = False

    def __init__(self, problem: Problem, start: Counts, seed: int) -> None:
        self._problem = problem
        self._rng = np.random.default_rng(seed)
        self._best, self._reward = start, -np.inf
        self._seen: set[bytes] = set()

    def propose(self) -> Counts:
        """Change the ratios of some units, and scale all to the budget, to what is new if some tries find any."""
        if not self._seen:
            return self._best
        order = self._rng.permutation(self._problem.units)
        tried = (filled(self._problem, one, order) for one in changed(self._problem, self._best, self._rng, TRIES))
        return next((one for one in tried if one.tobytes() not in self._seen), self._best)

    def observe(self, counts: Counts, reward: float) -> None:
        """Keep what is no worse."""
        self._seen.add(counts.tobytes())
        if reward >= self._reward:
            self._best, self._reward = counts, reward

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return nothing."""
        return {}
