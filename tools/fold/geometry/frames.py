"""Rigid groups: from known positions, and from torsions to positions."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.rigid import Rigid, from_4x4, from_three_points, product
from sartor.tools.fold.geometry.tables import gather_atoms, lookup

_EPS = 1e-8


@cache
def _group_atoms() -> NDArray[np.int64]:
    """Return [21, 8, 3] the atoms (before the axis' end, at its end, after it) that define a rigid group."""
    table = np.zeros((residues.KINDS, residues.GROUPS, 3), np.int64)
    table[:, 0] = [residues.ATOM37[name] for name in ("C", "CA", "N")]
    table[:, 3] = [residues.ATOM37[name] for name in ("CA", "C", "O")]
    chi = residues.chi_atom37()
    table[:, 4:] = np.where(residues.chi_mask()[..., None] > 0, chi[..., 1:], 0)
    return table


@cache
def _group_exists() -> NDArray[np.float32]:
    """Return [21, 8] which rigid groups a residue has; omega and phi move no heavy atom."""
    table = np.zeros((residues.KINDS, residues.GROUPS), np.float32)
    table[:, [0, 3]] = 1
    table[:, 4:] = residues.chi_mask()
    return table


@cache
def _group_ambiguous() -> NDArray[np.float32]:
    """Return [21, 8] which rigid groups could as well be turned by pi about x."""
    table = np.zeros((residues.KINDS, residues.GROUPS), np.float32)
    table[:, 4:] = residues.chi_pi_periodic()
    return table


def frame_truth(aatype: Tensor, positions: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the rigid groups of known positions and the same with interchangeable names exchanged.

    aatype [*, N], positions [*, N, 37, 3], mask [*, N, 37]; frames are [*, N, 8, 4, 4], masks [*, N, 8].
    """
    index = lookup(_group_atoms, aatype)
    points = gather_atoms(positions, index.flatten(-2)).unflatten(-2, index.shape[-2:])
    before, end, after = points.unbind(-2)
    frames = from_three_points(before, end, after, _EPS)
    known = torch.gather(mask, -1, index.flatten(-2)).unflatten(-1, index.shape[-2:]).amin(dim=-1)
    # The backbone's x axis points to C, which comes first here: turn by pi about y.
    turn = positions.new_ones(residues.GROUPS, 3)
    turn[0] = turn.new_tensor([-1.0, 1.0, -1.0])
    frames = Rigid(frames.rotation * turn[:, None, :], frames.translation)
    exists = lookup(_group_exists, aatype).to(mask.dtype)
    ambiguous = lookup(_group_ambiguous, aatype).to(positions.dtype)
    mirror = torch.stack([torch.ones_like(ambiguous), 1 - 2 * ambiguous, 1 - 2 * ambiguous], dim=-1)
    return {
        "rigidgroups_gt_frames": frames.to_4x4(),
        "rigidgroups_gt_exists": known * exists,
        "rigidgroups_group_exists": exists,
        "rigidgroups_group_is_ambiguous": ambiguous,
        "rigidgroups_alt_gt_frames": Rigid(frames.rotation * mirror[..., None, :], frames.translation).to_4x4(),
    }


def torsion_frames(backbone: Rigid, angles: Tensor, aatype: Tensor) -> Rigid:
    """Return the eight rigid groups [*, N, 8] of backbones [*, N] and torsions [*, N, 7, 2] (algorithm 24)."""
    dtype = backbone.rotation.dtype
    default = from_4x4(lookup(residues.default_frames, aatype).to(dtype))
    identity = angles.new_tensor([0.0, 1.0]).expand(*angles.shape[:-2], 1, 2)
    turns = _about_x(torch.cat([identity, angles], dim=-2).to(dtype))
    local = Rigid(product(default.rotation, turns), default.translation)
    groups = [Rigid(local.rotation[..., k, :, :], local.translation[..., k, :]) for k in range(residues.GROUPS)]
    for k in (5, 6, 7):
        groups[k] = groups[k - 1].compose(groups[k])
    stacked = Rigid(
        torch.stack([group.rotation for group in groups], dim=-3),
        torch.stack([group.translation for group in groups], dim=-2),
    )
    return backbone.unsqueeze(-1).compose(stacked)


def _about_x(angles: Tensor) -> Tensor:
    """Return rotations [*, 3, 3] about x by angles [*, 2] (sine, cosine)."""
    sine, cosine = angles.unbind(-1)
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    rows = [[one, zero, zero], [zero, cosine, -sine], [zero, sine, cosine]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def atom14_positions(frames: Rigid, aatype: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the atoms [*, N, 14, 3] of rigid groups [*, N, 8] (algorithm 24, line 11)."""
    group = lookup(residues.atom14_group, aatype)
    rotation = torch.gather(frames.rotation, -3, group[..., None, None].expand(*group.shape, 3, 3))
    translation = gather_atoms(frames.translation, group)
    ideal = lookup(residues.atom14_ideal, aatype).to(dtype)
    atoms = Rigid(rotation, translation).apply(ideal)
    return atoms * lookup(residues.atom14_mask, aatype).to(dtype)[..., None]
