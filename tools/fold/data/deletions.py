"""Deletions of rows and clusters, from where they are few: never a whole matrix of an alignment."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.parse.alignment import Deletions

Indices = NDArray[np.int64]


def of_rows(deletions: Deletions, depth: int, rows: Indices, crop: slice) -> NDArray[np.uint16]:
    """Return the deletions (n, N) of some of `depth` rows in a crop."""
    out = np.zeros((len(rows), crop.stop - crop.start), np.uint16)
    home = np.full(depth, -1, np.int64)
    home[rows] = np.arange(len(rows))
    _scatter(deletions.rows, deletions.columns, deletions.counts, home, crop.start, out)
    return out


def of_clusters(
    deletions: Deletions, depth: int, centres: Indices, extra: Indices, cluster: NDArray[np.int32], crop: slice
) -> NDArray[np.float32]:
    """Return the sum of deletions (S, N) over the rows of each cluster, its centre included, in a crop."""
    out = np.zeros((len(centres), crop.stop - crop.start), np.float32)
    home = np.full(depth, -1, np.int64)
    home[extra] = cluster
    home[centres] = np.arange(len(centres))
    _scatter(deletions.rows, deletions.columns, deletions.counts, home, crop.start, out)
    return out


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _scatter(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    counts: NDArray[np.uint16],
    home: Indices,
    start: int,
    out: NDArray[np.float32],
) -> None:
    """Add each count to the row of `out` that is the home of its row, where it has one."""
    length = out.shape[1]
    for number in range(len(rows)):
        row, column = home[rows[number]], columns[number] - start
        if row >= 0 and 0 <= column < length:
            out[row, column] += counts[number]
