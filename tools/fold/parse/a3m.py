"""Alignments in a3m (HH-suite): capitals and dashes are columns, lower case stands between them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.share.console import one_line
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import ALIGNED, GAP, INSERTED, REFUSED
from sartor.tools.fold.parse.alignment import MOST_DELETED, Alignment, sparse

Bytes = NDArray[np.uint8]
_HEADER, _NEWLINE = ord(">"), ord("\n")
_GOOD, _RAGGED, _FOREIGN = 0, 1, 2


def parse_a3m(data: bytes, subject: str) -> Alignment:
    """Parse an a3m file; raises InputRefusedError that names the row that is not as long as the first, or foreign."""
    buffer = np.frombuffer(data, np.uint8)
    wrong, records, found, length = _measure(buffer, ALIGNED)
    if wrong == _RAGGED:
        reason = f"row {_named(data, records - 1)} has {found} columns, the first row has {length}"
        raise InputRefusedError(reason, subject=subject, remedy="Rows of an alignment have equal columns")
    if wrong == _FOREIGN:
        reason = f"row {_named(data, records - 1)} has the byte {chr(found)!r}, which is no residue"
        raise InputRefusedError(reason, subject=subject, remedy="Give an alignment of proteins in a3m")
    if not records or not length:
        raise InputRefusedError("it has no sequences", subject=subject, remedy="Give an alignment in a3m")
    # All rows are known to be as long as the first: the file itself bounds what is made.
    rows, cut = np.empty((records, length), np.uint8), np.zeros((records, length), np.uint16)
    _fill(buffer, ALIGNED, rows, cut)
    return Alignment(rows, sparse(cut))


def _named(data: bytes, record: int) -> str:
    """Return the number of a record, counted from 1, and its name."""
    headers = [line for line in data.split(b"\n") if line.startswith(b">")]
    words = headers[record][1:].split()
    return f"{record + 1} ({one_line(words[0].decode('utf-8', 'replace'))})" if words else str(record + 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _measure(buffer: Bytes, numbers: Bytes) -> tuple[int, int, int, int]:
    """Return what is wrong, the records up to there, the columns or the byte at fault, and the columns of the first."""
    records, column, length, at, size = 0, 0, 0, 0, len(buffer)
    while at < size:
        byte = buffer[at]
        if byte == _HEADER and (at == 0 or buffer[at - 1] == _NEWLINE):
            if records == 1:
                length = column
            elif records > 1 and column != length:
                return _RAGGED, records, column, length
            records, column = records + 1, 0
            at = _line_end(buffer, at)
        elif records > 0:
            if numbers[byte] == REFUSED:
                return _FOREIGN, records, byte, length
            column += numbers[byte] <= GAP
        at += 1
    if records == 1:
        length = column
    return (_GOOD if column == length else _RAGGED), records, column, length


@njit(nogil=True, cache=True, error_model="numpy")
def _line_end(buffer: Bytes, at: int) -> int:
    while at < len(buffer) and buffer[at] != _NEWLINE:
        at += 1
    return at


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(buffer: Bytes, numbers: Bytes, rows: Bytes, cut: NDArray[np.uint16]) -> None:
    """Write all records, whose columns were counted, and the letters between them."""
    record, column, between, at = -1, 0, 0, 0
    while at < len(buffer):
        number = numbers[buffer[at]]
        if buffer[at] == _HEADER and (at == 0 or buffer[at - 1] == _NEWLINE):
            record, column, between = record + 1, 0, 0
            at = _line_end(buffer, at)
        elif number == INSERTED:
            between += 1
        elif record >= 0 and number <= GAP:
            rows[record, column] = number
            cut[record, column] = min(between, MOST_DELETED)
            column, between = column + 1, 0
        at += 1
