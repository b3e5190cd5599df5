"""Transitions of the MSA and of pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import Linear


class Transition(nn.Module):
    """Two layers with a wide one between (algorithms 9 and 15); like AlphaFold's, it looks at no mask."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(channels)
        self.linear_1 = Linear(channels, factor * channels, init="relu")
        self.linear_2 = Linear(factor * channels, channels, init="final")

    def forward(self, x: Tensor) -> Tensor:
        """Return the update of x [*, c]."""
        update: Tensor = self.linear_2(torch.relu(self.linear_1(self.layer_norm(x))))
        return update
