"""Chains of proteins in mmCIF, by gemmi: sequence as it was in the experiment, and the atoms that were seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

import gemmi
import numpy as np
from numpy.typing import NDArray

from sartor.share.console import one_line
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import RESIDUES

ATOMS = (
    "N", "CA", "C", "CB", "O", "CG", "CG1", "CG2", "OG", "OG1", "SG", "CD", "CD1", "CD2", "ND1", "ND2", "OD1", "OD2",
    "SD", "CE", "CE1", "CE2", "CE3", "NE", "NE1", "NE2", "OE1", "OE2", "CH2", "NH1", "NH2", "OH", "CZ", "CZ2", "CZ3",
    "NZ", "OXT",
)  # fmt: skip
"""The order of atoms that AlphaFold uses."""

_PLACE = MappingProxyType({name: place for place, name in enumerate(ATOMS)})
_ALPHA, _DELTA, _NEAR, _FAR = (_PLACE[name] for name in ("CA", "CD", "NH1", "NH2"))
_RESOLUTIONS = ("_refine.ls_d_res_high", "_em_3d_reconstruction.resolution", "_reflns.d_resolution_high")
_REVISIONS, _DEPOSITED = (
    "_pdbx_audit_revision_history.revision_date",
    "_pdbx_database_status.recvd_initial_deposition_date",
)


@dataclass(frozen=True)
class Structure:
    """A chain of an entry, which has a name by its authors and one by the archive.

    The sequence is that of the experiment, atoms (L, 37, 3) are in angstroms where seen (L, 37) is set. `entity` is the
    number of the molecule in the entry; `resolution` is 0 where none is told, `date` (of the first release) empty.
    """

    code: str
    author: str
    label: str
    entity: str
    sequence: str
    positions: NDArray[np.float32]
    seen: NDArray[np.bool_]
    resolution: float
    date: str

    @property
    def name(self) -> str:
        """The chain as alignments and users name it."""
        return f"{self.code}_{self.author}"

    @property
    def has_alpha_carbons(self) -> bool:
        """Tell whether any alpha carbon was seen."""
        return bool(self.seen[:, _ALPHA].any())


def code_of(path: Path) -> str:
    """Return the code of an entry from the name of its file."""
    return path.name.split(".")[0].lower()


def read_mmcif(path: Path) -> list[Structure]:
    """Read the protein chains of the first model of an mmCIF file, plain or gz; raises InputRefusedError."""
    try:
        block = gemmi.cif.read(str(path))[0]
        structure = gemmi.make_structure_from_block(block)
    except (OSError, RuntimeError, ValueError, IndexError, MemoryError) as error:
        told = one_line(str(error)).removeprefix(f"{path}:")
        raise InputRefusedError(
            f"it can't be read as mmCIF ({told})", subject=path.name, remedy="Copy it again"
        ) from None
    if not len(structure):
        raise InputRefusedError("it has no coordinates", subject=path.name, remedy="Give the whole entry")
    structure.setup_entities()
    sequences = _sequences(block)
    facts = (_resolution(block), _released(block))
    return [_chain(code_of(path), *found, sequences, *facts) for found in _proteins(structure)]


def _proteins(structure: gemmi.Structure) -> Iterator[tuple[str, gemmi.ResidueSpan, gemmi.Entity]]:
    """Yield the author's name, residues and entity of the chains of the first model that are proteins."""
    for chain in structure[0]:
        for span in chain.subchains():
            entity = structure.get_entity_of(span)
            if entity is not None and entity.entity_type == gemmi.EntityType.Polymer:
                kind = entity.polymer_type
                if kind == gemmi.PolymerType.Unknown:
                    kind = span.check_polymer_type()
                if kind == gemmi.PolymerType.PeptideL:
                    yield chain.name, span, entity


def _sequences(block: gemmi.cif.Block) -> dict[str, list[str]]:
    """Return the residues of each chain by the archive's name, as files tell them that have no table of entities."""
    found: dict[str, dict[int, str]] = {}
    for asym, number, residue in block.find("_pdbx_poly_seq_scheme.", ["asym_id", "seq_id", "mon_id"]):
        # Of several residues in one place the first counts.
        found.setdefault(asym, {}).setdefault(gemmi.cif.as_int(number, 0), residue)
    return {asym: [residues[number] for number in sorted(residues)] for asym, residues in found.items()}


def _resolution(block: gemmi.cif.Block) -> float:
    """Return the resolution in angstroms, from wherever in an entry it is told; 0 where it is not."""
    told = [gemmi.cif.as_number(value) for name in _RESOLUTIONS for value in block.find_values(name)]
    return next((float(one) for one in told if one > 0), 0.0)


def _released(block: gemmi.cif.Block) -> str:
    """Return the date of the first release, or else that of deposition; empty where there is neither."""
    for name in (_REVISIONS, _DEPOSITED):
        dates = sorted(filter(_is_date, map(gemmi.cif.as_string, block.find_values(name))))
        if dates:
            return dates[0]
    return ""


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _chain(
    code: str, author: str, residues: gemmi.ResidueSpan, entity: gemmi.Entity, sequences: dict[str, list[str]],
    resolution: float, released: str,
) -> Structure:  # fmt: skip
    """Read one chain; where the entry does not tell its sequence, it is that of the residues that were seen."""
    label = residues.subchain_id()
    told = [gemmi.Entity.first_mon(item) for item in entity.full_sequence] or sequences.get(label, [])
    numbered = [(residue.label_seq or 0, residue) for residue in residues]
    if not told:
        seen = [residue for residue in residues if gemmi.find_tabulated_residue(residue.name).is_amino_acid()]
        told, numbered = [residue.name for residue in seen], list(enumerate(seen, 1))
    positions, mask = np.zeros((len(told), len(ATOMS), 3), np.float32), np.zeros((len(told), len(ATOMS)), bool)
    for number, residue in numbered:
        if 1 <= number <= len(told) and residue.name == told[number - 1]:
            _read_atoms(residue, positions[number - 1], mask[number - 1])
    sequence = "".join(map(_letter, told))
    return Structure(code, author, label, entity.name, sequence, positions, mask, resolution, released)


def _letter(residue: str) -> str:
    """Return the letter of a residue, that of its parent where it is modified, X where that is none of the twenty."""
    letter = str(gemmi.find_tabulated_residue(residue).one_letter_code).upper()
    return letter if letter.strip() and letter in RESIDUES else "X"


def _read_atoms(residue: gemmi.Residue, positions: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    """Take over the atoms of a residue, of those in several places the likeliest (AlphaFold 2, supplementary 1.2.1)."""
    best: dict[str, gemmi.Atom] = {}
    for atom in residue:
        # Selenomethionine is read as methionine.
        name = "SD" if residue.name == "MSE" and atom.name == "SE" else atom.name
        here = name in _PLACE and all(map(math.isfinite, atom.pos.tolist()))
        if here and (name not in best or atom.occ > best[name].occ):
            best[name] = atom
    for name, atom in best.items():
        positions[_PLACE[name]] = atom.pos.tolist()
        mask[_PLACE[name]] = True
    if residue.name == "ARG" and mask[[_DELTA, _NEAR, _FAR]].all():
        _name_arginine(positions)


def _name_arginine(positions: NDArray[np.float32]) -> None:
    """Call that nitrogen of an arginine NH1 which is nearer to CD (AlphaFold 2, supplementary 1.2.1)."""
    distances = np.linalg.norm(positions[[_NEAR, _FAR]] - positions[_DELTA], axis=-1)
    if distances[0] > distances[1]:
        positions[[_NEAR, _FAR]] = positions[[_FAR, _NEAR]]
