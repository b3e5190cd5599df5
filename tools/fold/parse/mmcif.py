"""Chains of proteins in mmCIF, by gemmi: sequence as it was in the experiment, and the atoms that were seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import encode
from sartor.tools.fold.residues import ATOM37

ALIASES = {("MSE", "SE"): "SD"}
"""Atoms of modified residues that stand for others: selenomethionine is read as methionine."""

PROTEIN = {gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD}


@dataclass(frozen=True)
class Structure:
    """A chain: its names by author and by archive, sequence, atoms (L, 37, 3) in angstroms and which were seen (L, 37).

    `resolution` is 0 where the experiment has none; `date` is that of the first release, empty where none is told.
    """

    code: str
    author: str
    label: str
    sequence: str
    positions: NDArray[np.float32]
    seen: NDArray[np.bool_]
    resolution: float
    date: str


def read_mmcif(path: Path) -> list[Structure]:
    """Read the protein chains of the first model of an mmCIF file, plain or gz; raises InputRefusedError."""
    try:
        document = gemmi.cif.read(str(path))
        block = document[0]
        structure = gemmi.make_structure_from_block(block)
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = f"it is not mmCIF ({str(error).splitlines()[0]})"
        raise InputRefusedError(reason, subject=str(path), remedy="Download it again") from None
    if len(structure) == 0:
        raise InputRefusedError("it has no model", subject=str(path), remedy="Give a file with coordinates")
    structure.setup_entities()
    facts = _Facts(path.name.split(".")[0].lower(), _resolution(structure, block), _released(block))
    return list(_chains(structure, facts))


RESOLUTIONS = ("_refine.ls_d_res_high", "_em_3d_reconstruction.resolution", "_reflns.d_resolution_high")


@dataclass(frozen=True)
class _Facts:
    """What all chains of an entry share."""

    code: str
    resolution: float
    date: str


def _resolution(structure: gemmi.Structure, block: gemmi.cif.Block) -> float:
    """Return the resolution, from wherever in an entry it is told."""
    told = [gemmi.cif.as_number(value) for name in RESOLUTIONS for value in block.find_values(name)]
    return float(next((one for one in (structure.resolution, *told) if one > 0), 0.0))


def _released(block: gemmi.cif.Block) -> str:
    """Return the first date of release, else that of deposition."""
    dates = [*block.find_values("_pdbx_audit_revision_history.revision_date")]
    dates = dates or [*block.find_values("_pdbx_database_status.recvd_initial_deposition_date")]
    known = sorted(gemmi.cif.as_string(date) for date in dates if date not in "?.")
    return known[0] if known else ""


def _chains(structure: gemmi.Structure, facts: _Facts) -> Iterator[Structure]:
    for chain in structure[0]:
        for label in dict.fromkeys(residue.subchain for residue in chain):
            entity = structure.get_entity_of(chain.get_subchain(label)) if label else None
            if entity is not None and entity.polymer_type in PROTEIN:
                yield _chain(chain.get_subchain(label), entity, (chain.name, label), facts)


def _chain(residues: gemmi.ResidueSpan, entity: gemmi.Entity, names: tuple[str, str], facts: _Facts) -> Structure:
    """Read one chain; where a residue was found in several forms the first of them counts.

    Where an entry does not tell the sequence of the experiment, it is that of the residues that were seen.
    """
    monomers = [gemmi.Entity.first_mon(item) for item in entity.full_sequence]
    numbered = [
        (residue.label_seq - 1 if residue.label_seq else number, residue) for number, residue in enumerate(residues)
    ]
    if not monomers:
        amino = [residue for residue in residues if gemmi.find_tabulated_residue(residue.name).is_amino_acid()]
        monomers, numbered = [residue.name for residue in amino], list(enumerate(amino))
    positions, seen = np.zeros((len(monomers), 37, 3), np.float32), np.zeros((len(monomers), 37), bool)
    for place, residue in numbered:
        if place < len(monomers) and residue.name == monomers[place]:
            _atoms(residue, positions[place], seen[place])
    sequence = "".join(map(_letter, monomers))
    return Structure(facts.code, *names, sequence, positions, seen, facts.resolution, facts.date)


def _letter(name: str) -> str:
    """Return the letter of a residue, that of its parent where it is modified, X where it has none."""
    found = gemmi.find_tabulated_residue(name).one_letter_code.upper()
    return found if found.isalpha() and found.isascii() else "X"


def _atoms(residue: gemmi.Residue, positions: NDArray[np.float32], seen: NDArray[np.bool_]) -> None:
    """Take over the atoms of a residue, of those in several places the one that is there most."""
    best: dict[str, gemmi.Atom] = {}
    for atom in residue:
        name = ALIASES.get((residue.name, atom.name), atom.name)
        if name in ATOM37 and (name not in best or atom.occ > best[name].occ):
            best[name] = atom
    for name, atom in best.items():
        positions[ATOM37[name]] = atom.pos.tolist()
        seen[ATOM37[name]] = True
    if residue.name == "ARG":
        _order_arginine(positions, seen)


def _order_arginine(positions: NDArray[np.float32], seen: NDArray[np.bool_]) -> None:
    """Call the nitrogen NH1 that is nearer to CD, as the nomenclature has it (AlphaFold 2, supplementary 1.2.1)."""
    near, far, delta = ATOM37["NH1"], ATOM37["NH2"], ATOM37["CD"]
    if seen[[near, far, delta]].all():
        distances = np.linalg.norm(positions[[near, far]] - positions[delta], axis=-1)
        if distances[0] > distances[1]:
            positions[[near, far]] = positions[[far, near]]


def numbers_of(structure: Structure) -> NDArray[np.uint8]:
    """Return the numbers of a chain's residues (L,)."""
    return encode(structure.sequence)
