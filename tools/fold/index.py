"""What there is to pack: chains of structures, grouped by sequence, with the alignments that belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.parse.mmcif import Structure, read_mmcif

SUFFIXES = (".cif", ".cif.gz", ".mmcif", ".mmcif.gz")
DATABASES = ("uniref90_hits", "bfd_uniclust_hits", "bfd_uniref_hits", "small_bfd_hits", "mgnify_hits")
"""The order in which alignments are stacked: of equal rows the first counts."""

LEAST_LENGTH = 4
"""Residues below which a chain has no structure to learn."""

MOST_ALIKE = 0.8
"""Share of one residue above which a chain is left out (AlphaFold 2, supplementary 1.2.5)."""


@dataclass(frozen=True)
class Entry:
    """A chain that is there: its file, names, sequence; the numbers of the table come when it is read."""

    path: Path
    code: str
    author: str
    label: str
    sequence: str

    @property
    def name(self) -> str:
        """The chain as alignments and users call it."""
        return f"{self.code}_{self.author}"


@dataclass(frozen=True)
class Index:
    """The chains of one file that can be packed, and why others can't, by name."""

    entries: tuple[Entry, ...]
    dropped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group:
    """Chains of one sequence, and the files aligned to it; `templates` are those of HHsearch."""

    sequence: str
    entries: tuple[Entry, ...]
    alignments: tuple[Path, ...]
    templates: tuple[Path, ...]

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that the group is made of."""
        return (*dict.fromkeys(entry.path for entry in self.entries), *self.alignments, *self.templates)


def structure_files(folder: Path) -> list[Path]:
    """List mmCIF files of a folder and of those in it, one for each entry; raises InputRefusedError without any."""
    if not folder.is_dir():
        raise InputRefusedError("there is no such folder", subject=str(folder), remedy="Give a folder of mmCIF files")
    found = {code_of(path): path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(SUFFIXES)}
    if not found:
        raise InputRefusedError("there are no mmCIF files in it", subject=str(folder), remedy="Give *.cif or *.cif.gz")
    return [found[code] for code in sorted(found)]


def code_of(path: Path) -> str:
    """Return the code of an entry from the name of its file."""
    return path.name.split(".")[0].lower()


def index_file(path: Path) -> Index:
    """List the chains of a file; one that is damaged has its reason under the name of the file."""
    try:
        structures = read_mmcif(path)
    except InputRefusedError as error:
        return Index((), ((path.name, error.reason),))
    entries, dropped = [], []
    for one in structures:
        reason = _reason(one)
        if reason:
            dropped.append((f"{one.code}_{one.author}", reason))
        else:
            entries.append(Entry(path, one.code, one.author, one.label, one.sequence))
    if not structures:
        dropped.append((path.name, "it has no protein"))
    return Index(tuple(entries), tuple(dropped))


def _reason(structure: Structure) -> str:
    """Return why a chain can't be trained on, empty where it can."""
    sequence = structure.sequence
    if len(sequence) < LEAST_LENGTH:
        return f"it has {len(sequence)} residues"
    if not structure.seen[:, 1].any():
        return "no alpha carbon of it was seen"
    most = max(sequence.count(letter) for letter in set(sequence))
    return f"{most / len(sequence):.0%} of it is one residue" if most > MOST_ALIKE * len(sequence) else ""


def group_by_sequence(entries: Iterable[Entry], alignments: Path) -> Iterator[Group]:
    """Yield chains of one sequence together, in the order of the first name of each."""
    ordered = sorted(entries, key=lambda entry: (entry.sequence, entry.name))
    groups = [list(group) for _, group in groupby(ordered, key=lambda entry: entry.sequence)]
    for group in sorted(groups, key=lambda one: one[0].name):
        yield Group(group[0].sequence, tuple(group), *_files_of(group, alignments))


def _files_of(entries: Sequence[Entry], alignments: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Find the alignments and the template hits of the first chain that has any."""
    for entry in entries:
        for chain in dict.fromkeys((entry.author, entry.label)):
            folder = _folder(alignments, entry.code, chain)
            if folder is not None:
                return _alignments(folder), tuple(sorted(folder.rglob("*.hhr")))
    return (), ()


def _folder(alignments: Path, code: str, chain: str) -> Path | None:
    names = (f"{code}_{chain}", f"{code.upper()}_{chain}")
    return next((alignments / name for name in names if (alignments / name).is_dir()), None)


def _alignments(folder: Path) -> tuple[Path, ...]:
    """List the alignments of a folder, right in it or in folders by format, those of known databases first."""
    found = [path for path in folder.rglob("*") if path.suffix in (".a3m", ".sto")]
    order = {name: place for place, name in enumerate(DATABASES)}
    return tuple(sorted(found, key=lambda path: (order.get(path.stem, len(order)), path.name)))
