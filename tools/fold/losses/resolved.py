"""Which atoms an experiment resolved."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sartor.tools.fold.losses.averages import masked_mean

_EPS = 1e-8


def resolved_loss(logits: Tensor, exists: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy over atoms that residues have (equation 43); all [*, N, 37]."""
    error = binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return masked_mean(error, exists, (-1, -2), _EPS)
