"""From the trunk's representations to positions of atoms.

Frames are kept as quaternions and translations in `frame_dtype`, float32 like the released code's unless a caller
wants gradients to more digits. Shapes: N residues, K blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sartor.tools.fold.geometry.frames import atom14_positions, torsion_frames
from sartor.tools.fold.geometry.rigid import Rigid, normalise, quaternion_product, quaternion_rotation, rotate
from sartor.tools.fold.model.angle_resnet import AngleResnet
from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.invariant_point_attention import InvariantPointAttention
from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import Linear

ANGSTROMS = 10.0
"""The length of a unit inside the structure module."""


@dataclass(frozen=True)
class Backbone:
    """The frames of residues: unit quaternions [*, N, 4] and translations [*, N, 3]."""

    quaternion: Tensor
    translation: Tensor

    def rigid(self) -> Rigid:
        """Return the frames as rigid transforms."""
        return Rigid(quaternion_rotation(self.quaternion), self.translation)

    def update(self, step: Tensor) -> Backbone:
        """Compose with a step [*, N, 6]: the imaginary part of a quaternion 1 + bi + cj + dk, and a translation."""
        dtype = self.quaternion.dtype
        turn = torch.cat([torch.zeros_like(step[..., :1]), step[..., :3]], dim=-1)
        quaternion = self.quaternion + quaternion_product(self.quaternion, turn)
        translation = self.translation + rotate(quaternion_rotation(self.quaternion), step[..., 3:])
        return Backbone(normalise(quaternion.to(dtype)), translation.to(dtype))


def identity_backbone(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Backbone:
    """Return frames at the origin for residues of this shape."""
    quaternion = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=dtype, device=device).expand(*shape, 4)
    return Backbone(quaternion, torch.zeros(*shape, 3, dtype=dtype, device=device))


class BackboneUpdate(nn.Module):
    """Backbone update (algorithm 23)."""

    def __init__(self, c_s: int) -> None:
        super().__init__()
        self.linear = Linear(c_s, 6, init="final")

    def forward(self, s: Tensor) -> Tensor:
        """Map s [*, N, c_s] to a step [*, N, 6]."""
        step: Tensor = self.linear(s)
        return step


class SingleTransitionLayer(nn.Module):
    """Three layers with a residual (algorithm 20, line 8)."""

    def __init__(self, c_s: int) -> None:
        super().__init__()
        self.linear_1 = Linear(c_s, c_s, init="relu")
        self.linear_2 = Linear(c_s, c_s, init="relu")
        self.linear_3 = Linear(c_s, c_s, init="final")

    def forward(self, s: Tensor) -> Tensor:
        """Map [*, N, c_s] to [*, N, c_s]."""
        update: Tensor = self.linear_3(torch.relu(self.linear_2(torch.relu(self.linear_1(s)))))
        return s + update


class SingleTransition(nn.Module):
    """The transition with dropout and normalisation (algorithm 20, lines 8 and 9)."""

    def __init__(self, c_s: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([SingleTransitionLayer(c_s)])
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = LayerNorm(c_s)

    def forward(self, s: Tensor) -> Tensor:
        """Map [*, N, c_s] to [*, N, c_s]."""
        for layer in self.layers:
            s = layer(s)
        normalised: Tensor = self.layer_norm(self.dropout(s))
        return normalised


class StructureModule(nn.Module):
    """Structure module (algorithm 20); its blocks share their weights."""

    def __init__(self, config: ModelConfig, frame_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.blocks, self.frame_dtype = config.structure.blocks, frame_dtype
        self.layer_norm_s = LayerNorm(config.c_s)
        self.layer_norm_z = LayerNorm(config.c_z)
        self.linear_in = Linear(config.c_s, config.c_s)
        self.ipa = InvariantPointAttention(config)
        self.dropout = nn.Dropout(config.structure.dropout)
        self.layer_norm_ipa = LayerNorm(config.c_s)
        self.transition = SingleTransition(config.c_s, config.structure.dropout)
        self.bb_update = BackboneUpdate(config.c_s)
        self.angle_resnet = AngleResnet(config)

    def forward(self, s: Tensor, z: Tensor, aatype: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return frames, torsions and atoms of every block, under names that begin with `sm_`.

        s [*, N, c_s], z [*, N, N, c_z], aatype [*, N], mask [*, N]; blocks are stacked before N, lengths in angstroms.
        """
        s_initial, z = self.layer_norm_s(s), self.layer_norm_z(z)
        s = self.linear_in(s_initial)
        backbone = identity_backbone(s.shape[:-1], self.frame_dtype, s.device)
        states, backbones = [], []
        for _ in range(self.blocks):
            s = self.layer_norm_ipa(self.dropout(s + self.ipa(s, z, backbone.rigid(), mask)))
            s = self.transition(s)
            backbone = backbone.update(self.bb_update(s))
            states.append(s)
            backbones.append(backbone)
            # Orientations carry no gradient from block to block (algorithm 20, line 20).
            backbone = Backbone(backbone.quaternion.detach(), backbone.translation)
        every = Backbone(
            torch.stack([one.quaternion for one in backbones], dim=-3),
            torch.stack([one.translation for one in backbones], dim=-3),
        )
        predicted = self._atoms(torch.stack(states, dim=-3), s_initial.unsqueeze(-3), every, aatype)
        return predicted | {"sm_single": s}

    def _atoms(self, s: Tensor, s_initial: Tensor, backbone: Backbone, aatype: Tensor) -> dict[str, Tensor]:
        """Return what all blocks predict, [*, K, N, ...] (algorithm 20, lines 10 to 16 and 24)."""
        raw, angles = self.angle_resnet(s, s_initial)
        scaled = Backbone(backbone.quaternion, backbone.translation * ANGSTROMS)
        kinds = aatype.unsqueeze(-2).expand(s.shape[:-1])
        groups = torsion_frames(scaled.rigid(), angles, kinds)
        return {
            "sm_frames": torch.cat([scaled.quaternion, scaled.translation], dim=-1),
            "sm_sidechain_frames": groups.to_4x4(),
            "sm_unnormalized_angles": raw,
            "sm_angles": angles,
            "sm_positions": atom14_positions(groups, kinds, s.dtype),
            "sm_states": s,
        }
