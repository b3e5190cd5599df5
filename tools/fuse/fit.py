"""Fitting the cost model: non-negative least squares on relative errors, and how well a fit ranks and predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sartor.tools.fuse.coefficients import Quality

Array = np.ndarray[Any, np.dtype[np.float64]]

_ROUNDS = 20
_FLOOR = 0.05
"""Relative error below which samples count alike when errors are weighed."""

_TINY = 1e-10


def fit(amounts: Array, measured: Array) -> Array:
    """Find rates >= 0 with `amounts @ rates` close to `measured`, (samples, features) and (samples,).

    The sum of absolute relative errors is minimised, by least squares whose weights are adapted to the errors: a sample
    that the model can't explain must not bend all others.
    """
    scaled = amounts / measured[:, None]
    weights = np.ones_like(measured)
    rates = np.zeros(amounts.shape[1])
    for _ in range(_ROUNDS):
        rates = nnls(scaled * weights[:, None], weights)
        weights = np.maximum(np.abs(scaled @ rates - 1), _FLOOR) ** -0.5
    return rates


def nnls(matrix: Array, target: Array) -> Array:
    """Solve min |matrix @ x - target| for x >= 0 (Lawson and Hanson 1974, algorithm 23.10)."""
    norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0] = 1.0
    scaled = matrix / norms
    x, free = np.zeros(scaled.shape[1]), np.zeros(scaled.shape[1], bool)
    for _ in range(3 * scaled.shape[1]):
        slope = np.where(free, -np.inf, scaled.T @ (target - scaled @ x))
        if slope.max() <= _TINY * np.linalg.norm(target):
            break
        free[np.argmax(slope)] = True
        x = _feasible(scaled, target, x, free)
    return np.asarray(x / norms)


def _feasible(matrix: Array, target: Array, x: Array, free: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    """Move from `x` to the solution over the free variables, and bind those that would become negative."""
    while True:
        wanted = np.zeros_like(x)
        wanted[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
        below = free & (wanted <= 0)
        if not below.any():
            return wanted
        step = np.min(x[below] / np.maximum(x[below] - wanted[below], _TINY))
        x = x + step * (wanted - x)
        free &= ~(below & (x <= _TINY))
        x[~free] = 0.0


def quality(predicted: Sequence[float], measured: Sequence[float]) -> Quality:
    """Compare predictions with measurements."""
    errors = np.abs(np.array(predicted) / np.array(measured) - 1)
    facts = (spearman(predicted, measured) or 0.0, float(np.median(errors)), float(np.mean(errors)))
    return Quality(len(errors), *(round(fact, 4) for fact in facts))


def spearman(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Return the rank correlation of two sequences, ties sharing their mean rank; None for fewer than three pairs."""
    if len(left) < 3:
        return None
    a, b = (ranks - ranks.mean() for ranks in (_ranks(left), _ranks(right)))
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread else None


def _ranks(values: Sequence[float]) -> Array:
    array = np.array(values, float)
    below, same = (array[:, None] > array[None]).sum(1), (array[:, None] == array[None]).sum(1)
    return np.asarray(below + (same - 1) / 2)
