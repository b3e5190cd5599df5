"""lDDT-CA as a metric, and the loss of the head that predicts it."""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.tools.fold import residues
from sartor.tools.fold.losses.averages import class_error, masked_mean

CUTOFF = 15.0
_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
_CA = residues.ATOM37["CA"]
_EPS = 1e-8
_METRIC_EPS = 1e-10


def lddt_ca(predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Return the lDDT of CA atoms [*], 0 to 1; positions [*, N, 37, 3], mask [*, N, 37]."""
    return _lddt(predicted[..., _CA, :], truth[..., _CA, :], mask[..., _CA], (-2, -1), _METRIC_EPS)


def _lddt(predicted: Tensor, truth: Tensor, mask: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Return the share of distances below 15 A that points [*, N, 3] keep to within 0.5, 1, 2 and 4 A."""
    true_distance, distance = _distances(truth, eps), _distances(predicted, eps)
    others = 1 - torch.eye(mask.shape[-1], dtype=mask.dtype, device=mask.device)
    scored = (true_distance < CUTOFF) * mask[..., :, None] * mask[..., None, :] * others
    error = (true_distance - distance).abs()
    kept = torch.stack([error < threshold for threshold in _THRESHOLDS]).to(mask.dtype).mean(dim=0)
    return (eps + (scored * kept).sum(dim=dims)) / (eps + scored.sum(dim=dims))


def _distances(points: Tensor, eps: float) -> Tensor:
    return torch.sqrt(eps + (points[..., :, None, :] - points[..., None, :, :]).square().sum(dim=-1))


def plddt_loss(logits: Tensor, predicted: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy of the bin of a residue's lDDT-CA (section 1.9.6).

    logits [*, N, B], positions [*, N, 37, 3], mask [*, N, 37].
    """
    bins, ca_mask = logits.shape[-1], mask[..., _CA]
    score = _lddt(predicted[..., _CA, :].detach(), truth[..., _CA, :], ca_mask, (-1,), _EPS)
    place = (score * bins).floor().long().clamp(max=bins - 1)
    return masked_mean(class_error(logits, place), ca_mask, (-1,), _EPS)
