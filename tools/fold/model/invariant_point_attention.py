"""Invariant point attention.

Shapes: N residues, H heads, D width of a head, P points of a query, V points of a value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sartor.tools.fold.geometry.rigid import Rigid
from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.linear import JointLinear, Linear, Part, split_on_export

_MASKED = 1e5
_EPS = 1e-8
_SOFTPLUS_OF_ONE = math.log(math.expm1(1.0))


class InvariantPointAttention(nn.Module):
    """Invariant point attention (algorithm 22); projections have biases, as in the released code."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = config.structure
        self.heads, self.width = sizes.heads, sizes.attention
        self.query_points, self.value_points = sizes.query_points, sizes.value_points
        parts = [
            Part("linear_q", self.heads * self.width),
            Part("linear_kv", 2 * self.heads * self.width),
            Part("linear_q_points.linear", self.heads * self.query_points * 3),
            Part("linear_kv_points.linear", self.heads * (self.query_points + self.value_points) * 3),
        ]
        self.linear_single = JointLinear(config.c_s, parts)
        self.linear_b = Linear(config.c_z, self.heads)
        self.head_weights = nn.Parameter(torch.full((self.heads,), _SOFTPLUS_OF_ONE))
        inner = self.heads * (config.c_z + self.width + 4 * self.value_points)
        self.linear_out = Linear(inner, config.c_s, init="final")
        split_on_export(self, "linear_single")

    def forward(self, s: Tensor, z: Tensor, frames: Rigid, mask: Tensor) -> Tensor:
        """Return the update of s [*, N, c_s]; z [*, N, N, c_z], frames [*, N], mask [*, N]."""
        q, kv, q_points, kv_points = self.linear_single(s)
        q = q.unflatten(-1, (self.heads, -1))  # [*, N, H, D]
        k, v = kv.unflatten(-1, (self.heads, -1)).split(self.width, dim=-1)
        q_points = self._points(q_points, frames)  # [*, N, H, P, 3]
        k_points, v_points = self._points(kv_points, frames).split([self.query_points, self.value_points], dim=-2)
        logits = torch.matmul(q.movedim(-3, -2), k.movedim(-3, -1)) * math.sqrt(1 / (3 * self.width))  # [*, H, N, N]
        logits = logits + math.sqrt(1 / 3) * self.linear_b(z).movedim(-1, -3)
        logits = logits + self._distances(q_points, k_points)
        logits = logits + ((mask[..., :, None] * mask[..., None, :] - 1) * _MASKED)[..., None, :, :]
        return self._gather(torch.softmax(logits, dim=-1), v, v_points, z, frames)

    def _points(self, projected: Tensor, frames: Rigid) -> Tensor:
        """Return points [*, N, H, points, 3] in the global frame; the projection holds all x, then y, then z."""
        points = projected.unflatten(-1, (3, -1)).mT  # [*, N, H * points, 3]
        placed: Tensor = frames.unsqueeze(-1).apply(points).unflatten(-2, (self.heads, -1))
        return placed

    def _distances(self, q_points: Tensor, k_points: Tensor) -> Tensor:
        """Return what squared distances add to the logits [*, H, N, N]."""
        squares = (q_points[..., :, None, :, :, :] - k_points[..., None, :, :, :, :]).square().sum(dim=-1)
        weight = F.softplus(self.head_weights)[:, None] * math.sqrt(1 / (3 * (self.query_points * 9 / 2)))
        return -0.5 * (squares * weight).sum(dim=-1).movedim(-1, -3)

    def _gather(self, weights: Tensor, v: Tensor, v_points: Tensor, z: Tensor, frames: Rigid) -> Tensor:
        """Return the update [*, N, c_s] for weights [*, H, N, N]."""
        scalars = torch.matmul(weights, v.transpose(-2, -3)).transpose(-2, -3).flatten(-2)  # [*, N, H * D]
        points = torch.einsum("...hij,...jhpx->...ihpx", weights.to(v_points.dtype), v_points)
        points = frames.unsqueeze(-1).unsqueeze(-1).invert_apply(points).flatten(-3, -2)  # [*, N, H * V, 3]
        lengths = torch.sqrt(points.square().sum(dim=-1) + _EPS)
        pairs = torch.matmul(weights.transpose(-2, -3), z).flatten(-2)  # [*, N, H * c_z]
        update: Tensor = self.linear_out(torch.cat([scalars, *points.unbind(-1), lengths, pairs], dim=-1).to(z.dtype))
        return update
