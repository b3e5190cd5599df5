"""Templates of a sequence: hits of HHsearch put onto the residues of the structures that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.fold.alphabet import GAP, encode
from sartor.tools.fold.parse.hhr import Hit
from sartor.tools.fold.parse.mmcif import Structure
from sartor.tools.fold.store import Templates, no_templates

MATCH, MISMATCH, OPEN, EXTEND = 5, -4, -11, -1
"""Scores of an alignment of a chain with itself, of which some residues are missing on one side."""

LEAST_SHARE = 0.1
"""Of the query's residues that a template covers, at least (AlphaFold 2, supplementary 1.2.3)."""

SAME_SHARE = 0.95
"""Of the query that a template which is a piece of the query itself would cover: it is left out."""


@dataclass(frozen=True)
class Found:
    """Templates, and why hits were left out, one line each."""

    templates: Templates
    dropped: tuple[str, ...]


Lookup = Callable[[str, str], Structure | None]
"""Finds a chain by PDB code and chain name."""


def find_templates(
    hits: Sequence[Hit], query: NDArray[np.uint8], lookup: Lookup, code: str, latest: str, most: int
) -> Found:
    """Take up to `most` hits, the surest first, that were released by a date and are not the entry itself."""
    made: list[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], float]] = []
    dropped: list[str] = []
    for hit in sorted(hits, key=lambda one: -one.sum_probs):
        if len(made) == most:
            break
        structure = lookup(hit.code, hit.chain)
        reason = _reason(hit, structure, query, code, latest)
        if reason or structure is None:
            dropped.append(f"{hit.code}_{hit.chain}: {reason}")
        else:
            made.append((*place(hit, structure, len(query)), hit.sum_probs))
    return Found(_stacked(made, len(query)), tuple(dropped))


def _reason(hit: Hit, structure: Structure | None, query: NDArray[np.uint8], code: str, latest: str) -> str:
    """Return why a hit is no template, empty where it is one."""
    pairs = hit.pairs()
    whole = "".join("ARNDCQEGHILKMFPSTWYVX"[number] for number in query)
    if hit.code == code:
        return "it is the entry itself"
    if structure is None:
        return "its structure is not there"
    if latest and (not structure.date or structure.date > latest):
        return f"it was released on {structure.date or 'an unknown date'}"
    if len(pairs) < LEAST_SHARE * len(query):
        return "it covers too little"
    if hit.letters in whole and len(hit.letters) >= SAME_SHARE * len(query):
        return "it is a piece of the chain itself"
    return "" if structure.seen.any() else "no atom of it was seen"


def place(
    hit: Hit, structure: Structure, length: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """Return aatype (L,), positions (L, 37, 3) and mask (L, 37) of a template in the places of the query.

    The letters of a hit and of the structure may differ, as databases do; one is aligned to the other first.
    """
    aatype = np.full(length, GAP, np.uint8)
    positions, mask = np.zeros((length, 37, 3), np.float32), np.zeros((length, 37), bool)
    letters, chain = encode(hit.letters), encode(structure.sequence)
    where = align(letters, chain)
    for at, other in hit.pairs():
        aatype[at] = letters[other]
        if where[other] >= 0:
            positions[at], mask[at] = structure.positions[where[other]], structure.seen[where[other]]
    positions[~mask] = 0.0
    return aatype, positions, mask


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def align(short: NDArray[np.uint8], chain: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Align all of a sequence (n,) to any part of another (m,); return the place of each residue there, or -1.

    Needleman and Wunsch's recurrence with the gaps of Gotoh (1982); gaps at the ends of the other cost nothing.
    """
    n, m = len(short), len(chain)
    low = -(1 << 30)
    best = np.full((3, n + 1, m + 1), low, np.int64)
    came = np.zeros((3, n + 1, m + 1), np.uint8)
    best[0, 0, :] = 0
    for i in range(1, n + 1):
        best[2, i, 0] = OPEN + EXTEND * (i - 1)
        came[2, i, 0] = 2 if i > 1 else 0
        for j in range(1, m + 1):
            score = MATCH if short[i - 1] == chain[j - 1] else MISMATCH
            state = 0
            for other in range(1, 3):
                if best[other, i - 1, j - 1] > best[state, i - 1, j - 1]:
                    state = other
            best[0, i, j] = best[state, i - 1, j - 1] + score
            came[0, i, j] = state
            opened, extended = best[0, i, j - 1] + OPEN, best[1, i, j - 1] + EXTEND
            best[1, i, j] = max(opened, extended)
            came[1, i, j] = 0 if opened >= extended else 1
            opened, extended = best[0, i - 1, j] + OPEN, best[2, i - 1, j] + EXTEND
            best[2, i, j] = max(opened, extended)
            came[2, i, j] = 0 if opened >= extended else 2
    state, j = 0, 0
    for column in range(m + 1):
        for other in range(3):
            if best[other, n, column] > best[state, n, j]:
                state, j = other, column
    where = np.full(n, -1, np.int64)
    i = n
    while i > 0:
        before = came[state, i, j]
        if state == 0:
            where[i - 1] = j - 1
            i, j = i - 1, j - 1
        elif state == 1:
            j -= 1
        else:
            i -= 1
        state = before
    return where


def _stacked(
    made: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], float]], length: int
) -> Templates:
    if not made:
        return no_templates(length)
    aatype, positions, mask, sure = zip(*made, strict=True)
    return Templates(np.stack(aatype), np.stack(positions), np.stack(mask), np.array(sure, np.float32))
