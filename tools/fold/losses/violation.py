"""Bonds, angles and distances that no structure has.

Shapes: N residues, A 14 atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from sartor.tools.fold import residues, stereochemistry

_N, _CA, _C = 0, 1, 2
_SG = residues.atoms_of("CYS").index("SG")
_PROLINE = residues.INDEX["PRO"]
_EPS = 1e-6
_CLASH_EPS = 1e-10
_LOSS_EPS = 1e-8


@dataclass(frozen=True)
class Bonds:
    """Violations between neighbours: means [*], sums a residue [*, N], and which residues violate [*, N]."""

    c_n: Tensor
    ca_c_n: Tensor
    c_n_ca: Tensor
    by_residue: Tensor
    violates: Tensor


@dataclass(frozen=True)
class Clashes:
    """Distances that are too short or too long: sums an atom [*, N, 14], and which atoms violate [*, N, 14]."""

    by_atom: Tensor
    violates: Tensor


@dataclass(frozen=True)
class Violations:
    """All violations of a structure, and the residues that have any [*, N]."""

    bonds: Bonds
    between: Clashes
    within: Clashes
    residues: Tensor


def find_violations(batch: dict[str, Tensor], atoms: Tensor, deviations: float, overlap: float) -> Violations:
    """Find what atoms [*, N, 14, 3] violate by more than so many deviations or an overlap in angstroms."""
    exists, aatype = batch["atom14_atom_exists"], batch["aatype"]
    bonds = _bonds(atoms, exists, batch["residue_index"], aatype, deviations)
    radius = exists * _radii(batch["residx_atom14_to_atom37"], atoms)
    between = _between(atoms, exists, radius, batch["residue_index"], overlap)
    within = _within(atoms, exists, aatype, deviations, overlap)
    any_of = torch.stack([bonds.violates, between.violates.amax(dim=-1), within.violates.amax(dim=-1)])
    return Violations(bonds, between, within, any_of.amax(dim=0))


def violation_loss(found: Violations, exists: Tensor) -> Tensor:
    """Return the sum of means [*] (equations 44 to 47); exists [*, N, 14]."""
    clash = (found.between.by_atom + found.within.by_atom).sum(dim=(-1, -2)) / (_LOSS_EPS + exists.sum(dim=(-1, -2)))
    return found.bonds.c_n + found.bonds.ca_c_n + found.bonds.c_n_ca + clash


def _radii(atom37: Tensor, like: Tensor) -> Tensor:
    """Return the van der Waals radii [*, N, 14] of atoms."""
    return like.new_tensor([residues.RADII[name[0]] for name in residues.ATOMS37])[atom37]


def _bonds(atoms: Tensor, exists: Tensor, residue_index: Tensor, aatype: Tensor, deviations: float) -> Bonds:
    """Judge the bond from C to the next N and the angles beside it (equations 44 and 45)."""
    adjacent = (residue_index[..., 1:] - residue_index[..., :-1] == 1).to(atoms.dtype)
    bonded = exists[..., :-1, _C] * exists[..., 1:, _N] * adjacent
    length, cosine_ca_c_n, cosine_c_n_ca = _peptide(atoms)
    ideal, deviation = _ideal_length(aatype[..., 1:] == _PROLINE, atoms)
    # The released code takes the deviation of the length for the first angle, and so do weights trained with it.
    first = atoms.new_tensor([stereochemistry.COSINE_CA_C_N, stereochemistry.PEPTIDE_LENGTH[1]])
    second = atoms.new_tensor(stereochemistry.COSINE_C_N_CA)
    judged = (
        _judge(length, ideal, deviations * deviation, bonded),
        _judge(cosine_ca_c_n, first[0], deviations * first[1], exists[..., :-1, _CA] * bonded),
        _judge(cosine_c_n_ca, second[0], deviations * second[1], exists[..., 1:, _CA] * bonded),
    )
    total = judged[0].excess + judged[1].excess + judged[2].excess
    violates = torch.stack([each.violates for each in judged]).amax(dim=0)
    by_residue = 0.5 * (pad(total, (0, 1)) + pad(total, (1, 0)))
    either = torch.maximum(pad(violates, (0, 1)), pad(violates, (1, 0)))
    return Bonds(judged[0].mean, judged[1].mean, judged[2].mean, by_residue, either)


def _peptide(atoms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return length C-N and the cosines at C (CA-C-N) and at N (C-N-CA), all [*, N - 1]."""
    ca, c = atoms[..., :-1, _CA, :], atoms[..., :-1, _C, :]
    n, next_ca = atoms[..., 1:, _N, :], atoms[..., 1:, _CA, :]
    (to_ca, _), (to_n, length), (to_next_ca, _) = _unit(ca - c), _unit(n - c), _unit(next_ca - n)
    return length, (to_ca * to_n).sum(dim=-1), (-to_n * to_next_ca).sum(dim=-1)


def _ideal_length(proline: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation [*, N - 1] of the bond to residues of which some are prolines."""
    ring = like.new_tensor(stereochemistry.PEPTIDE_LENGTH_PROLINE)
    plain = like.new_tensor(stereochemistry.PEPTIDE_LENGTH)
    return torch.where(proline, ring[0], plain[0]), torch.where(proline, ring[1], plain[1])


@dataclass(frozen=True)
class _Judged:
    excess: Tensor
    violates: Tensor
    mean: Tensor


def _judge(value: Tensor, ideal: Tensor, tolerance: Tensor, mask: Tensor) -> _Judged:
    """Compare values [*, N - 1] with an ideal."""
    error = torch.sqrt(_EPS + (value - ideal).square())
    excess = torch.relu(error - tolerance)
    return _Judged(excess, mask * (error > tolerance), (mask * excess).sum(dim=-1) / (mask.sum(dim=-1) + _EPS))


def _unit(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the direction [*, 3] and the length [*] of vectors."""
    length = torch.sqrt(_EPS + vector.square().sum(dim=-1))
    return vector / length[..., None], length


def _between(atoms: Tensor, exists: Tensor, radius: Tensor, residue_index: Tensor, overlap: float) -> Clashes:
    """Judge atoms of different residues (equation 46); the peptide bond and disulfide bridges are no clashes.

    As in the released code, what stands in the place of a cysteine's SG forms a bridge in every residue.
    """
    distance = _pair_distances(atoms[..., :, None, :, None, :], atoms[..., None, :, None, :, :])  # [*, N, N, 14, 14]
    mask = exists[..., :, None, :, None] * exists[..., None, :, None, :]
    first, second = residue_index[..., :, None], residue_index[..., None, :]
    mask = mask * (first < second)[..., None, None]
    bond = torch.zeros(residues.ATOMS14, residues.ATOMS14, dtype=torch.bool, device=atoms.device)
    bond[_C, _N] = True
    bridge = torch.zeros_like(bond)
    bridge[_SG, _SG] = True
    mask = mask * ~(((first + 1 == second)[..., None, None] & bond) | bridge)
    bound = mask * (radius[..., :, None, :, None] + radius[..., None, :, None, :])
    excess = mask * torch.relu(bound - overlap - distance)
    clash = mask * (distance < bound - overlap)
    return Clashes(
        excess.sum(dim=(-4, -2)) + excess.sum(dim=(-3, -1)),
        torch.maximum(clash.amax(dim=(-4, -2)), clash.amax(dim=(-3, -1))),
    )


def _within(atoms: Tensor, exists: Tensor, aatype: Tensor, deviations: float, overlap: float) -> Clashes:
    """Judge atoms of the same residue (equation 46)."""
    distance = _pair_distances(atoms[..., :, None, :], atoms[..., None, :, :])  # [*, N, 14, 14]
    others = 1 - torch.eye(residues.ATOMS14, dtype=atoms.dtype, device=atoms.device)
    mask = exists[..., :, None] * exists[..., None, :] * others
    bounds = torch.from_numpy(stereochemistry.distance_bounds(overlap, deviations)).to(atoms)
    low, high = bounds[:, aatype].unbind(0)
    excess = mask * (torch.relu(low - distance) + torch.relu(distance - high))
    violates = mask * ((distance < low) | (distance > high))
    return Clashes(excess.sum(dim=-2) + excess.sum(dim=-1), torch.maximum(violates.amax(dim=-2), violates.amax(dim=-1)))


def _pair_distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(_CLASH_EPS + (a - b).square().sum(dim=-1))
