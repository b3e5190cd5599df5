"""Masked letters of the MSA."""

from __future__ import annotations

from torch import Tensor

from sartor.tools.fold.losses.averages import class_error

_EPS = 1e-8


def masked_msa_loss(logits: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy at masked places (equation 42): logits [*, S, N, 23], truth and mask [*, S, N]."""
    # Twice the small number, as the released code has it.
    return (class_error(logits, truth) * mask).sum(dim=(-1, -2)) / (2 * _EPS + mask.sum(dim=(-1, -2)))
