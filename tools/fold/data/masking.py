"""Residues of clusters hidden, for the model to guess (BERT's task; supplementary 1.2.7)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import MASKED
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.random import KIND, MASK, UNKNOWN, key_of, uniform


def mask_rows(
    rows: NDArray[np.uint8], profile: NDArray[np.float32], config: DataConfig, *seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return rows (S, L) with some residues replaced, and which were chosen (S, L); `profile` is (L, 22)."""
    chances = np.array([config.masked_uniform, config.masked_profile, config.masked_same])
    where, kind = key_of(*seed, MASK), key_of(*seed, KIND)
    return _mask(rows, profile, config.masked, np.cumsum(chances), where, kind)  # type: ignore[no-any-return]


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _mask(
    rows: NDArray[np.uint8],
    profile: NDArray[np.float32],
    share: float,
    upto: NDArray[np.float64],
    where: np.uint64,
    kind: np.uint64,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    out, chosen = rows.copy(), np.zeros(rows.shape, np.uint8)
    depth, length = rows.shape
    for row in range(depth):
        for column in range(length):
            counter = row * length + column
            if uniform(where, counter) >= share:
                continue
            chosen[row, column] = 1
            draw = uniform(kind, counter)
            if draw < upto[0]:
                out[row, column] = int(draw / upto[0] * 20)
            elif draw < upto[1]:
                out[row, column] = _pick(profile[column], (draw - upto[0]) / (upto[1] - upto[0]))
            elif draw >= upto[2]:
                out[row, column] = MASKED
    return out, chosen


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _pick(shares: NDArray[np.float32], draw: float) -> int:
    """Return the class whose part of the shares, laid end to end, a draw from 0 to 1 falls into."""
    total = 0.0
    for one in shares:
        total += one
    left = draw * total
    for number in range(len(shares)):
        left -= shares[number]
        if left < 0.0:
            return number
    return len(shares) - 1


def make_unknown(rows: NDArray[np.uint8], share: float, *seed: int) -> NDArray[np.uint8]:
    """Return rows (S, L) in which a share of residues, not of gaps, are unknown."""
    return _unknown(rows, share, key_of(*seed, UNKNOWN)) if share > 0 else rows  # type: ignore[no-any-return]


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _unknown(rows: NDArray[np.uint8], share: float, key: np.uint64) -> NDArray[np.uint8]:
    out = rows.copy()
    flat, source = out.reshape(-1), rows.reshape(-1)
    for at in range(len(flat)):
        if source[at] < 20 and uniform(key, at) < share:
            flat[at] = 20
    return out
