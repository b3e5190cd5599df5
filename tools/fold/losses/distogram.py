"""Distances of pairs."""

from __future__ import annotations

from torch import Tensor

from sartor.tools.fold.losses.averages import class_error, distance_bin, masked_mean

SMALLEST, LARGEST = 2.3125, 21.6875
_EPS = 1e-8


def distogram_loss(logits: Tensor, beta: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy of the bins of distances (equation 41).

    logits [*, N, N, B], beta [*, N, 3], mask [*, N].
    """
    squares = (beta[..., :, None, :] - beta[..., None, :, :]).square().sum(dim=-1)
    error = class_error(logits, distance_bin(squares, SMALLEST, LARGEST, logits.shape[-1]))
    return masked_mean(error, mask[..., :, None] * mask[..., None, :], (-1, -2), _EPS)
