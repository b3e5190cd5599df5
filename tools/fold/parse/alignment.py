"""Aligned rows as small integers, with the insertions that were cut out of them kept apart, sparse.

Shapes: D rows, L columns (the residues of the query), K places where something was cut out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import UNKNOWN

MOST_DELETED = 65535
"""A longer insertion counts as one of this length."""


@dataclass(frozen=True)
class Deletions:
    """How many letters (K,) were cut out before a column of a row, in the order of rows, then columns."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    counts: NDArray[np.uint16]


@dataclass(frozen=True)
class Alignment:
    """Rows (D, L) as numbers, the query first, and what was cut out to align them."""

    rows: NDArray[np.uint8]
    deletions: Deletions


def sparse(dense: NDArray[np.uint16]) -> Deletions:
    """Return the counts of a matrix (D, L) that are not zero."""
    rows, columns = np.nonzero(dense)
    return Deletions(rows.astype(np.int32), columns.astype(np.int32), dense[rows, columns])


def alone(query: NDArray[np.uint8]) -> Alignment:
    """Return the alignment of a sequence (L,) with nothing but itself."""
    nothing = np.zeros(0, np.int32)
    return Alignment(query[None], Deletions(nothing, nothing, nothing.astype(np.uint16)))


def stack(alignments: Sequence[Alignment]) -> Alignment:
    """Stack alignments of one query; of equal rows the first stays (AlphaFold 2, supplementary 1.2.2)."""
    rows = np.concatenate([one.rows for one in alignments])
    first: dict[bytes, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.tobytes(), number)
    kept = np.fromiter(first.values(), np.int64, len(first))
    return Alignment(np.ascontiguousarray(rows[kept]), _moved(alignments, kept, len(rows)))


def _moved(alignments: Sequence[Alignment], kept: NDArray[np.int64], depth: int) -> Deletions:
    """Return the deletions of the kept rows under their new numbers."""
    starts = np.cumsum([0, *(len(one.rows) for one in alignments)])
    rows = np.concatenate([one.deletions.rows + start for one, start in zip(alignments, starts, strict=False)])
    new = np.full(depth, -1, np.int32)
    new[kept] = np.arange(len(kept), dtype=np.int32)
    stays = new[rows] >= 0
    columns = np.concatenate([one.deletions.columns for one in alignments])
    counts = np.concatenate([one.deletions.counts for one in alignments])
    return Deletions(new[rows[stays]], columns[stays], counts[stays])


def for_query(alignment: Alignment, query: NDArray[np.uint8], subject: str) -> Alignment:
    """Return the alignment with the query (L,) itself as first row, which may know fewer or more of its residues.

    Raises InputRefusedError where the first row is another sequence.
    """
    first = alignment.rows[0]
    if len(first) != len(query):
        raise _another(f"its first row has {len(first)} residues, the chain has {len(query)}", subject)
    differing = np.flatnonzero((first != query) & (first < UNKNOWN) & (query < UNKNOWN))
    if len(differing):
        raise _another(f"its first row differs from the chain at residue {differing[0] + 1}", subject)
    rows = alignment.rows.copy()
    rows[0] = query
    return Alignment(rows, alignment.deletions)


def _another(reason: str, subject: str) -> InputRefusedError:
    return InputRefusedError(reason, subject=subject, remedy="Give the alignment of this chain")
