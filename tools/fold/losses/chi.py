"""Torsions of side chains, and the length of what predicts them.

Shapes: K blocks, N residues.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.tables import lookup
from sartor.tools.fold.losses.averages import masked_mean

_EPS = 1e-8
_MEAN_EPS = 1e-4


def chi_error(angles: Tensor, truth: Tensor, mask: Tensor, aatype: Tensor) -> Tensor:
    """Return the mean squared error of chi 1 to 4 (algorithm 27, lines 3 and 4).

    angles [*, K, N, 7, 2], truth [*, N, 4, 2], mask [*, N, 4], aatype [*, N]; a torsion of period pi may be turned.
    """
    chi, truth = angles[..., 3:, :], truth[..., None, :, :, :]
    turn = (1 - 2 * lookup(residues.chi_pi_periodic, aatype).to(chi.dtype))[..., None, :, :, None]
    error = (truth - chi).square().sum(dim=-1)
    turned = (turn * truth - chi).square().sum(dim=-1)
    return masked_mean(torch.minimum(error, turned), mask[..., None, :, :], (-1, -2, -3), _MEAN_EPS)


def angle_norm(raw: Tensor, mask: Tensor) -> Tensor:
    """Return how far predicted sines and cosines [*, K, N, 7, 2] are from length 1 (line 5); mask [*, N]."""
    error = (torch.sqrt(raw.square().sum(dim=-1) + _EPS) - 1).abs()
    return masked_mean(error, mask[..., None, :, None], (-1, -2, -3), _MEAN_EPS)
