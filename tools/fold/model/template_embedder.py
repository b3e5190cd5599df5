"""Embedding of templates, as pairs and as rows of the MSA.

Shapes: T templates, N residues.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sartor.tools.fold import residues
from sartor.tools.fold.model.attention import CrossAttention
from sartor.tools.fold.model.checkpointing import run
from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.distances import one_hot_distances
from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import Linear
from sartor.tools.fold.model.pair_stack import PairStack

_ANGLE_CHANNELS = 57
_PAIR_CHANNELS = 88
_KINDS = 22
"""20 residues, unknown, gap."""

_SMALLEST, _LARGEST, _BINS, _END = 3.25, 50.75, 39, 1e5
_BACKBONE = [residues.ATOM37[name] for name in ("N", "CA", "C")]


def pair_features(template: dict[str, Tensor]) -> Tensor:
    """Return [*, T, N, N, 88]: distances, masks and kinds of residues (section 1.2.10, table 1).

    The three unit vectors of a residue as its partner sees it are zero, as in the released models.
    """
    beta_mask = template["template_pseudo_beta_mask"]
    backbone = template["template_all_atom_mask"][..., _BACKBONE].prod(dim=-1)
    bins = one_hot_distances(template["template_pseudo_beta"], _SMALLEST, _LARGEST, _BINS, _END)
    shape = bins.shape[:-1]
    kinds = one_hot(template["template_aatype"], _KINDS).to(bins.dtype)
    parts = [
        bins,
        (beta_mask[..., :, None] * beta_mask[..., None, :])[..., None],
        kinds[..., None, :, :].expand(*shape, _KINDS),
        kinds[..., :, None, :].expand(*shape, _KINDS),
        bins.new_zeros(*shape, 3),
    ]
    backbone_pair = (backbone[..., :, None] * backbone[..., None, :])[..., None]
    return torch.cat([*parts, backbone_pair], dim=-1) * backbone_pair


def angle_features(template: dict[str, Tensor]) -> Tensor:
    """Return [*, T, N, 57]: kinds of residues, torsions, the same turned by their period, and which are known."""
    angles = template["template_torsion_angles_sin_cos"]
    parts = [
        one_hot(template["template_aatype"], _KINDS).to(angles.dtype),
        angles.flatten(-2),
        template["template_alt_torsion_angles_sin_cos"].flatten(-2),
        template["template_torsion_angles_mask"],
    ]
    return torch.cat(parts, dim=-1)


class TemplateAngleEmbedder(nn.Module):
    """Embedding of torsions as rows of the MSA (algorithm 2, line 7)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear_1 = Linear(_ANGLE_CHANNELS, config.c_m, init="relu")
        self.linear_2 = Linear(config.c_m, config.c_m, init="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Map [*, T, N, 57] to [*, T, N, c_m]."""
        embedded: Tensor = self.linear_2(torch.relu(self.linear_1(features)))
        return embedded


class TemplatePairEmbedder(nn.Module):
    """Embedding of pairs (algorithm 2, line 9)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = Linear(_PAIR_CHANNELS, config.c_t, init="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Map [*, T, N, N, 88] to [*, T, N, N, c_t]."""
        embedded: Tensor = self.linear(features)
        return embedded


class TemplatePairStack(nn.Module):
    """Template pair stack (algorithm 16)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.checkpointing = config.checkpointing
        self.blocks = nn.ModuleList(
            PairStack(config.c_t, config.template.pair, attention_first=True) for _ in range(config.template.blocks)
        )
        self.layer_norm = LayerNorm(config.c_t)

    def forward(self, t: Tensor, mask: Tensor) -> Tensor:
        """Return updated t [*, T, N, N, c_t]; mask [*, 1, N, N]."""
        for block in self.blocks:
            t = run(block, self.checkpointing, t, mask)
        normalised: Tensor = self.layer_norm(t)
        return normalised


class TemplatePointwiseAttention(nn.Module):
    """Template pointwise attention (algorithm 17)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mha = CrossAttention(config.c_z, config.c_t, config.template.attention, config.template.heads)

    def forward(self, t: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        """Return the update of z [*, N, N, c_z] from t [*, T, N, N, c_t]; mask [*, T]."""
        update: Tensor = self.mha(z[..., None, :], t.movedim(-4, -2), mask[..., None, None, :])
        return update.squeeze(-2)


class TemplateEmbedder(nn.Module):
    """All that the model makes of templates (algorithm 2, lines 7 to 13)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.template_single_embedder = TemplateAngleEmbedder(config)
        self.template_pair_embedder = TemplatePairEmbedder(config)
        self.template_pair_stack = TemplatePairStack(config)
        self.template_pointwise_att = TemplatePointwiseAttention(config)

    def forward(self, batch: dict[str, Tensor], z: Tensor, pair_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows of the MSA [*, T, N, c_m] and the update of z [*, N, N, c_z]; pair_mask [*, N, N]."""
        mask = batch["template_mask"].to(z.dtype)
        t = self.template_pair_embedder(pair_features(batch).to(z.dtype))
        t = self.template_pair_stack(t, pair_mask[..., None, :, :])
        update = self.template_pointwise_att(t, z, mask)
        some = (mask.sum(dim=-1) > 0).to(z.dtype)
        return self.template_single_embedder(angle_features(batch).to(z.dtype)), update * some[..., None, None, None]
