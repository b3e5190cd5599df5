"""Alignments in Stockholm format (HMMER): columns in which the query has a gap stand between those that count."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.share.console import one_line
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import ALIGNED, GAP
from sartor.tools.fold.parse.alignment import MOST_DELETED, Alignment, sparse

_HEAD = b"# STOCKHOLM 1."


def parse_sto(data: bytes, subject: str) -> Alignment:
    """Parse a Stockholm file; raises InputRefusedError that names the row that is not as long as the first, or foreign.

    The first row is the query; lower case is as good as capitals, and a dot is a gap.
    """
    if not data.lstrip().startswith(_HEAD):
        remedy = "Give a file that begins with # STOCKHOLM 1.0"
        raise InputRefusedError("it is not in Stockholm format", subject=subject, remedy=remedy)
    texts = _rows(data, subject)
    if not texts:
        raise InputRefusedError("it has no sequences", subject=subject, remedy="Give an alignment")
    numbers = _numbers(texts, subject)
    columns = np.flatnonzero(numbers[0] != GAP)
    return Alignment(np.ascontiguousarray(numbers[:, columns]), sparse(_between(numbers)[:, columns]))


def _rows(data: bytes, subject: str) -> dict[bytes, bytes]:
    """Return the text of every row by its name; it may come in blocks."""
    rows: dict[bytes, list[bytes]] = {}
    ended = False
    for line in data.splitlines():
        if line.startswith(b"//"):
            ended = True
            break
        if line.strip() and not line.startswith(b"#"):
            name, *pieces = line.split()
            rows.setdefault(name, []).extend(pieces)
    if rows and not ended:
        raise InputRefusedError("it ends before its last line, //", subject=subject, remedy="Copy it again")
    return {name: b"".join(pieces) for name, pieces in rows.items()}


def _numbers(texts: dict[bytes, bytes], subject: str) -> NDArray[np.uint8]:
    """Return numbers (D, all columns); raises InputRefusedError."""
    length = len(next(iter(texts.values())))
    for name, text in texts.items():
        if len(text) != length:
            reason = f"row {_shown(name)} has {len(text)} columns, the first row has {length}"
            raise InputRefusedError(reason, subject=subject, remedy="Rows of an alignment have equal columns")
    letters = b"".join(texts.values()).upper().replace(b".", b"-")
    numbers = ALIGNED[np.frombuffer(letters, np.uint8)].reshape(len(texts), length)
    wrong = np.argwhere(numbers > GAP)
    if len(wrong):
        row, column = wrong[0]
        byte = letters[row * length + column]
        reason = f"row {_shown([*texts][row])} has the byte {chr(byte)!r}, which is no residue"
        raise InputRefusedError(reason, subject=subject, remedy="Give an alignment of proteins")
    return numbers


def _shown(name: bytes) -> str:
    return one_line(name.decode("utf-8", "replace"))


@njit(nogil=True, cache=True, error_model="numpy")
def _between(numbers: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Count the letters of each row between a column that counts and the one before; elsewhere it is 0."""
    out = np.zeros(numbers.shape, np.uint16)
    for row in range(numbers.shape[0]):
        between = 0
        for column in range(numbers.shape[1]):
            if numbers[0, column] != GAP:
                out[row, column] = min(between, MOST_DELETED)
                between = 0
            elif numbers[row, column] != GAP:
                between += 1
    return out
