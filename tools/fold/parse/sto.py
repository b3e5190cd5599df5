"""Alignments in Stockholm format (HMMER): columns in which the query has a gap stand between those that count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import GAP, INSERTED, NUMBERS, REFUSED
from sartor.tools.fold.parse.alignment import Alignment, sparse

UPPER = np.frombuffer(bytes(range(256)).upper(), np.uint8)
HEAD = b"# STOCKHOLM 1.0"


def parse_sto(data: bytes, subject: str) -> Alignment:
    """Parse a Stockholm file; raises InputRefusedError that names the row where one is not as long as the first."""
    if not data.startswith(HEAD):
        remedy = "Give a file that begins with # STOCKHOLM 1.0"
        raise InputRefusedError("it is not in Stockholm format", subject=subject, remedy=remedy)
    rows = _rows(data)
    if not rows:
        raise InputRefusedError("it has no sequences", subject=subject, remedy="Give an alignment")
    names, texts = list(rows), [b"".join(parts) for parts in rows.values()]
    for name, text in zip(names, texts, strict=True):
        if len(text) != len(texts[0]):
            reason = f"{name.decode('utf-8', 'replace')} has {len(text)} columns, the first row has {len(texts[0])}"
            raise InputRefusedError(reason, subject=subject, remedy="Rows of an alignment have equal columns")
    letters = np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), -1)
    numbers = _numbers(letters, subject)
    kept = numbers[0] != GAP
    return Alignment(np.ascontiguousarray(numbers[:, kept]), sparse(_between(numbers, kept)))


def _rows(data: bytes) -> dict[bytes, list[bytes]]:
    """Collect the pieces of every row, which may come in blocks."""
    rows: dict[bytes, list[bytes]] = {}
    for line in data.splitlines():
        if line.startswith(b"//"):
            break
        if line and not line.startswith(b"#"):
            name, *pieces = line.split()
            rows.setdefault(name, []).extend(pieces)
    return rows


def _numbers(letters: NDArray[np.uint8], subject: str) -> NDArray[np.uint8]:
    """Return numbers (D, all columns); dots are gaps and lower case is as good as capitals."""
    numbers = NUMBERS[UPPER[letters]]
    numbers[letters == ord(".")] = GAP
    wrong = np.argwhere((numbers == REFUSED) | (numbers == INSERTED))
    if len(wrong):
        row, column = wrong[0]
        reason = f"row {row + 1} has the byte {chr(letters[row, column])!r}, which is no residue"
        raise InputRefusedError(reason, subject=subject, remedy="Give an alignment of proteins")
    return numbers


def _between(numbers: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Count the letters (D, L) that each row has between a column that counts and the one before."""
    there = np.cumsum((numbers != GAP) & ~kept, axis=1)[:, kept]
    return np.diff(there, axis=1, prepend=0).astype(np.uint16)
