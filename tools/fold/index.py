"""What there is to pack: chains of structures, grouped by sequence, with the alignments that belong to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.parse.mmcif import Structure, code_of, read_mmcif

STRUCTURES = (".cif", ".cif.gz", ".mmcif", ".mmcif.gz")
ALIGNMENTS = (".a3m", ".sto", ".a3m.gz", ".sto.gz")
TEMPLATES = (".hhr", ".hhr.gz")

DATABASES = ("uniref90", "bfd", "small_bfd", "mgnify")
"""The order in which alignments are stacked, by the beginning of their names: of equal rows the first counts."""

OTHERS = ("uniprot_hits", "hmm_output", "pdb_hits")
"""What lies beside them for models of complexes, and is no alignment to train on."""

_STORABLE = re.compile(r"[0-9A-Za-z_-]+")

LEAST_LENGTH = 4
"""Residues below which a chain has no structure to learn."""

MOST_ALIKE = 0.8
"""Share of one residue above which a chain is left out (AlphaFold 2, supplementary 1.2.5)."""


@dataclass(frozen=True)
class Dropped:
    """What was left out, and why: a damaged file, an entry, a chain or an alignment, by name."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A chain that can be packed; what it looks like is read when its turn comes."""

    path: Path
    code: str
    author: str
    label: str
    entity: str
    sequence: str

    @property
    def name(self) -> str:
        """The chain as alignments and users name it."""
        return f"{self.code}_{self.author}"


@dataclass(frozen=True)
class Index:
    """The chains of one file that can be packed, and why others can't."""

    entries: tuple[Entry, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True)
class Folders:
    """What a folder of alignments has for each name: alignments in the order of stacking, and template hits."""

    alignments: Mapping[str, tuple[Path, ...]]
    templates: Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class Group:
    """Chains of one sequence, and the files aligned to it; `templates` are those of HHsearch."""

    sequence: str
    entries: tuple[Entry, ...]
    alignments: tuple[Path, ...]
    templates: tuple[Path, ...]

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that belong to the chains; structures of templates apart."""
        return (*dict.fromkeys(entry.path for entry in self.entries), *self.alignments, *self.templates)


def structure_files(folder: Path) -> tuple[dict[str, Path], list[Dropped]]:
    """Return the mmCIF files of a folder and of those in it by the code of the entry, and those of one that was there.

    Raises InputRefusedError where there are none.
    """
    _require_folder(folder)
    found: dict[str, Path] = {}
    dropped = []
    for path in _files(folder):
        if path.name.lower().endswith(STRUCTURES) and found.setdefault(code_of(path), path) != path:
            reason = f"{found[code_of(path)].relative_to(folder)} is of the same entry"
            dropped.append(Dropped("entry", str(path.relative_to(folder)), reason))
    if not found:
        raise InputRefusedError("there are no mmCIF files in it", subject=str(folder), remedy="Give *.cif or *.cif.gz")
    return dict(sorted(found.items())), dropped


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputRefusedError("there is no such folder", subject=str(folder), remedy="Check the name")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in the order of their names; those that are hidden are of no concern."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def index_file(path: Path, worst: float) -> Index:
    """List the chains of a file with a resolution of at most `worst` angstroms; a damaged one is named itself."""
    try:
        structures = read_mmcif(path)
    except InputRefusedError as error:
        return Index((), (Dropped("file", path.name, error.reason),))
    entries: dict[str, Entry] = {}
    dropped = [] if structures else [Dropped("entry", code_of(path), "it has no protein")]
    for one in structures:
        reason = _reason(one, worst) or ("another chain of the entry has its name" if one.name in entries else "")
        if reason:
            dropped.append(Dropped("chain", one.name, reason))
        else:
            entries[one.name] = Entry(path, one.code, one.author, one.label, one.entity, one.sequence)
    return Index(tuple(entries.values()), tuple(dropped))


def _reason(structure: Structure, worst: float) -> str:
    """Return why a chain can't be trained on, empty where it can."""
    sequence = structure.sequence
    if not _STORABLE.fullmatch(structure.name):
        return "its name has other characters than letters, digits, _ and -"
    if len(sequence) < LEAST_LENGTH:
        return f"it has {len(sequence)} residues, fewer than {LEAST_LENGTH}"
    if not structure.has_alpha_carbons:
        return "no alpha carbon of it was seen"
    if structure.resolution == 0:
        return "its resolution is not told"
    if structure.resolution > worst:
        return f"its resolution is {structure.resolution:g} angstroms"
    most = max(map(sequence.count, set(sequence))) / len(sequence)
    return f"{most:.0%} of it is one residue" if most > MOST_ALIKE else ""


def alignment_folders(folder: Path) -> Folders:
    """Sort the files of a folder by the chain that they are for.

    It has a folder for each chain, with files right in it or in folders of their own, or a file for each chain. Raises
    InputRefusedError where there is no such folder.
    """
    _require_folder(folder)
    alignments: dict[str, list[Path]] = {}
    templates: dict[str, list[Path]] = {}
    for path in _files(folder):
        name = path.relative_to(folder).parts[0] if path.parent != folder else path.name.split(".")[0]
        kind = path.name.lower()
        if kind.endswith(TEMPLATES):
            templates.setdefault(name, []).append(path)
        elif kind.endswith(ALIGNMENTS) and not kind.startswith(OTHERS):
            alignments.setdefault(name, []).append(path)
    return Folders(
        {name: tuple(sorted(paths, key=_order)) for name, paths in alignments.items()},
        {name: tuple(paths) for name, paths in templates.items()},
    )


def _order(path: Path) -> tuple[int, str]:
    known = [number for number, database in enumerate(DATABASES) if path.name.startswith(database)]
    return (known[0] if known else len(DATABASES), path.name)


def group_by_sequence(entries: Iterable[Entry], folders: Folders) -> list[Group]:
    """Return chains of one sequence together, in the order of the first name of each."""
    ordered = sorted(entries, key=lambda entry: (entry.sequence, entry.name))
    groups = [tuple(group) for _, group in groupby(ordered, key=lambda entry: entry.sequence)]
    groups.sort(key=lambda group: group[0].name)
    return [
        Group(group[0].sequence, group, _first(folders.alignments, group), _first(folders.templates, group))
        for group in groups
    ]


def _first(files: Mapping[str, tuple[Path, ...]], entries: Sequence[Entry]) -> tuple[Path, ...]:
    """Return the files of the first chain that has any, as the chains are alike."""
    return next((files[name] for entry in entries for name in names_of(entry) if name in files), ())


def names_of(entry: Entry) -> tuple[str, ...]:
    """Return what the files of a chain may be named after: either name of the chain, and the code in either case."""
    chains = dict.fromkeys((entry.author, entry.label))
    return tuple(f"{code}_{chain}" for chain in chains for code in (entry.code, entry.code.upper()))
