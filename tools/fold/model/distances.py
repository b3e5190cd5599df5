"""Squared distances in bins."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot_distances(positions: Tensor, smallest: float, largest: float, bins: int, last: float) -> Tensor:
    """Return [*, N, N, bins], which bin the distance of two points [*, N, 3] falls into, in angstroms.

    Bins start at even steps from `smallest` to `largest`; the last one ends at the squared distance `last`.
    """
    edges = torch.linspace(smallest, largest, bins, dtype=positions.dtype, device=positions.device) ** 2
    upper = torch.cat([edges[1:], edges.new_tensor([last])])
    squares = (positions[..., :, None, :] - positions[..., None, :, :]).square().sum(dim=-1, keepdim=True)
    return ((squares > edges) & (squares < upper)).to(positions.dtype)
