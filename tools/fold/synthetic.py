"""Small proteins made up of ideal helices, strands and turns, with mutated alignments, for a run without any data.

They are written as mmCIF and a3m, which the packer then reads like anyone's. Torsions are those of textbooks (Pauling
and Corey 1951; Ramachandran plots), bond lengths and angles those of Engh and Huber (2001).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import gemmi
import numpy as np
import torch
from numpy.typing import NDArray

from sartor.share.artifact import write_bytes
from sartor.tools.fold import residues
from sartor.tools.fold.alphabet import RESIDUES
from sartor.tools.fold.geometry.atoms import atom37_from_atom14, layout
from sartor.tools.fold.geometry.frames import atom14_positions, torsion_frames
from sartor.tools.fold.geometry.rigid import from_three_points

Floats = NDArray[np.float64]

HELIX, STRAND = (-57.0, -47.0), (-120.0, 130.0)
TURNS = (((-60.0, -30.0), (-90.0, 0.0)), ((60.0, 30.0), (90.0, 0.0)), ((-60.0, 120.0), (80.0, 0.0)))
"""Phi and psi of the two inner residues of turns of type I, I' and II."""

LETTERS = {"H": ("LM", "AF", "EK", "QR"), "E": ("VIC", "TYW"), "T": ("DPS", "GN")}
"""Residues that favour helices, strands and turns (Chou and Fasman 1978), by the side that they stand on."""

HELIX_TURN = 3.6
"""Residues a turn of a helix."""

LONGEST, LEAST_DISTANCE = 24, 4.0
"""Residues, and angstroms between alpha carbons that are no neighbours."""

DEPTH = 48


@dataclass(frozen=True)
class Protein:
    """A sequence, the kind of structure (H, E, T) and the letters that go with each residue, and torsions in degrees.

    A side of a helix has letters of its own, as has a side of a strand: they are amphipathic.
    """

    name: str
    sequence: str
    kinds: str
    letters: tuple[str, ...]
    torsions: Floats  # (residues, 7)


def write_proteins(folder: Path, count: int, seed: int) -> tuple[Path, Path]:
    """Write proteins as `mmcif/NAME.cif` and `alignments/NAME_A/uniref90_hits.a3m`; return the two folders."""
    structures, alignments = folder / "mmcif", folder / "alignments"
    structures.mkdir(parents=True, exist_ok=True)
    for protein, atoms, rows in proteins(count, seed):
        write_bytes(as_mmcif(protein, atoms).encode(), structures / f"{protein.name}.cif")
        hits = alignments / f"{protein.name}_A"
        hits.mkdir(parents=True, exist_ok=True)
        write_bytes(_as_a3m(protein, rows).encode(), hits / "uniref90_hits.a3m")
    return structures, alignments


def proteins(count: int, seed: int) -> Iterator[tuple[Protein, Floats, list[str]]]:
    """Yield proteins that do not run into themselves, their atoms (residues, 37, 3) and aligned rows."""
    random = np.random.default_rng(seed)
    made = 0
    while made < count:
        protein = _draw(f"s{made:03d}", random)
        atoms = atoms_of(protein)
        if len(protein.sequence) <= LONGEST and _nearest(atoms[:, residues.ATOM37["CA"]]) >= LEAST_DISTANCE:
            made += 1
            yield protein, atoms, [_mutate(protein, random) for _ in range(DEPTH)]


def _draw(name: str, random: np.random.Generator) -> Protein:
    """Draw two or three elements with turns between them."""
    kinds, backbone = "", []
    letters: list[str] = []
    elements = random.integers(2, 4)
    for i in range(elements):
        helix = bool(random.integers(2))
        length = int(random.integers(8, 13) if helix else random.integers(5, 8))
        kinds += ("H" if helix else "E") * length
        letters += [_letters_at("H" if helix else "E", place) for place in range(length)]
        backbone += [HELIX if helix else STRAND] * length
        if i + 1 < elements:
            kinds += "TT"
            letters += LETTERS["T"]
            backbone += TURNS[random.integers(len(TURNS))]
    sequence = "".join(random.choice(list(one)) for one in letters)
    return Protein(name, sequence, kinds, tuple(letters), _torsions(sequence, np.array(backbone)))


def _letters_at(kind: str, place: int) -> str:
    """Return the letters of the side on which the residue at a place of a helix or strand stands."""
    sides = LETTERS[kind]
    period = HELIX_TURN if kind == "H" else len(sides)
    return sides[int(place % period / period * len(sides))]


def _torsions(sequence: str, backbone: Floats) -> Floats:
    """Return omega, phi, psi and four chi of each residue; side chains of one kind all stand alike."""
    out = np.zeros((len(sequence), 7))
    out[:, 0], out[:, 1:3] = 180.0, backbone
    out[:, 3:] = (-60.0, 180.0, 180.0, 180.0)
    return out


def atoms_of(protein: Protein) -> Floats:
    """Return the atoms (residues, 37, 3) in angstroms, zero where a residue has none."""
    aatype = torch.tensor([RESIDUES.index(letter) for letter in protein.sequence])
    nitrogens, alphas, carbons = torch.from_numpy(_backbone(protein.torsions)).unbind(1)
    radians = torch.from_numpy(np.deg2rad(protein.torsions))
    angles = torch.stack((radians.sin(), radians.cos()), -1)
    frames = torsion_frames(from_three_points(2 * alphas - carbons, alphas, nitrogens), angles, aatype)
    atoms = atom14_positions(frames, aatype, torch.float64)
    places = layout(aatype)
    return np.asarray(atom37_from_atom14(atoms, places["residx_atom37_to_atom14"], places["atom37_atom_exists"]))


def _backbone(torsions: Floats) -> Floats:
    """Return N, CA and C (residues, 3, 3) by placing atom after atom (natural extension of reference frames)."""
    lengths = {"N": 1.329, "CA": 1.458, "C": 1.525}
    angles = {"N": 117.2, "CA": 121.7, "C": 111.0}
    atoms = [np.array(start) for start in ((0.0, 0.0, 0.0), (1.458, 0.0, 0.0), (2.005, 1.424, 0.0))]
    for before, here in pairwise(torsions):
        for name, turn in (("N", before[2]), ("CA", here[0]), ("C", here[1])):
            atoms.append(_place(atoms[-3:], lengths[name], angles[name], turn))
    return np.array(atoms).reshape(-1, 3, 3)


def _place(last: Sequence[Floats], length: float, angle: float, torsion: float) -> Floats:
    """Return the atom at a length, angle and torsion (degrees) from the last three."""
    a, b, c = last
    along = (c - b) / np.linalg.norm(c - b)
    across = np.cross(b - a, along)
    across /= np.linalg.norm(across)
    bend, turn = math.radians(180.0 - angle), math.radians(torsion)
    step = np.array([math.cos(bend), math.sin(bend) * math.cos(turn), math.sin(bend) * math.sin(turn)])
    return np.asarray(c + length * (np.stack([along, np.cross(across, along), across], 1) @ step))


def _nearest(alphas: Floats) -> float:
    """Return the smallest distance between residues that are at least three apart."""
    distances = np.linalg.norm(alphas[:, None] - alphas[None], axis=-1)
    return float(distances[np.triu_indices(len(alphas), 3)].min())


def _mutate(protein: Protein, random: np.random.Generator) -> str:
    """Return an aligned row: residues change for others of their side, some are missing, some are put in."""
    rate = random.uniform(0.1, 0.6)
    row = []
    for letter, kind, others in zip(protein.sequence, protein.kinds, protein.letters, strict=True):
        if random.random() < rate:
            letter = random.choice(list(others))
        if kind == "T" and random.random() < 0.1:
            letter = random.choice(["-", letter + random.choice(list("gns"))])
        row.append(str(letter))
    return "".join(row)


def _as_a3m(protein: Protein, rows: Sequence[str]) -> str:
    named = [f">{protein.name}_A\n{protein.sequence}\n", *(f">row{i}\n{row}\n" for i, row in enumerate(rows))]
    return "".join(named)


def as_mmcif(protein: Protein, atoms: Floats) -> str:
    """Return the text of an mmCIF file of one chain, A, with all that archives say of an entry."""
    structure = gemmi.Structure()
    structure.name = protein.name
    chain = gemmi.Chain("A")
    names = [gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) for letter in protein.sequence]
    for number, name in enumerate(names):
        chain.add_residue(_residue(name, number + 1, atoms[number]))
    model = gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.entities[0].full_sequence = names
    structure.assign_label_seq_id()
    document = structure.make_mmcif_document()
    block = document.sole_block()
    block.set_pair("_refine.ls_d_res_high", "2.0")
    block.set_pair("_pdbx_audit_revision_history.revision_date", "2020-01-01")
    return str(document.as_string())


def _residue(name: str, number: int, atoms: Floats) -> gemmi.Residue:
    residue = gemmi.Residue()
    residue.name, residue.seqid, residue.entity_type = name, gemmi.SeqId(number, " "), gemmi.EntityType.Polymer
    for atom_name in residues.atoms_of(name):
        atom = gemmi.Atom()
        atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
        atom.pos = gemmi.Position(*atoms[residues.ATOM37[atom_name]])
        residue.add_atom(atom)
    return residue
