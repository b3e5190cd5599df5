"""Templates of a sequence: hits of HHsearch put onto the residues of the structures that they name.

Which hits count is AlphaFold's choice (supplementary 1.2.3 and its data pipeline): no hit to the entry itself, none
that was released after a date or less than sixty days before the chain, none that covers little of the chain or is a
piece of it. L residues of the chain, T templates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.align import align
from sartor.tools.fold.alphabet import GAP, decode, encode
from sartor.tools.fold.parse.hhr import Hit
from sartor.tools.fold.parse.mmcif import Structure
from sartor.tools.fold.store import ATOMS, Templates, no_templates

LEAST_SHARE, LEAST_LENGTH, LEAST_ATOMS = 0.1, 10, 5
"""A template covers more than this share of the chain, has so many residues, and so many atoms."""

PIECE_SHARE = 0.95
"""A template that is a piece of the chain is left out when it is longer than this share of it."""

LEAST_ALIKE = 0.9
"""Share of equal residues between a hit and the structure that it names, below which it is another one."""

DAYS_BEFORE = 60

Lookup = Callable[[str, str], "Structure | str"]
"""Finds a chain by the code of its entry and its name, or tells why it can't."""


@dataclass(frozen=True)
class Viewer:
    """A chain that may see templates: its entry, and the last date of their release, empty for any."""

    code: str
    latest: str


@dataclass(frozen=True)
class Found:
    """Templates of a sequence, which of them each viewer may see, and how many hits were left out for which reason."""

    templates: Templates
    chosen: tuple[tuple[int, ...], ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Placed:
    """A structure on the places of a sequence: aatype (L,), positions (L, 37, 3), mask (L, 37)."""

    aatype: NDArray[np.uint8]
    positions: NDArray[np.float32]
    mask: NDArray[np.bool_]


def latest_for(released: str, latest: str) -> str:
    """Return the last date of templates of a chain, by its own date and by one for all; empty where neither is told."""
    own = str(date.fromisoformat(released) - timedelta(DAYS_BEFORE)) if released else ""
    return min((one for one in (own, latest) if one), default="")


def find_templates(
    hits: Sequence[Hit], query: NDArray[np.uint8], viewers: Sequence[Viewer], lookup: Lookup, most: int
) -> Found:
    """Take, for each viewer, up to `most` hits that it may see, the surest first."""
    made: list[tuple[Hit, Placed]] = []
    chosen: list[list[int]] = [[] for _ in viewers]
    left_out: Counter[str] = Counter()
    for hit in sorted(hits, key=lambda one: -one.sum_probs):
        waiting = [number for number, own in enumerate(chosen) if len(own) < most]
        if not waiting:
            break
        structure = _prefilter(hit, query) or lookup(hit.code, hit.chain)
        reasons = [_hidden(viewers[number], hit, structure) for number in waiting]
        placed = reasons[0] if all(reasons) else _placed(hit, structure, query)
        if isinstance(placed, str):
            left_out[placed] += 1
            continue
        made.append((hit, placed))
        for number, reason in zip(waiting, reasons, strict=True):
            if not reason:
                chosen[number].append(len(made) - 1)
    return Found(_stacked(made, len(query)), tuple(map(tuple, chosen)), dict(left_out))


def _prefilter(hit: Hit, query: NDArray[np.uint8]) -> str:
    """Return why a hit is no template for anyone, empty where it may be one."""
    letters = hit.letters
    if len(hit.pairs()) <= LEAST_SHARE * len(query):
        return "it covers too little of the chain"
    if letters in decode(query) and len(letters) > PIECE_SHARE * len(query):
        return "it is a piece of the chain itself"
    return "it is too short" if len(letters) < LEAST_LENGTH else ""


def _hidden(viewer: Viewer, hit: Hit, structure: Structure | str) -> str:
    """Return why a viewer may not see a hit, empty where it may."""
    if hit.code == viewer.code:
        return "it is of the same entry"
    if isinstance(structure, str):
        return structure
    if viewer.latest and not structure.date:
        return "the date of its release is not told"
    return "it was released too late" if viewer.latest and structure.date > viewer.latest else ""


def _placed(hit: Hit, structure: Structure | str, query: NDArray[np.uint8]) -> Placed | str:
    """Put the structure of a hit onto the places of the query, or tell why it can't be."""
    assert not isinstance(structure, str), "a hit without structure is hidden from everyone"
    where = locate(hit, structure)
    letters, sequence = encode(hit.letters), encode(structure.sequence)
    equal = sum(letters[at] == sequence[place] for at, place in enumerate(where) if place >= 0)
    if equal < LEAST_ALIKE * min(len(letters), len(sequence)):
        return "its structure has another sequence"
    found = _place(hit, structure, where, len(query))
    return found if found.mask.sum() >= LEAST_ATOMS else "no atom of it was seen"


def locate(hit: Hit, structure: Structure) -> NDArray[np.int64]:
    """Return the residue of the structure for each letter of a hit, or -1.

    It is where the hit says, or else where its letters stand, or else where most of them do.
    """
    letters, sequence = hit.letters, structure.sequence
    starts = (hit.template_start, sequence.find(letters))
    for start in starts:
        if start >= 0 and sequence[start : start + len(letters)] == letters:
            return np.arange(start, start + len(letters))
    return align(encode(letters), encode(sequence))


def _place(hit: Hit, structure: Structure, where: NDArray[np.int64], length: int) -> Placed:
    pairs = np.array([(at, where[other]) for at, other in hit.pairs() if at < length and where[other] >= 0], np.int64)
    to, source = pairs.reshape(-1, 2).T
    aatype = np.full(length, GAP, np.uint8)
    positions, mask = np.zeros((length, ATOMS, 3), np.float32), np.zeros((length, ATOMS), bool)
    aatype[to] = encode(structure.sequence)[source]
    positions[to], mask[to] = structure.positions[source], structure.seen[source]
    return Placed(aatype, positions, mask)


def _stacked(made: Sequence[tuple[Hit, Placed]], length: int) -> Templates:
    if not made:
        return no_templates(length)
    return Templates(
        tuple(hit.name for hit, _ in made),
        np.stack([placed.aatype for _, placed in made]),
        np.stack([placed.positions for _, placed in made]),
        np.stack([placed.mask for _, placed in made]),
        np.array([hit.sum_probs for hit, _ in made], np.float32),
    )
