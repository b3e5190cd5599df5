"""From the files of a sequence to what is stored of it."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sartor.share.artifact.sniff import unreadable
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import encode
from sartor.tools.fold.data.profile import profile_of
from sartor.tools.fold.index import Dropped, Entry, Group
from sartor.tools.fold.parse.a3m import parse_a3m
from sartor.tools.fold.parse.alignment import Alignment, alone, for_query, stack
from sartor.tools.fold.parse.hhr import parse_hhr
from sartor.tools.fold.parse.mmcif import Structure, read_mmcif
from sartor.tools.fold.parse.sto import parse_sto
from sartor.tools.fold.store import key_of
from sartor.tools.fold.templates import Viewer, find_templates, latest_for
from sartor.tools.fold.writing import PackedChain, PackedSequence, pack_sequence

REMEMBERED = 64
"""Structures that a process keeps, as chains of one entry and templates come again."""


@dataclass(frozen=True)
class Choice:
    """What templates are taken: how many at most, released by a date, from which structures by their code."""

    most: int
    latest: str
    structures: Mapping[str, Path]


@dataclass(frozen=True)
class Gathered:
    """A sequence ready to be written, or why not; `rows` were in its alignments, `inputs` are sha256 by name.

    `bytes` is the size of all its files but those of templates.
    """

    sequence: PackedSequence | None
    rows: int = 0
    bytes: int = 0
    dropped: tuple[Dropped, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[tuple[str, str], ...] = ()


def gather(group: Group, clusters: Mapping[str, int], choice: Choice) -> Gathered:
    """Read all of a group; where a file is damaged or of another sequence, it is named and the chains are left out."""
    query = encode(group.sequence)
    contents: dict[Path, bytes] = {}
    try:
        for path in group.inputs:
            contents[path] = read_file(path)
        alignment, rows = read_alignment({path: contents[path] for path in group.alignments}, query)
        hits = [hit for path in group.templates for hit in parse_hhr(_plain(path, contents[path]), path.name)]
        structures = [_structure(entry) for entry in group.entries]
    except InputRefusedError as error:
        return Gathered(None, dropped=_refused(group, error))
    viewers = [Viewer(one.code, latest_for(one.date, choice.latest)) for one in structures]
    found = find_templates(hits, query, viewers, lambda code, chain: _lookup(choice, code, chain), choice.most)
    chains = [
        PackedChain(one.name, one.positions, one.seen, chosen, clusters[one.name], one.resolution, one.date)
        for one, chosen in zip(structures, found.chosen, strict=True)
    ]
    packed = pack_sequence(key_of(query), alignment, profile_of(alignment.rows), found.templates, chains)
    inputs = tuple((path.name, hashlib.sha256(data).hexdigest()) for path, data in contents.items())
    return Gathered(packed, rows, sum(map(len, contents.values())), left_out=found.left_out, inputs=inputs)


def _refused(group: Group, error: InputRefusedError) -> tuple[Dropped, ...]:
    chains = (Dropped("chain", entry.name, f"{error.subject}: {error.reason}") for entry in group.entries)
    # Files of alignments have the same names for all chains.
    return (Dropped("file", f"{group.entries[0].name}: {error.subject}", error.reason), *chains)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; raises InputRefusedError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path.name, error) from error


def _plain(path: Path, data: bytes) -> bytes:
    """Return the text of a file that may be compressed; raises InputRefusedError."""
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputRefusedError("it can't be decompressed", subject=path.name, remedy="Copy it again") from error


def read_alignment(contents: Mapping[Path, bytes], query: NDArray[np.uint8]) -> tuple[Alignment, int]:
    """Stack the alignments of a sequence (L,), or take it alone; return also how many rows the files had.

    Raises InputRefusedError for files that are damaged or of another sequence.
    """
    if not contents:
        return alone(query), 1
    read = [for_query(_parse(path, data), query, path.name) for path, data in contents.items()]
    return stack(read), sum(len(one.rows) for one in read)


def _parse(path: Path, data: bytes) -> Alignment:
    parse = parse_a3m if ".a3m" in path.suffixes else parse_sto
    return parse(_plain(path, data), path.name)


@lru_cache(REMEMBERED)
def _read(path: Path) -> tuple[Structure, ...]:
    return tuple(read_mmcif(path))


def _structure(entry: Entry) -> Structure:
    """Return the chain of an entry; raises InputRefusedError where its file has changed since it was listed."""
    for one in _read(entry.path):
        if (one.author, one.label, one.sequence) == (entry.author, entry.label, entry.sequence):
            return one
    reason = f"chain {entry.author} is not in it any more"
    raise InputRefusedError(reason, subject=entry.path.name, remedy="Leave the files alone until all is packed")


def _lookup(choice: Choice, code: str, chain: str) -> Structure | str:
    """Find a template's chain by either name, the authors' first, or tell why it can't be had."""
    path = choice.structures.get(code)
    if path is None:
        return "its structure is not in the folder"
    try:
        chains = _read(path)
    except InputRefusedError:
        return "its structure is damaged"
    by_author, by_label = ([one for one in chains if getattr(one, kind) == chain] for kind in ("author", "label"))
    return next((one for one in (*by_author, *by_label)), "its structure has no such chain")
