"""Layer normalisation over the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-5


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise [*, c]; statistics are at least float32 whatever the type of x."""
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), _EPS)


class LayerNorm(nn.Module):
    """Layer normalisation with scale and offset."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [*, c]."""
        return layer_norm(x, self.weight, self.bias)
