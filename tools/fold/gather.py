"""From the files of a group to chains as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import encode
from sartor.tools.fold.index import Entry, Group
from sartor.tools.fold.parse.a3m import parse_a3m
from sartor.tools.fold.parse.alignment import Alignment, alone, merge, require_query
from sartor.tools.fold.parse.hhr import parse_hhr
from sartor.tools.fold.parse.mmcif import Structure, read_mmcif
from sartor.tools.fold.parse.sto import parse_sto
from sartor.tools.fold.store import Chain, profile_of
from sartor.tools.fold.templates import find_templates

REMEMBERED = 64
"""Structures that a process keeps, as chains of one entry and templates come again."""


@dataclass(frozen=True)
class Choice:
    """What templates are taken: how many at most, released by a date, from a folder of structures by code."""

    most: int
    latest: str
    structures: dict[str, Path]


@dataclass(frozen=True)
class Gathered:
    """Chains of one sequence, the rows that their alignments had, and what was left out and why, by name."""

    chains: tuple[Chain, ...]
    rows: int
    dropped: tuple[tuple[str, str], ...]


def gather(group: Group, clusters: dict[str, int], choice: Choice) -> Gathered:
    """Read all of a group; where an alignment is damaged, or is of another sequence, its chains are left out."""
    query = encode(group.sequence)
    try:
        alignment, rows = read_alignment(group.alignments, query)
        hits = [hit for path in group.templates for hit in parse_hhr(path.read_bytes(), path.name)]
    except InputRefusedError as error:
        reason = f"{error.subject}: {error.reason}"
        return Gathered((), 0, tuple((entry.name, reason) for entry in group.entries))
    profile = profile_of(alignment.rows)
    first = group.entries[0]
    found = find_templates(
        hits, query, lambda code, chain: _lookup(choice, code, chain), first.code, choice.latest, choice.most
    )
    chains = []
    for entry in group.entries:
        structure = _structure(entry)
        chains.append(
            Chain(
                entry.name, query, alignment, profile, found.templates, structure.positions, structure.seen,
                structure.resolution, structure.date, clusters[entry.name],
            )
        )  # fmt: skip
    dropped = tuple((f"template of {first.name}", line) for line in found.dropped)
    return Gathered(tuple(chains), rows, dropped)


def read_alignment(paths: tuple[Path, ...], query: NDArray[np.uint8]) -> tuple[Alignment, int]:
    """Stack the alignments of a sequence (L,), or take it alone; return also how many rows the files had.

    Raises InputRefusedError for files that are damaged or of another sequence.
    """
    read = [require_query(_parse(path), query, path.name) for path in paths]
    if not read:
        return alone(query), 1
    # Databases may know residues that the experiment does not: the chain itself is the first row.
    rows = sum(len(one.rows) for one in read)
    for one in read:
        one.rows[0] = query
    return merge(read), rows


def _parse(path: Path) -> Alignment:
    parse = parse_a3m if path.suffix == ".a3m" else parse_sto
    return parse(path.read_bytes(), path.name)


@lru_cache(REMEMBERED)
def _read(path: Path) -> tuple[Structure, ...]:
    return tuple(read_mmcif(path))


def _structure(entry: Entry) -> Structure:
    return next(one for one in _read(entry.path) if (one.author, one.label) == (entry.author, entry.label))


def _lookup(choice: Choice, code: str, chain: str) -> Structure | None:
    """Find a template's chain by its name of either kind."""
    path = choice.structures.get(code)
    if path is None:
        return None
    try:
        chains = _read(path)
    except InputRefusedError:
        return None
    both = ([one for one in chains if one.author == chain], [one for one in chains if one.label == chain])
    return next((one for some in both for one in some), None)
