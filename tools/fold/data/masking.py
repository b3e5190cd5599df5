"""Residues hidden for the model to guess, and residues made unknown (AlphaFold 2, supplementary 1.2.7).

Shapes: S rows, L columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import MASKED, RESIDUES, UNKNOWN
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.draws import Purpose, key_of, uniform

Rows = NDArray[np.uint8]
_KINDS = len(RESIDUES)


def mask_rows(rows: Rows, profile: NDArray[np.float32], config: DataConfig, *drawn: int) -> tuple[Rows, Rows]:
    """Return rows (S, L) with masked residues replaced, and which are masked (S, L); `profile` is (L, 22)."""
    upto = np.cumsum([config.masked_uniform, config.masked_profile, config.masked_same])
    keys = (key_of(*drawn, Purpose.MASK), key_of(*drawn, Purpose.REPLACEMENT))
    return _mask_rows(rows, np.cumsum(profile, axis=1, dtype=np.float64), config.masked, upto, *keys)


@njit(nogil=True, cache=True, error_model="numpy")
def _mask_rows(
    rows: Rows, sums: NDArray[np.float64], share: float, upto: NDArray[np.float64], where: np.uint64, what: np.uint64
) -> tuple[Rows, Rows]:
    out, chosen = rows.copy(), np.zeros(rows.shape, np.uint8)
    depth, length = rows.shape
    for row in range(depth):
        for column in range(length):
            place = row * length + column
            if uniform(where, place) < share:
                chosen[row, column] = 1
                out[row, column] = _replacement(rows[row, column], sums[column], upto, uniform(what, place))
    return out, chosen


@njit(nogil=True, cache=True, error_model="numpy")
def _replacement(residue: int, sums: NDArray[np.float64], upto: NDArray[np.float64], draw: float) -> int:
    """Return what a draw from 0 to 1 makes of a masked residue; `sums` are the running sums of its column's profile."""
    if draw < upto[0]:
        return min(int(draw / upto[0] * _KINDS), _KINDS - 1)
    if draw < upto[1]:
        part = (draw - upto[0]) / (upto[1] - upto[0]) * sums[-1]
        for kind in range(len(sums)):
            if part < sums[kind]:
                return kind
        return len(sums) - 1
    return residue if draw < upto[2] else MASKED


def unknown_rows(rows: Rows, share: float, *drawn: int) -> Rows:
    """Return rows (D, L) of which a share of the places, gaps apart, is unknown."""
    return _unknown(rows, share, key_of(*drawn, Purpose.UNKNOWN_ROWS))


def unknown_residues(aatype: Rows, share: float, *drawn: int) -> Rows:
    """Return residues (L,) of which a share is unknown."""
    return np.asarray(_unknown(aatype[None], share, key_of(*drawn, Purpose.UNKNOWN_RESIDUES))[0])


@njit(nogil=True, cache=True, error_model="numpy")
def _unknown(rows: Rows, share: float, key: np.uint64) -> Rows:
    out = rows.copy()
    depth, length = rows.shape
    for row in range(depth):
        for column in range(length):
            if rows[row, column] < UNKNOWN and uniform(key, row * length + column) < share:
                out[row, column] = UNKNOWN
    return out
