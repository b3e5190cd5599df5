"""The share of each class in each column of an alignment (AlphaFold 2, supplementary 1.2.7)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import GAP

CLASSES = GAP + 1
"""Residues, unknown, gap."""


def profile_reference(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share (L, 22) of each class in each column of rows (D, L), by a one-hot matrix."""
    return np.asarray(np.eye(CLASSES, dtype=np.float32)[rows].sum(0) / np.float32(len(rows)), np.float32)


def profile_of(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share (L, 22) of each class in each column of rows (D, L), of which there is at least one."""
    return _count(rows) / np.float32(len(rows))


@njit(nogil=True, cache=True, error_model="numpy")
def _count(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    depth, length = rows.shape
    counts = np.zeros((length, CLASSES), np.int32)
    for row in range(depth):
        for column in range(length):
            counts[column, rows[row, column]] += 1
    return counts.astype(np.float32)
