"""Means over what a mask keeps, and cross-entropies."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Return the mean over `dims` of the values that a mask of a shape that broadcasts keeps."""
    mask = mask.expand_as(values)
    return (values * mask).sum(dim=dims) / (eps + mask.sum(dim=dims))


def class_error(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy [*] of logits [*, C] with the classes target [*]."""
    return -torch.log_softmax(logits, dim=-1).gather(-1, target[..., None]).squeeze(-1)


def distance_bin(squares: Tensor, smallest: float, largest: float, bins: int) -> Tensor:
    """Return which of `bins` bins, with edges evenly from `smallest` to `largest`, squared distances [*] fall into."""
    edges = torch.linspace(smallest, largest, bins - 1, dtype=squares.dtype, device=squares.device) ** 2
    return (squares[..., None] > edges).sum(dim=-1)


def trusted(resolution: Tensor, smallest: float, largest: float) -> Tensor:
    """Return 1 for samples whose resolution in angstroms lies between, else 0."""
    return ((resolution >= smallest) & (resolution <= largest)).to(resolution.dtype)
