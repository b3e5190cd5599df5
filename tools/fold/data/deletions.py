"""What was cut out of rows to align them: sparse in the store, dense for the few rows that a model sees.

Shapes: D rows of the alignment, K chosen ones, J places of deletions, S clusters, N columns of a crop.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.parse.alignment import Deletions

Indices = NDArray[np.int64]


def starts_of(deletions: Deletions, depth: int) -> Indices:
    """Return where the deletions of each row begin, and the end (D + 1,)."""
    return np.searchsorted(deletions.rows, np.arange(depth + 1)).astype(np.int64)


def dense(deletions: Deletions, starts: Indices, chosen: Indices, crop: slice, out: NDArray[np.uint16]) -> None:
    """Write the deletions of chosen rows (K,) in a crop into `out` (K, N), which is zero."""
    _dense(deletions.columns, deletions.counts, starts, chosen, crop.start, crop.stop, out)


@njit(nogil=True, cache=True, error_model="numpy")
def _dense(
    columns: NDArray[np.int32], counts: NDArray[np.uint16], starts: Indices, chosen: Indices, first: int, end: int,
    out: NDArray[np.uint16],
) -> None:  # fmt: skip
    for place in range(len(chosen)):
        for at in range(starts[chosen[place]], starts[chosen[place] + 1]):
            if first <= columns[at] < end:
                out[place, columns[at] - first] = counts[at]


def add(
    deletions: Deletions, starts: Indices, chosen: Indices, cluster: NDArray[np.int32], crop: slice,
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Add the deletions of chosen rows (K,) in a crop to those of the clusters (K,) they are in: `out` (S, N)."""
    _add(deletions.columns, deletions.counts, starts, chosen, cluster, crop.start, crop.stop, out)


@njit(nogil=True, cache=True, error_model="numpy")
def _add(
    columns: NDArray[np.int32], counts: NDArray[np.uint16], starts: Indices, chosen: Indices,
    cluster: NDArray[np.int32], first: int, end: int, out: NDArray[np.float32],
) -> None:  # fmt: skip
    for place in range(len(chosen)):
        for at in range(starts[chosen[place]], starts[chosen[place] + 1]):
            if first <= columns[at] < end:
                out[cluster[place], columns[at] - first] += np.float32(counts[at])
