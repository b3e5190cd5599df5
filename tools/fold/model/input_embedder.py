"""Embedding of the sequence, its MSA, and relative positions.

Shapes: S sequences, N residues.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.linear import Linear

TARGET_CHANNELS = 22
MSA_CHANNELS = 49
EXTRA_CHANNELS = 25


class InputEmbedder(nn.Module):
    """Input embedder (algorithm 3) with relative positions (algorithm 4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reach = config.relative_positions
        self.linear_tf_z_i = Linear(TARGET_CHANNELS, config.c_z)
        self.linear_tf_z_j = Linear(TARGET_CHANNELS, config.c_z)
        self.linear_tf_m = Linear(TARGET_CHANNELS, config.c_m)
        self.linear_msa_m = Linear(MSA_CHANNELS, config.c_m)
        self.linear_relpos = Linear(2 * self.reach + 1, config.c_z)

    def forward(self, target: Tensor, residue_index: Tensor, msa: Tensor) -> tuple[Tensor, Tensor]:
        """Return m [*, S, N, c_m] and z [*, N, N, c_z].

        target [*, N, 22], residue_index [*, N], msa [*, S, N, 49].
        """
        m = self.linear_msa_m(msa) + self.linear_tf_m(target)[..., None, :, :]
        z = self.linear_tf_z_i(target)[..., :, None, :] + self.linear_tf_z_j(target)[..., None, :, :]
        return m, z + self._relative(residue_index, z.dtype)

    def _relative(self, residue_index: Tensor, dtype: torch.dtype) -> Tensor:
        """Return [*, N, N, c_z]."""
        offset = residue_index[..., :, None] - residue_index[..., None, :]
        place = offset.clamp(-self.reach, self.reach) + self.reach
        embedded: Tensor = self.linear_relpos(one_hot(place, 2 * self.reach + 1).to(dtype))
        return embedded


class ExtraMSAEmbedder(nn.Module):
    """Embedding of the sequences that are no cluster centres (algorithm 2, line 15)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = Linear(EXTRA_CHANNELS, config.c_e)

    def forward(self, features: Tensor) -> Tensor:
        """Map [*, S, N, 25] to [*, S, N, c_e]."""
        embedded: Tensor = self.linear(features)
        return embedded
