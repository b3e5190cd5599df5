"""Torsions from positions."""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.rigid import from_three_points
from sartor.tools.fold.geometry.tables import gather_atoms, lookup

_N, _CA, _C, _O = (residues.ATOM37[name] for name in ("N", "CA", "C", "O"))
_EPS = 1e-8


def torsions(aatype: Tensor, positions: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the seven torsions (omega before the residue, phi, psi, chi 1 to 4) as sine and cosine.

    aatype [*, N], positions [*, N, 37, 3], mask [*, N, 37]; gives the angles [*, N, 7, 2], the same with torsions of
    period pi turned by pi, and which are known [*, N, 7].
    """
    atoms, known = _quadruples(aatype, positions, mask)
    angles = _sine_cosine(atoms)
    # The oxygen defines psi, and lies opposite to the next nitrogen.
    angles = angles * angles.new_tensor([1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0])[:, None]
    mirror = 1 - 2 * lookup(residues.chi_pi_periodic, aatype).to(angles.dtype)
    mirror = torch.cat([mirror.new_ones(*mirror.shape[:-1], 3), mirror], dim=-1)
    return {
        "torsion_angles_sin_cos": angles,
        "alt_torsion_angles_sin_cos": angles * mirror[..., None],
        "torsion_angles_mask": known,
    }


def _quadruples(aatype: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the four atoms of every torsion [*, N, 7, 4, 3] and whether all are known [*, N, 7]."""
    before, before_mask = _shifted(positions, -3), _shifted(mask, -2)
    atoms = [
        torch.cat([before[..., [_CA, _C], :], positions[..., [_N, _CA], :]], dim=-2),
        torch.cat([before[..., [_C], :], positions[..., [_N, _CA, _C], :]], dim=-2),
        positions[..., [_N, _CA, _C, _O], :],
    ]
    known = [
        torch.cat([before_mask[..., [_CA, _C]], mask[..., [_N, _CA]]], dim=-1),
        torch.cat([before_mask[..., [_C]], mask[..., [_N, _CA, _C]]], dim=-1),
        mask[..., [_N, _CA, _C, _O]],
    ]
    index = lookup(residues.chi_atom37, aatype)
    chi = gather_atoms(positions, index.flatten(-2)).unflatten(-2, (4, 4))
    chi_known = torch.gather(mask, -1, index.flatten(-2)).unflatten(-1, (4, 4)).prod(dim=-1)
    chi_known = chi_known * lookup(residues.chi_mask, aatype).to(mask.dtype)
    backbone_known = torch.stack(known, dim=-2).prod(dim=-1)
    return torch.cat([torch.stack(atoms, dim=-3), chi], dim=-3), torch.cat([backbone_known, chi_known], dim=-1)


def _shifted(values: Tensor, dim: int) -> Tensor:
    """Return the values of the residue before, zero for the first one."""
    first = torch.zeros_like(values.narrow(dim, 0, 1))
    return torch.cat([first, values.narrow(dim, 0, values.shape[dim] - 1)], dim=dim)


def _sine_cosine(atoms: Tensor) -> Tensor:
    """Return sine and cosine [*, 2] of the torsion of four atoms [*, 4, 3]."""
    a, b, c, d = atoms.unbind(-2)
    relative = from_three_points(b, c, a, _EPS).invert().apply(d)
    pair = torch.stack([relative[..., 2], relative[..., 1]], dim=-1)
    return pair / torch.sqrt(pair.square().sum(dim=-1, keepdim=True) + _EPS)
