"""Alignments in a3m (HH-suite): capitals and dashes are columns, lower case stands between them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.share.console import one_line
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import ALIGNED, GAP, INSERTED, REFUSED, SKIPPED
from sartor.tools.fold.parse.alignment import MOST_DELETED, Alignment, sparse

Bytes = NDArray[np.uint8]
_HEADER, _NEWLINE = ord(">"), ord("\n")
_GOOD, _RAGGED, _FOREIGN = 0, 1, 2


def parse_a3m(data: bytes, subject: str) -> Alignment:
    """Parse an a3m file; raises InputRefusedError that names the row that is not as long as the first, or foreign."""
    buffer = np.frombuffer(data, np.uint8)
    records, length = _measure(buffer, ALIGNED)
    if not records or not length:
        raise InputRefusedError("it has no sequences", subject=subject, remedy="Give an alignment in a3m")
    rows, cut = np.empty((records, length), np.uint8), np.zeros((records, length), np.uint16)
    wrong, record, found = _fill(buffer, ALIGNED, rows, cut)
    if wrong == _RAGGED:
        reason = f"row {_named(data, record)} has {found} columns, the first row has {length}"
        raise InputRefusedError(reason, subject=subject, remedy="Rows of an alignment have equal columns")
    if wrong == _FOREIGN:
        reason = f"row {_named(data, record)} has the byte {chr(found)!r}, which is no residue"
        raise InputRefusedError(reason, subject=subject, remedy="Give an alignment of proteins in a3m")
    return Alignment(rows, sparse(cut))


def _named(data: bytes, record: int) -> str:
    """Return the number of a record, counted from 1, and its name."""
    headers = [line for line in data.split(b"\n") if line.startswith(b">")]
    words = headers[record][1:].split()
    return f"{record + 1} ({one_line(words[0].decode('utf-8', 'replace'))})" if words else str(record + 1)


@njit(nogil=True, cache=True, error_model="numpy")
def _measure(buffer: Bytes, numbers: Bytes) -> tuple[int, int]:
    """Count the records, and the columns of the first."""
    records, length, at, size = 0, 0, 0, len(buffer)
    while at < size:
        if buffer[at] == _HEADER and (at == 0 or buffer[at - 1] == _NEWLINE):
            records += 1
            while at < size and buffer[at] != _NEWLINE:
                at += 1
        elif records == 1 and numbers[buffer[at]] <= GAP:
            length += 1
        at += 1
    return records, length


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(buffer: Bytes, numbers: Bytes, rows: Bytes, cut: NDArray[np.uint16]) -> tuple[int, int, int]:
    """Write all records; return what is wrong, in which one, and its columns or its byte."""
    record, column, between, at = -1, 0, 0, 0
    size, length = len(buffer), rows.shape[1]
    while at < size:
        byte = buffer[at]
        number = numbers[byte]
        if byte == _HEADER and (at == 0 or buffer[at - 1] == _NEWLINE):
            if record >= 0 and column != length:
                return _RAGGED, record, column
            record, column, between = record + 1, 0, 0
            while at < size and buffer[at] != _NEWLINE:
                at += 1
        elif number == INSERTED:
            between += 1
        elif record >= 0 and number == REFUSED:
            return _FOREIGN, record, byte
        elif record >= 0 and number != SKIPPED:
            if column < length:
                rows[record, column] = number
                cut[record, column] = min(between, MOST_DELETED)
            column, between = column + 1, 0
        at += 1
    return (_GOOD, 0, 0) if column == length else (_RAGGED, record, column)
