"""Which of two namings of interchangeable atoms a prediction is closer to.

Shapes: N residues, A atoms of atom14.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sartor.tools.fold import residues

_EPS = 1e-10


@cache
def _interchangeable() -> list[int]:
    """Return the places in atom14 that hold interchangeable atoms in any residue; only their distances matter."""
    swap = residues.atom14_swap()
    return [place for place in range(residues.ATOMS14) if (swap[:, place] != place).any()]


@dataclass(frozen=True)
class Renamed:
    """The truth under the better naming: [*, N, 14, 3], [*, N, 14], and which residues were swapped [*, N]."""

    positions: Tensor
    exists: Tensor
    swapped: Tensor


def rename(batch: dict[str, Tensor], atoms: Tensor) -> Renamed:
    """Choose the naming by distances to atoms whose names are certain (algorithm 26); atoms [*, N, 14, 3]."""
    exists, ambiguous = batch["atom14_gt_exists"], batch["atom14_atom_is_ambiguous"]
    either, certain = exists * ambiguous, exists * (1 - ambiguous)
    rows = _interchangeable()
    predicted = _distances(atoms[..., rows, :], atoms)
    mask = either[..., rows].flatten(-2)[..., :, None] * certain.flatten(-2)[..., None, :]

    def error(truth: Tensor) -> Tensor:
        difference = predicted - _distances(truth[..., rows, :], truth)
        kept = torch.sqrt(_EPS + difference.square()) * mask
        by_residue: Tensor = kept.sum(dim=-1).unflatten(-1, either[..., rows].shape[-2:]).sum(dim=-1)
        return by_residue

    truth, other = batch["atom14_gt_positions"], batch["atom14_alt_gt_positions"]
    swapped = error(other) < error(truth)
    return Renamed(
        torch.where(swapped[..., None, None], other, truth),
        torch.where(swapped[..., None], batch["atom14_alt_gt_exists"], exists),
        swapped.to(atoms.dtype),
    )


def _distances(some: Tensor, all_atoms: Tensor) -> Tensor:
    """Return [*, N * rows, N * 14] distances of atoms [*, N, rows, 3] and [*, N, 14, 3]."""
    some, all_atoms = some.flatten(-3, -2), all_atoms.flatten(-3, -2)
    return torch.sqrt(_EPS + (some[..., :, None, :] - all_atoms[..., None, :, :]).square().sum(dim=-1))
