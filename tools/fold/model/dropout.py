"""Dropout whose mask is shared along one dimension, added to a residual (section 1.11.6)."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, COLUMNS = -3, -2
"""The dimension of [*, rows, columns, c] along which a mask is shared."""


def dropout_add(residual: Tensor, update: Tensor, rate: float, shared: int, training: bool) -> Tensor:
    """Return residual + dropout(update); one mask serves all rows (or all columns)."""
    if not training or rate == 0.0:
        return residual + update
    shape = list(update.shape)
    shape[shared] = 1
    keep = torch.empty(shape, dtype=update.dtype, device=update.device).bernoulli_(1 - rate)
    return torch.addcmul(residual, update, keep / (1 - rate))
