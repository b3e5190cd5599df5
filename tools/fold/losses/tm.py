"""Aligned errors of pairs, from which a TM score is predicted."""

from __future__ import annotations

from torch import Tensor

from sartor.tools.fold.geometry.rigid import Rigid, from_4x4, from_7
from sartor.tools.fold.losses.averages import class_error, distance_bin, masked_mean

_EPS = 1e-8


def tm_loss(logits: Tensor, frames: Tensor, true_frames: Tensor, mask: Tensor, largest: float) -> Tensor:
    """Return the cross-entropy of the bins of aligned errors (section 1.9.7).

    logits [*, N, N, B], frames [*, N, 7], true_frames [*, N, 4, 4], mask [*, N]; `largest` is the last edge in A.
    """
    squares = (_seen(from_7(frames.detach())) - _seen(from_4x4(true_frames.to(frames.dtype)))).square().sum(dim=-1)
    error = class_error(logits, distance_bin(squares, 0.0, largest, logits.shape[-1]))
    return masked_mean(error, mask[..., :, None] * mask[..., None, :], (-1, -2), 2 * _EPS)


def _seen(frames: Rigid) -> Tensor:
    """Return the origins [*, N, N, 3] of all frames as every frame sees them."""
    return frames.invert().unsqueeze(-1).apply(frames.translation[..., None, :, :])
