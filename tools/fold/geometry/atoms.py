"""Atoms in two layouts, atom37 (one place a name) and atom14 (one place a heavy atom of the residue)."""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.tables import gather_atoms, lookup

_GLYCINE = residues.INDEX["GLY"]
_CA, _CB = residues.ATOM37["CA"], residues.ATOM37["CB"]


def layout(aatype: Tensor) -> dict[str, Tensor]:
    """Return which atoms residues [*, N] have and where either layout has them in the other."""
    return {
        "atom14_atom_exists": lookup(residues.atom14_mask, aatype),
        "residx_atom14_to_atom37": lookup(residues.atom14_to_atom37, aatype),
        "residx_atom37_to_atom14": lookup(residues.atom37_to_atom14, aatype),
        "atom37_atom_exists": lookup(residues.atom37_mask, aatype),
    }


def atom14_truth(aatype: Tensor, positions: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return known positions in atom14, and the same with interchangeable names exchanged.

    aatype [*, N], positions [*, N, 37, 3], mask [*, N, 37].
    """
    index = lookup(residues.atom14_to_atom37, aatype)
    exists = lookup(residues.atom14_mask, aatype).to(mask.dtype) * torch.gather(mask, -1, index)
    atom14 = exists[..., None] * gather_atoms(positions, index)
    swap = lookup(residues.atom14_swap, aatype)
    return {
        "atom14_gt_exists": exists,
        "atom14_gt_positions": atom14,
        "atom14_alt_gt_positions": gather_atoms(atom14, swap),
        "atom14_alt_gt_exists": torch.gather(exists, -1, swap),
        "atom14_atom_is_ambiguous": (swap != torch.arange(residues.ATOMS14, device=swap.device)).to(mask.dtype),
    }


def atom37_from_atom14(positions: Tensor, index: Tensor, exists: Tensor) -> Tensor:
    """Return [*, N, 37, 3] from [*, N, 14, 3]; atoms that a residue has not are at the origin.

    index and exists [*, N, 37] are `residx_atom37_to_atom14` and `atom37_atom_exists` of `layout`.
    """
    return gather_atoms(positions, index) * exists.to(positions.dtype)[..., None]


def pseudo_beta(aatype: Tensor, positions: Tensor) -> Tensor:
    """Return [*, N, 3], CB or for glycine CA, from positions [*, N, 37, 3]."""
    return torch.where((aatype == _GLYCINE)[..., None], positions[..., _CA, :], positions[..., _CB, :])


def pseudo_beta_mask(aatype: Tensor, mask: Tensor) -> Tensor:
    """Return [*, N] whether the atom of `pseudo_beta` is known, from mask [*, N, 37]."""
    return torch.where(aatype == _GLYCINE, mask[..., _CA], mask[..., _CB])
