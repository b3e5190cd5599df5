"""Embedding of the previous iteration's outputs."""

from __future__ import annotations

from torch import Tensor, nn

from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.distances import one_hot_distances
from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import Linear

_SMALLEST, _LARGEST, _BINS, _END = 3.25, 20.75, 15, 1e8


class RecyclingEmbedder(nn.Module):
    """Recycling embedder (algorithm 32)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = Linear(_BINS, config.c_z)
        self.layer_norm_m = LayerNorm(config.c_m)
        self.layer_norm_z = LayerNorm(config.c_z)

    def forward(self, m0: Tensor, z: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return updates of the first MSA row [*, N, c_m] and of pairs [*, N, N, c_z]; beta [*, N, 3] in angstroms."""
        bins = one_hot_distances(beta, _SMALLEST, _LARGEST, _BINS, _END)
        return self.layer_norm_m(m0), self.linear(bins.to(z.dtype)) + self.layer_norm_z(z)
