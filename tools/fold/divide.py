"""Which sequences go into which shard of which part: the same for the same files, whoever asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sartor.tools.fold.index import Group
from sartor.tools.fold.plan import Options

_NAME = re.compile(r"chains-(\d+)-of-(\d+)-(\d+)\.h5")

BYTES_A_ATOM, ATOMS_A_RESIDUE = 12, 10
"""About what a residue of a structure takes."""


def in_part(key: str, part: tuple[int, int]) -> bool:
    """Tell whether what has this key belongs to a part."""
    which, parts = part
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % parts == which - 1


def shard_name(part: tuple[int, int], number: int) -> str:
    """Return the name of a shard of a part."""
    which, parts = part
    return f"chains-{which:04d}-of-{parts:04d}-{number:05d}.h5"


def other_parts(target: Path, part: tuple[int, int]) -> list[str]:
    """Return the shards in a folder that are of another number of parts."""
    return [path.name for path, parts, _, _ in _shards(target) if parts != part[1]]


def leftovers(target: Path, part: tuple[int, int], count: int) -> list[Path]:
    """Return the shards of a part in a folder beyond the first `count`."""
    return [path for path, parts, which, number in _shards(target) if (which, parts) == part and number >= count]


def _shards(target: Path) -> Iterator[tuple[Path, int, int, int]]:
    """Yield path, number of parts, part and number of the shards in a folder."""
    for path in sorted(target.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found:
            yield path, int(found[2]), int(found[1]), int(found[3])


def divided(groups: Sequence[Group], options: Options) -> list[list[Group]]:
    """Divide groups, in their order, into shards of about as many bytes as a shard should have."""
    shards: list[list[Group]] = []
    room = 0
    for group in groups:
        size = _bytes_of(group, options)
        if not shards or size > room:
            shards.append([])
            room = options.shard_bytes
        shards[-1].append(group)
        room -= size
    return shards


def _bytes_of(group: Group, options: Options) -> int:
    """Return about how many bytes a group will take: a byte of an alignment is compressed to less than half."""
    structures = len(group.entries) + (options.templates if group.templates else 0)
    atoms = structures * len(group.sequence) * ATOMS_A_RESIDUE
    return sum(path.stat().st_size for path in group.alignments) // 2 + atoms * BYTES_A_ATOM
