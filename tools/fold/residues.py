"""The twenty residues: names of atoms, torsions, rigid groups, ideal positions and which atoms are interchangeable.

Sources: atom names and order, rigid groups and ideal positions are those of AlphaFold 2 (supplementary information,
tables 2 and 3; the released constants give the positions to three digits); radii are van der Waals radii after Bondi.
Every table is indexed by the number of a residue, 0 to 19 in the order of `NAMES` and 20 for an unknown one.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

_NAMES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"
NAMES = tuple(_NAMES.split())
INDEX = MappingProxyType({name: k for k, name in enumerate(NAMES)})
KINDS = len(NAMES) + 1
"""The residues and the unknown one."""

_ATOMS37 = (
    "N CA C CB O CG CG1 CG2 OG OG1 SG CD CD1 CD2 ND1 ND2 OD1 OD2 SD CE CE1 CE2 CE3 NE NE1 NE2 OE1 OE2 CH2 NH1 NH2 OH"
    " CZ CZ2 CZ3 NZ OXT"
)
ATOMS37 = tuple(_ATOMS37.split())
ATOM37 = MappingProxyType({name: k for k, name in enumerate(ATOMS37)})
ATOMS14 = 14
GROUPS = 8
"""Rigid groups: backbone, omega of the residue before, phi, psi, chi 1 to 4."""

RADII = MappingProxyType({"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8})
"""Van der Waals radii in angstroms by element, the first letter of an atom's name."""

SWAPS = MappingProxyType(
    {
        "ASP": (("OD1", "OD2"),),
        "GLU": (("OE1", "OE2"),),
        "PHE": (("CD1", "CD2"), ("CE1", "CE2")),
        "TYR": (("CD1", "CD2"), ("CE1", "CE2")),
    }
)
"""Atoms whose names could as well be exchanged; the last torsion of these residues has a period of pi."""

_CHI_CHAINS = MappingProxyType(
    {
        "ARG": "N CA CB CG CD NE CZ",
        "ASN": "N CA CB CG OD1",
        "ASP": "N CA CB CG OD1",
        "CYS": "N CA CB SG",
        "GLN": "N CA CB CG CD OE1",
        "GLU": "N CA CB CG CD OE1",
        "HIS": "N CA CB CG ND1",
        "ILE": "N CA CB CG1 CD1",
        "LEU": "N CA CB CG CD1",
        "LYS": "N CA CB CG CD CE NZ",
        "MET": "N CA CB CG SD CE",
        "PHE": "N CA CB CG CD1",
        "PRO": "N CA CB CG CD",
        "SER": "N CA CB OG",
        "THR": "N CA CB OG1",
        "TRP": "N CA CB CG CD1",
        "TYR": "N CA CB CG CD1",
        "VAL": "N CA CB CG1",
    }
)
"""The atoms along a side chain: four neighbours in turn define chi 1, chi 2 and so on."""

# A residue's atoms in the order of atom14, each with its rigid group and its position there in angstroms. The x axis
# of a group is its axis of rotation, whose end is the origin; the atom that defines the torsion lies in the xy plane.
_IDEAL = MappingProxyType(
    {
        "ALA": """N 0 -0.525 1.363 0; CA 0 0 0 0; C 0 1.526 0 0; O 3 0.627 1.062 0; CB 0 -0.529 -0.774 -1.205""",
        "ARG": """N 0 -0.524 1.362 0; CA 0 0 0 0; C 0 1.525 0 0; O 3 0.626 1.062 0; CB 0 -0.524 -0.778 -1.209;
            CG 4 0.616 1.390 0; CD 5 0.564 1.414 0; NE 6 0.539 1.357 0; CZ 7 0.758 1.093 0; NH1 7 0.206 2.301 0;
            NH2 7 2.078 0.978 0""",
        "ASN": """N 0 -0.536 1.357 0; CA 0 0 0 0; C 0 1.526 0 0; O 3 0.625 1.062 0; CB 0 -0.531 -0.787 -1.200;
            CG 4 0.584 1.399 0; OD1 5 0.633 1.059 0; ND2 5 0.593 -1.188 0.001""",
        "ASP": """N 0 -0.525 1.362 0; CA 0 0 0 0; C 0 1.527 0 0; O 3 0.626 1.062 0; CB 0 -0.526 -0.778 -1.208;
            CG 4 0.593 1.398 0; OD1 5 0.610 1.091 0; OD2 5 0.592 -1.101 -0.003""",
        "CYS": """N 0 -0.522 1.362 0; CA 0 0 0 0; C 0 1.524 0 0; O 3 0.625 1.062 0; CB 0 -0.519 -0.773 -1.212;
            SG 4 0.728 1.653 0""",
        "GLN": """N 0 -0.526 1.361 0; CA 0 0 0 0; C 0 1.526 0 0; O 3 0.626 1.062 0; CB 0 -0.525 -0.779 -1.207;
            CG 4 0.615 1.393 0; CD 5 0.587 1.399 0; OE1 6 0.634 1.060 0; NE2 6 0.593 -1.189 -0.001""",
        "GLU": """N 0 -0.528 1.361 0; CA 0 0 0 0; C 0 1.526 0 0; O 3 0.626 1.062 0; CB 0 -0.526 -0.781 -1.207;
            CG 4 0.615 1.392 0; CD 5 0.600 1.397 0; OE1 6 0.607 1.095 0; OE2 6 0.589 -1.104 -0.001""",
        "GLY": """N 0 -0.572 1.337 0; CA 0 0 0 0; C 0 1.517 0 0; O 3 0.626 1.062 0""",
        "HIS": """N 0 -0.527 1.360 0; CA 0 0 0 0; C 0 1.525 0 0; O 3 0.625 1.063 0; CB 0 -0.525 -0.778 -1.208;
            CG 4 0.600 1.370 0; ND1 5 0.744 1.160 0; CD2 5 0.889 -1.021 0.003; CE1 5 2.030 0.851 0.002;
            NE2 5 2.145 -0.466 0.004""",
        "ILE": """N 0 -0.493 1.373 0; CA 0 0 0 0; C 0 1.527 0 0; O 3 0.627 1.062 0; CB 0 -0.536 -0.793 -1.213;
            CG1 4 0.534 1.437 0; CG2 4 0.540 -0.785 -1.199; CD1 5 0.619 1.391 0""",
        "LEU": """N 0 -0.520 1.363 0; CA 0 0 0 0; C 0 1.525 0 0; O 3 0.625 1.063 0; CB 0 -0.522 -0.773 -1.214;
            CG 4 0.678 1.371 0; CD1 5 0.530 1.430 0; CD2 5 0.535 -0.774 1.200""",
        "LYS": """N 0 -0.526 1.362 0; CA 0 0 0 0; C 0 1.526 0 0; O 3 0.626 1.062 0; CB 0 -0.524 -0.778 -1.208;
            CG 4 0.619 1.390 0; CD 5 0.559 1.417 0; CE 6 0.560 1.416 0; NZ 7 0.554 1.387 0""",
        "MET": """N 0 -0.521 1.364 0; CA 0 0 0 0; C 0 1.525 0 0; O 3 0.625 1.062 0; CB 0 -0.523 -0.776 -1.210;
            CG 4 0.613 1.391 0; SD 5 0.703 1.695 0; CE 6 0.320 1.786 0""",
        "PHE": """N 0 -0.518 1.363 0; CA 0 0 0 0; C 0 1.524 0 0; O 3 0.626 1.062 0; CB 0 -0.525 -0.776 -1.212;
            CG 4 0.607 1.377 0; CD1 5 0.709 1.195 0; CD2 5 0.706 -1.196 0; CE1 5 2.102 1.198 0;
            CE2 5 2.098 -1.201 0; CZ 5 2.794 -0.003 -0.001""",
        "PRO": """N 0 -0.566 1.351 0; CA 0 0 0 0; C 0 1.527 0 0; O 3 0.621 1.066 0; CB 0 -0.546 -0.611 -1.293;
            CG 4 0.382 1.445 0; CD 5 0.477 1.424 0""",
        "SER": """N 0 -0.529 1.360 0; CA 0 0 0 0; C 0 1.525 0 0; O 3 0.626 1.062 0; CB 0 -0.518 -0.777 -1.211;
            OG 4 0.503 1.325 0""",
        "THR": """N 0 -0.517 1.364 0; CA 0 0 0 0; C 0 1.526 0 0; O 3 0.626 1.062 0; CB 0 -0.516 -0.793 -1.215;
            OG1 4 0.472 1.353 0; CG2 4 0.550 -0.718 -1.228""",
        "TRP": """N 0 -0.521 1.363 0; CA 0 0 0 0; C 0 1.525 0 0; O 3 0.627 1.062 0; CB 0 -0.523 -0.776 -1.212;
            CG 4 0.609 1.370 0; CD1 5 0.824 1.091 0; CD2 5 0.854 -1.148 -0.005; NE1 5 2.140 0.690 -0.004;
            CE2 5 2.186 -0.678 -0.007; CE3 5 0.622 -2.530 -0.007; CZ2 5 3.283 -1.543 -0.011;
            CZ3 5 1.715 -3.389 -0.011; CH2 5 3.028 -2.890 -0.013""",
        "TYR": """N 0 -0.522 1.362 0; CA 0 0 0 0; C 0 1.524 0 0; O 3 0.627 1.062 0; CB 0 -0.522 -0.776 -1.213;
            CG 4 0.607 1.382 0; CD1 5 0.716 1.195 0; CD2 5 0.713 -1.194 -0.001; CE1 5 2.107 1.200 -0.002;
            CE2 5 2.104 -1.201 -0.003; CZ 5 2.791 -0.001 -0.003; OH 5 4.168 -0.002 -0.005""",
        "VAL": """N 0 -0.494 1.373 0; CA 0 0 0 0; C 0 1.527 0 0; O 3 0.627 1.062 0; CB 0 -0.533 -0.795 -1.213;
            CG1 4 0.540 1.429 0; CG2 4 0.533 -0.776 1.203""",
    }
)


@cache
def atoms_of(residue: str) -> tuple[str, ...]:
    """Return the names of a residue's atoms in the order of atom14."""
    return tuple(name for name, _, _ in _ideal(residue))


@cache
def _ideal(residue: str) -> tuple[tuple[str, int, tuple[float, ...]], ...]:
    """Return name, rigid group and position there of a residue's atoms."""
    rows = [row.split() for row in _IDEAL[residue].split(";")]
    return tuple((name, int(group), tuple(map(float, xyz))) for name, group, *xyz in rows)


def chi_atoms(residue: str) -> tuple[tuple[str, ...], ...]:
    """Return the four atoms of every side-chain torsion of a residue."""
    chain = _CHI_CHAINS.get(residue, "").split()
    return tuple(tuple(chain[k : k + 4]) for k in range(len(chain) - 3))


@cache
def atom14_to_atom37() -> NDArray[np.int64]:
    """Return [21, 14] where an atom of atom14 stands in atom37; 0 where there is none."""
    table = np.zeros((KINDS, ATOMS14), np.int64)
    for k, residue in enumerate(NAMES):
        table[k, : len(atoms_of(residue))] = [ATOM37[name] for name in atoms_of(residue)]
    return table


@cache
def atom37_to_atom14() -> NDArray[np.int64]:
    """Return [21, 37] where an atom of atom37 stands in atom14; 0 where there is none."""
    table = np.zeros((KINDS, len(ATOMS37)), np.int64)
    for k, residue in enumerate(NAMES):
        for place, name in enumerate(atoms_of(residue)):
            table[k, ATOM37[name]] = place
    return table


@cache
def atom14_mask() -> NDArray[np.float32]:
    """Return [21, 14] which atoms of atom14 a residue has."""
    table = np.zeros((KINDS, ATOMS14), np.float32)
    for k, residue in enumerate(NAMES):
        table[k, : len(atoms_of(residue))] = 1
    return table


@cache
def atom37_mask() -> NDArray[np.float32]:
    """Return [21, 37] which atoms of atom37 a residue has."""
    table = np.zeros((KINDS, len(ATOMS37)), np.float32)
    for k, residue in enumerate(NAMES):
        table[k, [ATOM37[name] for name in atoms_of(residue)]] = 1
    return table


@cache
def atom14_swap() -> NDArray[np.int64]:
    """Return [21, 14] the place in atom14 that an atom takes when interchangeable names are exchanged."""
    table = np.tile(np.arange(ATOMS14), (KINDS, 1))
    for residue, pairs in SWAPS.items():
        for pair in pairs:
            one, other = (atoms_of(residue).index(name) for name in pair)
            table[INDEX[residue], [one, other]] = other, one
    return table


@cache
def chi_mask() -> NDArray[np.float32]:
    """Return [21, 4] which side-chain torsions a residue has."""
    counts = np.array([len(chi_atoms(residue)) for residue in NAMES] + [0])
    return (np.arange(4) < counts[:, None]).astype(np.float32)


@cache
def chi_atom37() -> NDArray[np.int64]:
    """Return [21, 4, 4] the four atoms of every side-chain torsion in atom37; 0 where there is none."""
    table = np.zeros((KINDS, 4, 4), np.int64)
    for k, residue in enumerate(NAMES):
        for chi, names in enumerate(chi_atoms(residue)):
            table[k, chi] = [ATOM37[name] for name in names]
    return table


@cache
def chi_pi_periodic() -> NDArray[np.float32]:
    """Return [21, 4] which side-chain torsions have a period of pi."""
    table = np.zeros((KINDS, 4), np.float32)
    for residue in SWAPS:
        table[INDEX[residue], len(chi_atoms(residue)) - 1] = 1
    return table


@cache
def atom14_group() -> NDArray[np.int64]:
    """Return [21, 14] the rigid group of an atom."""
    table = np.zeros((KINDS, ATOMS14), np.int64)
    for k, residue in enumerate(NAMES):
        table[k, : len(atoms_of(residue))] = [group for _, group, _ in _ideal(residue)]
    return table


@cache
def atom14_ideal() -> NDArray[np.float32]:
    """Return [21, 14, 3] the ideal position of an atom in its rigid group, in angstroms."""
    table = np.zeros((KINDS, ATOMS14, 3), np.float32)
    for k, residue in enumerate(NAMES):
        table[k, : len(atoms_of(residue))] = [xyz for _, _, xyz in _ideal(residue)]
    return table


@cache
def default_frames() -> NDArray[np.float32]:
    """Return [21, 8, 4, 4] a rigid group in the one before it, at torsion 0; chi groups follow each other.

    Groups that a residue has not, and all of an unknown residue, are zero, as in the released constants.
    """
    table = np.zeros((KINDS, GROUPS, 4, 4), np.float32)
    for k, residue in enumerate(NAMES):
        table[k, :2] = np.eye(4)
        at = {name: np.array(xyz) for name, _, xyz in _ideal(residue)}
        table[k, 2] = _frame(at["N"] - at["CA"], np.array([1.0, 0.0, 0.0]), at["N"])
        table[k, 3] = _frame(at["C"] - at["CA"], at["CA"] - at["N"], at["C"])
        for chi, (a, b, c, _) in enumerate(chi_atoms(residue)):
            # Positions of the first three atoms share a group only for chi 1; later axes start at their group's origin.
            x, y = (at[c] - at[b], at[a] - at[b]) if chi == 0 else (at[c], np.array([-1.0, 0.0, 0.0]))
            table[k, 4 + chi] = _frame(x, y, at[c])
    return table


def _frame(x: NDArray[np.float64], y: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [4, 4] the frame with this x axis, y axis nearest to y, and origin."""
    x = x / np.linalg.norm(x)
    y = y - np.dot(y, x) * x
    y = y / np.linalg.norm(y)
    frame = np.eye(4)
    frame[:3] = np.stack([x, y, np.cross(x, y), origin], axis=1)
    return frame
