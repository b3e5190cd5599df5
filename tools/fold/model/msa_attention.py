"""Attention over the MSA: rows with pair bias, columns, and columns with one query for all (global).

Shapes: S sequences, N residues.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sartor.tools.fold.model.attention import MASKED, GatedSelfAttention
from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import JointLinear, Linear, Part, split_on_export

_EPS = 1e-8


class RowAttention(nn.Module):
    """Row-wise gated self-attention with pair bias (algorithm 7)."""

    def __init__(self, c_m: int, c_z: int, width: int, heads: int) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_m)
        self.layer_norm_z = LayerNorm(c_z)
        self.linear_z = Linear(c_z, heads, bias=False)
        self.mha = GatedSelfAttention(c_m, width, heads)

    def forward(self, m: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        """Return the update of m [*, S, N, c_m]; z [*, N, N, c_z], mask [*, S, N]."""
        bias = self.linear_z(self.layer_norm_z(z)).movedim(-1, -3)  # [*, H, N, N]
        update: Tensor = self.mha(self.layer_norm_m(m), mask, bias)
        return update


class _TransposedAttention(nn.Module):
    def __init__(self, c_m: int, width: int, heads: int) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_m)
        self.mha = GatedSelfAttention(c_m, width, heads)


class ColumnAttention(nn.Module):
    """Column-wise gated self-attention (algorithm 8)."""

    def __init__(self, c_m: int, width: int, heads: int) -> None:
        super().__init__()
        self._msa_att = _TransposedAttention(c_m, width, heads)

    def forward(self, m: Tensor, mask: Tensor) -> Tensor:
        """Return the update of m [*, S, N, c_m]; mask [*, S, N]."""
        columns = self._msa_att.layer_norm_m(m.transpose(-2, -3))  # [*, N, S, c_m]
        update: Tensor = self._msa_att.mha(columns, mask.mT)
        return update.transpose(-2, -3)


class GlobalColumnAttention(nn.Module):
    """Column-wise attention with the mean of a column as its only query (algorithm 19)."""

    def __init__(self, c_e: int, width: int, heads: int) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_e)
        self.global_attention = GlobalAttention(c_e, width, heads)

    def forward(self, m: Tensor, mask: Tensor) -> Tensor:
        """Return the update of m [*, S, N, c_e]; mask [*, S, N]."""
        columns = self.layer_norm_m(m.transpose(-2, -3))  # [*, N, S, c_e]
        update: Tensor = self.global_attention(columns, mask.mT)
        return update.transpose(-2, -3)


class GlobalAttention(nn.Module):
    """The attention of algorithm 19, lines 2 to 7; all heads share keys and values."""

    def __init__(self, c_e: int, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        inner = width * heads
        self.linear_q = Linear(c_e, inner, bias=False, init="glorot")
        shared = [Part(f"linear_{name}", width, bias=False, init="glorot") for name in "kv"]
        self.linear_kvg = JointLinear(c_e, [*shared, Part("linear_g", inner, init="gating")])
        self.linear_o = Linear(inner, c_e, init="final")
        split_on_export(self, "linear_kvg")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the update of columns x [*, N, S, c_e]; mask [*, N, S]."""
        # Numbers of sequences have more digits than bfloat16.
        count = mask.to(torch.promote_types(mask.dtype, torch.float32)).sum(dim=-1)[..., None]
        mean = (x * mask[..., None]).sum(dim=-2) / (count + _EPS)  # [*, N, c_e]
        q = self.linear_q(mean.to(x.dtype)).unflatten(-1, (self.heads, self.width)) * math.sqrt(
            1 / self.width
        )  # [*, N, H, D]
        k, v, gate = self.linear_kvg(x)  # [*, N, S, D] twice, [*, N, S, H * D]
        out = global_attention(q, k, v, mask)  # [*, N, H, D]
        update: Tensor = self.linear_o(torch.sigmoid(gate) * out.flatten(-2)[..., None, :])
        return update


def global_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return [*, N, H, D] for q [*, N, H, D], k and v [*, N, S, D] and mask [*, N, S]; logits at least float32."""
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = torch.matmul(q.to(wide), k.to(wide).mT) + ((mask.to(wide) - 1) * MASKED)[..., None, :]
    return torch.matmul(torch.softmax(logits, dim=-1).to(v.dtype), v)
