"""Rows dealt to the clusters that they are most like, and what clusters look like (AlphaFold 2, supplementary 1.2.7).

The usual form multiplies one-hot matrices. Here rows stay bytes, and lie column by column: a residue of a centre is
compared with a column of a thousand rows at once, in vector registers, and gaps and masks, which agree with nothing,
cost nothing.

Shapes: S centres, K rows, L columns, N columns of a crop, J places of deletions.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import CLASSES, GAP

Rows = NDArray[np.uint8]
Indices = NDArray[np.int64]
_TILE = 1024
_BYTE = 255
"""Columns after which a count of equal residues might not fit a byte any more."""

TINY = np.float32(1e-6)
"""What AlphaFold adds to the number of rows of a cluster before it divides by it."""


def nearest_reference(centres: Rows, rows: Rows) -> NDArray[np.int32]:
    """Return for each row (K, L) the centre (S, L) with most equal residues, by one-hot matrices."""
    classes = np.eye(CLASSES, dtype=np.float32)
    # Gaps and masks have no weight.
    weighted = classes[centres] * (np.arange(CLASSES) < GAP)
    agreement = np.einsum("klc,slc->ks", classes[rows], weighted, optimize=True)
    return np.asarray(np.argmax(agreement, axis=1), np.int32)


def nearest(centres: Rows, columns: Rows) -> NDArray[np.int32]:
    """Return for each row the centre (S, L) with most equal residues, of several the first; `columns` is (L, K)."""
    return _nearest(centres, columns)


@njit(nogil=True, cache=True, error_model="numpy")
def _nearest(centres: Rows, columns: Rows) -> NDArray[np.int32]:
    count, (length, depth) = len(centres), columns.shape
    out = np.zeros(depth, np.int32)
    few, many, most = np.empty(_TILE, np.uint8), np.empty(_TILE, np.uint16), np.empty(_TILE, np.uint16)
    for start in range(0, depth, _TILE):
        size = min(_TILE, depth - start)
        most[:] = 0
        for centre in range(count):
            many[:] = 0
            for first in range(0, length, _BYTE):
                few[:] = 0
                for column in range(first, min(first + _BYTE, length)):
                    residue = centres[centre, column]
                    if residue < GAP:
                        _add_equal(few, columns[column, start : start + size], residue)
                for row in range(size):
                    many[row] += few[row]
            for row in range(size):
                # A row that agrees with no centre goes to the first.
                if many[row] > most[row]:
                    most[row] = many[row]
                    out[start + row] = centre
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _add_equal(counts: Rows, column: Rows, residue: int) -> None:
    for row in range(len(column)):
        counts[row] += np.uint8(column[row] == residue)


def summarise_reference(centres: Rows, rows: Rows, cluster: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the share (S, L, 23) of each class in each column of clusters, by one-hot matrices.

    A cluster is a centre (S, L) and those of the rows (K, L) that are dealt to it.
    """
    classes, count = np.eye(CLASSES, dtype=np.float32), len(centres)
    belongs = np.eye(count, dtype=np.float32)[cluster]
    members = TINY + np.ones(count, np.float32) + belongs.sum(0)
    sums = np.einsum("ks,klc->slc", belongs, classes[rows], optimize=True) + classes[centres]
    return np.asarray(sums / members[:, None, None], np.float32)


def members_of(cluster: NDArray[np.int32], extra: Indices, count: int) -> NDArray[np.float32]:
    """Return what the sums over each cluster are divided by (count,): its rows, the centre included, and a little."""
    rows = np.bincount(cluster[extra], minlength=count).astype(np.float32)
    return TINY + np.ones(count, np.float32) + rows


def summarise(
    centres: Rows, rows: Rows, extra: Indices, cluster: NDArray[np.int32], members: NDArray[np.float32], crop: slice,
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Write the share of each class in each column of clusters into `out` (S, N, 23), which is zero.

    A cluster is a centre (S, L) and those of the extra rows of (K, L) that are dealt to it.
    """
    _count(centres[:, crop], rows[:, crop], extra, cluster, out)
    out /= members[:, None, None]


@njit(nogil=True, cache=True, error_model="numpy")
def _count(centres: Rows, rows: Rows, extra: Indices, cluster: NDArray[np.int32], counts: NDArray[np.float32]) -> None:
    count, length = centres.shape
    one = np.float32(1)
    for row in range(count):
        for column in range(length):
            counts[row, column, centres[row, column]] += one
    for row in extra:
        into = counts[cluster[row]]
        for column in range(length):
            into[column, rows[row, column]] += one


@njit(nogil=True, cache=True, error_model="numpy")
def transposed(rows: Rows, chosen: Indices) -> tuple[Rows, Rows]:
    """Return the chosen of some rows (D, L) as rows (K, L), and as columns (L, K)."""
    count, length = len(chosen), rows.shape[1]
    taken, columns = np.empty((count, length), np.uint8), np.empty((length, count), np.uint8)
    for row in range(count):
        taken[row] = rows[chosen[row]]
    for first in range(0, count, 64):
        for column in range(length):
            for row in range(first, min(first + 64, count)):
                columns[column, row] = taken[row, column]
    return taken, columns
