"""Extra rows dealt to the clusters that they are most like, and what the clusters look like then (supplementary 1.2.7).

The usual form multiplies one-hot matrices; here rows stay bytes. A row is compared with all clusters at once, column by
column: the clusters' bytes of a column lie side by side and fill vector registers, and gaps, which agree with nothing,
cost nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import CLASSES, GAP

NOTHING = 255
"""What no residue of a row is equal to."""


def nearest(centres: NDArray[np.uint8], rows: NDArray[np.uint8], extra: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return for each extra row, by its number in `rows` (D, L), the cluster (of S, L) with most equal residues.

    Gaps and masks count for nothing; of equals the first cluster is taken.
    """
    columns = np.ascontiguousarray(np.where(centres < GAP, centres, NOTHING).astype(np.uint8).T)
    return _nearest(columns, rows, extra)  # type: ignore[no-any-return]


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _nearest(columns: NDArray[np.uint8], rows: NDArray[np.uint8], extra: NDArray[np.int64]) -> NDArray[np.int32]:
    length, count = columns.shape
    out = np.empty(len(extra), np.int32)
    equal = np.empty(count, np.uint16)
    for number in range(len(extra)):
        row = rows[extra[number]]
        equal[:] = 0
        for column in range(length):
            residue = row[column]
            if residue < GAP:
                centres = columns[column]
                for cluster in range(count):
                    equal[cluster] += np.uint16(centres[cluster] == residue)
        best = 0
        for cluster in range(1, count):
            if equal[cluster] > equal[best]:
                best = cluster
        out[number] = best
    return out


def summarise(
    centres: NDArray[np.uint8],
    rows: NDArray[np.uint8],
    extra: NDArray[np.int64],
    cluster: NDArray[np.int32],
    crop: slice,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the share of every class in each cluster's columns (S, N, 23) of a crop, and how many rows it has (S,)."""
    counts, members = _count(centres[:, crop], rows[:, crop], extra, cluster)
    return (counts / members[:, None, None]).astype(np.float32), members


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _count(
    centres: NDArray[np.uint8], rows: NDArray[np.uint8], extra: NDArray[np.int64], cluster: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    depth, length = centres.shape
    counts = np.zeros((depth, length, CLASSES), np.float32)
    members = np.ones(depth, np.int64)
    for row in range(depth):
        for column in range(length):
            counts[row, column, centres[row, column]] += 1
    for number in range(len(extra)):
        row, into = rows[extra[number]], counts[cluster[number]]
        members[cluster[number]] += 1
        for column in range(length):
            into[column, row[column]] += 1
    return counts, members
