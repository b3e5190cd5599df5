"""What an alignment holds, and how alignments of one sequence become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError


@dataclass(frozen=True)
class Deletions:
    """Letters that rows have before a column, where there are any: rows, columns (n,) ascending, and how many."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    counts: NDArray[np.uint16]

    def dense(self, depth: int, length: int) -> NDArray[np.uint16]:
        """Return the counts as a matrix (D, L)."""
        out = np.zeros((depth, length), np.uint16)
        out[self.rows, self.columns] = self.counts
        return out


@dataclass(frozen=True)
class Alignment:
    """Aligned rows (D, L) as numbers, the query first, and what was cut out to align them."""

    rows: NDArray[np.uint8]
    deletions: Deletions


def sparse(dense: NDArray[np.uint16]) -> Deletions:
    """Return the non-zero counts of a matrix (D, L)."""
    rows, columns = np.nonzero(dense)
    return Deletions(rows.astype(np.int32), columns.astype(np.int32), dense[rows, columns])


def alone(query: NDArray[np.uint8]) -> Alignment:
    """Return the alignment of a sequence (L,) with nothing."""
    return Alignment(query[None], sparse(np.zeros((1, len(query)), np.uint16)))


def merge(alignments: Sequence[Alignment]) -> Alignment:
    """Stack alignments of one query; of rows that are the same the first stays (AlphaFold 2, supplementary 1.2.1)."""
    rows = np.concatenate([one.rows for one in alignments])
    seen: dict[bytes, int] = {}
    for number, row in enumerate(rows):
        seen.setdefault(row.tobytes(), number)
    kept = np.fromiter(seen.values(), np.int64, len(seen))
    return Alignment(np.ascontiguousarray(rows[kept]), _moved(alignments, kept, len(rows)))


def _moved(alignments: Sequence[Alignment], kept: NDArray[np.int64], depth: int) -> Deletions:
    """Return the deletions of the rows that stay, by their new numbers."""
    starts = np.cumsum([0, *(len(one.rows) for one in alignments)])
    rows = np.concatenate([one.deletions.rows + start for one, start in zip(alignments, starts, strict=False)])
    columns = np.concatenate([one.deletions.columns for one in alignments])
    counts = np.concatenate([one.deletions.counts for one in alignments])
    place = np.full(depth, -1, np.int32)
    place[kept] = np.arange(len(kept))
    stays = place[rows] >= 0
    return Deletions(place[rows[stays]], columns[stays], counts[stays])


def require_query(alignment: Alignment, query: NDArray[np.uint8], subject: str) -> Alignment:
    """Return the alignment; raises InputRefusedError where its first row is not the sequence that it is for."""
    first = alignment.rows[0]
    if len(first) != len(query):
        reason = f"its first row has {len(first)} residues, the chain {len(query)}"
    else:
        known = (first < 20) & (query < 20)
        different = np.flatnonzero((first != query) & known)
        if len(different) == 0:
            return alignment
        reason = f"its first row differs from the chain at residue {different[0] + 1}"
    raise InputRefusedError(reason, subject=subject, remedy="Give the alignment of this chain")
