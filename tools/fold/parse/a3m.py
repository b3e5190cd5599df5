"""Alignments in a3m (HH-suite): capitals and dashes are columns, lower case stands between them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import INSERTED, NUMBERS, REFUSED, SKIPPED
from sartor.tools.fold.parse.alignment import Alignment, sparse

GOOD, RAGGED, FOREIGN = 0, 1, 2

MOST = 65_535
"""Letters between two columns that are counted; AlphaFold looks at the arc tangent of a third of them."""


def parse_a3m(data: bytes, subject: str) -> Alignment:
    """Parse an a3m file; raises InputRefusedError that names the row where one is not as long as the first."""
    buffer = np.frombuffer(data, np.uint8)
    records, length = _measure(buffer, NUMBERS)
    if records == 0 or length == 0:
        raise InputRefusedError("it has no sequences", subject=subject, remedy="Give an alignment in a3m")
    rows = np.empty((records, length), np.uint8)
    cut = np.zeros((records, length), np.uint16)
    wrong, record, found = _fill(buffer, NUMBERS, rows, cut)
    if wrong == RAGGED:
        reason = f"row {record + 1} has {found} columns, the first has {length}"
        raise InputRefusedError(reason, subject=subject, remedy="Align it again; rows of an a3m have equal columns")
    if wrong == FOREIGN:
        reason = f"row {record + 1} has the byte {chr(found)!r}, which is no residue"
        raise InputRefusedError(reason, subject=subject, remedy="Give an alignment of proteins in a3m")
    return Alignment(rows, sparse(cut))


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _measure(buffer: NDArray[np.uint8], numbers: NDArray[np.uint8]) -> tuple[int, int]:
    """Count the records and the columns of the first."""
    records, length, at, size = 0, 0, 0, len(buffer)
    while at < size:
        if buffer[at] == 62:  # >
            records += 1
            while at < size and buffer[at] != 10:
                at += 1
        elif records == 1 and numbers[buffer[at]] < INSERTED:
            length += 1
        at += 1
    return records, length


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _fill(
    buffer: NDArray[np.uint8], numbers: NDArray[np.uint8], rows: NDArray[np.uint8], cut: NDArray[np.uint16]
) -> tuple[int, int, int]:
    """Write all records; return what is wrong, in which, and its columns or its byte."""
    record, column, between, at = -1, 0, 0, 0
    size, length = len(buffer), rows.shape[1]
    while at < size:
        byte = buffer[at]
        number = numbers[byte]
        if byte == 62:
            if record >= 0 and column != length:
                return RAGGED, record, column
            record, column, between = record + 1, 0, 0
            while at < size and buffer[at] != 10:
                at += 1
        elif record < 0 or number == SKIPPED:
            pass
        elif number == REFUSED:
            return FOREIGN, record, byte
        elif number == INSERTED:
            between += 1
        else:
            if column < length:
                rows[record, column] = number
                cut[record, column] = min(between, MOST)
            column, between = column + 1, 0
        at += 1
    if column != length:
        return RAGGED, record, column
    return GOOD, 0, 0
