"""Torsions from the single representation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.linear import Linear

ANGLES = 7
_EPS = 1e-8


class AngleResnetBlock(nn.Module):
    """A residual block (algorithm 20, line 12)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_1 = Linear(channels, channels, init="relu")
        self.linear_2 = Linear(channels, channels, init="final")

    def forward(self, a: Tensor) -> Tensor:
        """Map [*, c] to [*, c]."""
        update: Tensor = self.linear_2(torch.relu(self.linear_1(torch.relu(a))))
        return a + update


class AngleResnet(nn.Module):
    """Torsions (algorithm 20, lines 11 to 14), with a relu before the first layers as in the released code."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.structure.angle_channels
        self.linear_in = Linear(config.c_s, channels)
        self.linear_initial = Linear(config.c_s, channels)
        self.layers = nn.ModuleList(AngleResnetBlock(channels) for _ in range(config.structure.angle_blocks))
        self.linear_out = Linear(channels, 2 * ANGLES)

    def forward(self, s: Tensor, s_initial: Tensor) -> tuple[Tensor, Tensor]:
        """Return sines and cosines [*, N, 7, 2] as they come and of length 1; s and s_initial [*, N, c_s]."""
        a = self.linear_in(torch.relu(s)) + self.linear_initial(torch.relu(s_initial))
        for layer in self.layers:
            a = layer(a)
        raw = self.linear_out(torch.relu(a)).unflatten(-1, (ANGLES, 2))
        length = torch.sqrt(raw.square().sum(dim=-1, keepdim=True).clamp(min=_EPS))
        return raw, raw / length
