"""Frame aligned point error.

Shapes: F frames, P points, K blocks of the structure module, N residues.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.tools.fold.geometry.rigid import Rigid, from_4x4, from_7
from sartor.tools.fold.losses.rename import Renamed

CLAMP = 10.0
SCALE = 10.0
_EPS = 1e-4


def frame_aligned_error(
    frames: Rigid, true_frames: Rigid, frame_mask: Tensor, points: Tensor, true_points: Tensor, point_mask: Tensor
) -> Tensor:
    """Return the distances [*, F, P] in angstroms of points [*, P, 3] as frames [*, F] see them; masked ones are 0."""
    local = frames.invert().unsqueeze(-1).apply(points[..., None, :, :])
    true_local = true_frames.invert().unsqueeze(-1).apply(true_points[..., None, :, :])
    error = torch.sqrt((local - true_local).square().sum(dim=-1) + _EPS)
    return error * frame_mask[..., :, None] * point_mask[..., None, :]


def mean_error(error: Tensor, frame_mask: Tensor, point_mask: Tensor) -> Tensor:
    """Return the mean [*] of errors [*, F, P], in units of 10 angstroms."""
    by_frame = error.sum(dim=-1) / SCALE / (_EPS + frame_mask.sum(dim=-1, keepdim=True))
    return by_frame.sum(dim=-1) / (_EPS + point_mask.sum(dim=-1))


def backbone_fape(frames: Tensor, true_frames: Tensor, mask: Tensor, clamped: Tensor) -> Tensor:
    """Return the error of backbone frames and CA (algorithm 20, line 17), a mean over blocks.

    frames [*, K, N, 7], true_frames [*, N, 4, 4], mask [*, N]; clamped [*] is 1 for samples whose errors end at 10 A.
    """
    predicted, mask = from_7(frames), mask[..., None, :]
    true = from_4x4(true_frames[..., None, :, :, :].to(frames.dtype))
    error = frame_aligned_error(predicted, true, mask, predicted.translation, true.translation, mask)
    ends = mean_error(error.clamp(max=CLAMP), mask, mask)
    unbounded = mean_error(error, mask, mask)
    clamped = clamped[..., None]
    return (ends * clamped + unbounded * (1 - clamped)).mean(dim=-1)


def sidechain_fape(frames: Tensor, atoms: Tensor, batch: dict[str, Tensor], renamed: Renamed) -> Tensor:
    """Return the error of all rigid groups and atoms of the last block (algorithm 20, line 28).

    frames [*, N, 8, 4, 4], atoms [*, N, 14, 3]; errors end at 10 A.
    """
    swapped = renamed.swapped[..., None, None, None] > 0
    true = torch.where(swapped, batch["rigidgroups_alt_gt_frames"], batch["rigidgroups_gt_frames"])
    frame_mask, point_mask = batch["rigidgroups_gt_exists"].flatten(-2), renamed.exists.flatten(-2)
    error = frame_aligned_error(
        from_4x4(frames.flatten(-4, -3)),
        from_4x4(true.flatten(-4, -3).to(frames.dtype)),
        frame_mask,
        atoms.flatten(-3, -2),
        renamed.positions.flatten(-3, -2),
        point_mask,
    )
    return mean_error(error.clamp(max=CLAMP), frame_mask, point_mask)
