"""A sequence found again in another of which it is a part, give or take some residues.

Shapes: n residues of the part, m of the whole.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

MATCH, MISMATCH, OPEN, EXTEND = 5, -4, -11, -1
"""Scores of equal and other residues, of the first and of each further residue of a gap."""

_LOW = -(1 << 29)


def align(part: NDArray[np.uint8], whole: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the place in the whole (m,) of each residue of the part (n,), or -1 where it has none.

    All of the part is aligned to any piece of the whole: the ends of the whole cost nothing (Gotoh 1982).
    """
    return _align(part, whole)


@njit(nogil=True, cache=True, error_model="numpy")
def _align(part: NDArray[np.uint8], whole: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Fill tables of three states: residues side by side, a gap in the part, a gap in the whole; then walk back."""
    n, m = len(part), len(whole)
    best = np.full((3, n + 1, m + 1), _LOW, np.int32)
    came = np.zeros((3, n + 1, m + 1), np.uint8)
    best[0, 0, :] = 0
    for i in range(1, n + 1):
        for j in range(m + 1):
            if j > 0:
                state = _highest(best, i - 1, j - 1)
                score = MATCH if part[i - 1] == whole[j - 1] else MISMATCH
                best[0, i, j], came[0, i, j] = best[state, i - 1, j - 1] + score, state
                _gap(best, came, 1, i, j, i, j - 1)
            _gap(best, came, 2, i, j, i - 1, j)
    end = 0
    for j in range(m + 1):
        if best[_highest(best, n, j), n, j] > best[_highest(best, n, end), n, end]:
            end = j
    return _walk(came, _highest(best, n, end), n, end)


@njit(nogil=True, cache=True, error_model="numpy")
def _highest(best: NDArray[np.int32], i: int, j: int) -> int:
    state = 0
    for other in range(1, 3):
        if best[other, i, j] > best[state, i, j]:
            state = other
    return state


@njit(nogil=True, cache=True, error_model="numpy")
def _gap(best: NDArray[np.int32], came: NDArray[np.uint8], state: int, i: int, j: int, i0: int, j0: int) -> None:
    """Enter a gap that comes from (i0, j0): it begins there, or goes on."""
    opened, extended = best[0, i0, j0] + OPEN, best[state, i0, j0] + EXTEND
    best[state, i, j] = max(opened, extended)
    came[state, i, j] = 0 if opened >= extended else state


@njit(nogil=True, cache=True, error_model="numpy")
def _walk(came: NDArray[np.uint8], state: int, i: int, j: int) -> NDArray[np.int64]:
    where = np.full(i, -1, np.int64)
    while i > 0:
        before = came[state, i, j]
        if state == 0:
            where[i - 1] = j - 1
        i, j = i - (state != 1), j - (state != 2)
        state = before
    return where
