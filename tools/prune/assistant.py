"""The assistant: a model of the reward that judges many allocations, so that only the best is really evaluated.

The reward is taken to be a sum over units (Bayesian linear regression): a part that all networks share, in the
residuals of units, and a part of each unit. What the shared part is worth is learned from earlier searches, and from
this one; how much nothing explains is estimated from both. Candidates are judged by weights that are drawn anew from
what is known of them (Thompson sampling, arXiv 1707.02038), so that what is uncertain is tried as well.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.stats import spearmanr

from sartor.tools.prune.problem import Counts, Floats, Problem

NOISE, LEAST_NOISE = 0.1, 0.02
"""Standard deviation of a standardised reward that nothing explains: at first, and at least."""

SHARED, OWN = 1.0, 0.3
"""Standard deviations of weights before anything is known: of those that networks share, and of a unit."""

WINDOW, LEAST_CORRELATION = 20, 0.3

ROUNDS = 4
"""Times that noise and weights are worked out from each other."""


class Assistant:
    """Predicts rewards of counts, and knows how well."""

    def __init__(self, problem: Problem, earlier: Iterable[tuple[Problem, NDArray[np.int64], Floats]] = ()) -> None:
        self._problem = problem
        self._rows = np.zeros((0, _SHARED_ROW + 2 * problem.units))
        self._rewards: list[float] = []
        self._predictions: list[float] = []
        self._mean, self._precision = _known(problem, earlier)
        self._noise = NOISE
        self._weights, self._factor = self._mean, np.linalg.cholesky(self._precision)

    def predict(self, counts: Counts) -> Floats:
        """Return the expected rewards (times,) of counts (times, units)."""
        return np.asarray(_rows(self._problem, counts) @ self._weights)

    def draw(self, counts: Counts, rng: np.random.Generator) -> Floats:
        """Return rewards (times,) of counts (times, units) by weights that are drawn from what is known of them."""
        moved = solve_triangular(self._factor, rng.standard_normal(len(self._weights)), lower=True, trans="T")
        return np.asarray(_rows(self._problem, counts) @ (self._weights + moved))

    def observe(self, counts: Counts, reward: float) -> None:
        """Learn the reward of counts (units,), and remember what was expected."""
        row = _rows(self._problem, counts[None])
        self._predictions.append(float((row @ self._weights)[0]))
        self._rows = np.concatenate([self._rows, row])
        self._rewards.append(reward)
        self._solve()

    @property
    def trusted(self) -> bool:
        """Tell whether the last predictions ranked as the rewards did; at first they are trusted."""
        if len(self._rewards) < WINDOW:
            return True
        expected, found = self._predictions[-WINDOW:], self._rewards[-WINDOW:]
        if np.ptp(expected) == 0 or np.ptp(found) == 0:
            return False
        return bool(spearmanr(expected, found).statistic >= LEAST_CORRELATION)

    def _solve(self) -> None:
        """Work out the weights, and the noise from what they leave (MacKay 1992, equation 2.5)."""
        rows, rewards = self._rows, np.array(self._rewards)
        for _ in range(ROUNDS):
            precision = self._precision + rows.T @ rows / self._noise**2
            factor = cho_factor(precision, lower=True)
            self._weights = cho_solve(factor, self._precision @ self._mean + rows.T @ rewards / self._noise**2)
            taken = float(np.sum(rows * cho_solve(factor, rows.T).T)) / self._noise**2
            left = float(np.sum((rows @ self._weights - rewards) ** 2)) + NOISE**2
            self._noise = max(np.sqrt(left / (max(len(rows) - taken, 0) + 1)), LEAST_NOISE)
        self._factor = np.tril(factor[0])


_SHARED_ROW = 4


def residuals(problem: Problem, counts: Counts) -> Floats:
    """Return what each unit loses, (times, units), for counts of that shape."""
    return np.column_stack([curve[column] for curve, column in zip(problem.curves, counts.T, strict=True)])


def _shared(lost: Floats) -> Floats:
    """Return the features that networks share: a constant, and the sum of residuals on three scales."""
    whole = lost.sum(1)
    return np.column_stack([np.ones(len(whole)), whole, np.sqrt(whole), np.log10(1e-3 + whole)])


def _rows(problem: Problem, counts: Counts) -> Floats:
    lost = residuals(problem, counts)
    return np.column_stack([_shared(lost), lost, counts / problem.sizes - 0.5])


def _known(problem: Problem, earlier: Iterable[tuple[Problem, NDArray[np.int64], Floats]]) -> tuple[Floats, Floats]:
    """Return mean and precision of all weights after earlier searches, each weighing as much as one of `WINDOW`."""
    shared, known = np.eye(_SHARED_ROW) * SHARED**-2, np.zeros(_SHARED_ROW)
    for other, counts, rewards in earlier:
        rows = _shared(residuals(other, counts))
        weight = min(WINDOW / max(len(rows), 1), 1.0) / NOISE**2
        shared += weight * rows.T @ rows
        known += weight * rows.T @ rewards
    size = _SHARED_ROW + 2 * problem.units
    mean, precision = np.zeros(size), np.eye(size) * OWN**-2
    mean[:_SHARED_ROW], precision[:_SHARED_ROW, :_SHARED_ROW] = np.linalg.solve(shared, known), shared
    return mean, precision
