"""The assistant: a model of the reward that judges many walks, so that only the best is really evaluated.

The reward is taken to be a sum over units (Bayesian linear regression): a part that all networks share, in the
residuals of units, and a part of each unit. What the shared part is worth is learned from earlier searches, and from
this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from sartor.tools.prune.problem import Counts, Floats, Problem

NOISE = 0.05
"""Standard deviation of a standardised reward that nothing explains."""

SHARED, OWN = 1.0, 0.3
"""Standard deviations of weights before anything is known: of those that networks share, and of a unit."""

WINDOW, LEAST_CORRELATION = 20, 0.3


class Assistant:
    """Predicts rewards of counts, and knows how well."""

    def __init__(self, problem: Problem, earlier: Iterable[tuple[Problem, NDArray[np.int64], Floats]] = ()) -> None:
        self._problem = problem
        self._mean, self._precision = shared_prior(earlier)
        self._rows: list[Floats] = []
        self._rewards: list[float] = []
        self._predictions: list[float] = []
        self._weights: Floats = np.concatenate([self._mean, np.zeros(2 * problem.units)])

    def predict(self, counts: Counts) -> float:
        """Return the expected reward of counts."""
        return float(self._row(counts) @ self._weights)

    def observe(self, counts: Counts, reward: float) -> None:
        """Learn the reward of counts, and remember what was expected."""
        self._predictions.append(self.predict(counts))
        self._rows.append(self._row(counts))
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

    def _row(self, counts: Counts) -> Floats:
        lost = residuals(self._problem, counts)
        return np.concatenate([shared_row(lost), lost, counts / self._problem.sizes - 0.5])

    def _solve(self) -> None:
        rows, rewards = np.array(self._rows), np.array(self._rewards)
        size, own = rows.shape[1], 2 * self._problem.units
        precision = np.zeros((size, size))
        precision[:-own, :-own] = self._precision
        precision[range(size - own, size), range(size - own, size)] = OWN**-2
        known = precision[:, : size - own] @ self._mean
        self._weights = np.linalg.solve(precision + rows.T @ rows / NOISE**2, known + rows.T @ rewards / NOISE**2)


def residuals(problem: Problem, counts: Counts) -> Floats:
    """Return what each unit loses, (units,)."""
    return np.array([problem.curves[unit][int(count)] for unit, count in enumerate(counts)])


def shared_row(lost: Floats) -> Floats:
    """Return the features that networks share: a constant, and the sum of residuals on three scales."""
    whole = float(lost.sum())
    return np.array([1.0, whole, np.sqrt(whole), np.log10(1e-3 + whole)])


def shared_prior(earlier: Iterable[tuple[Problem, NDArray[np.int64], Floats]]) -> tuple[Floats, Floats]:
    """Return mean and precision of the shared weights after earlier searches, each weighing as much as one of 20."""
    size = len(shared_row(np.zeros(1)))
    precision, known = np.eye(size) * SHARED**-2, np.zeros(size)
    for problem, counts, rewards in earlier:
        rows = np.array([shared_row(residuals(problem, one)) for one in counts]).reshape(-1, size)
        weight = min(WINDOW / max(len(rows), 1), 1.0) / (2 * NOISE) ** 2
        precision += weight * rows.T @ rows
        known += weight * rows.T @ rewards
    return np.asarray(np.linalg.solve(precision, known), np.float64), precision


def best_of(assistant: Assistant, candidates: Sequence[Counts]) -> int:
    """Return the position of the candidate that is expected to be best, the first of equals."""
    return int(np.argmax([assistant.predict(counts) for counts in candidates]))
