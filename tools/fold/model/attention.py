"""Gated multi-head attention over rows, with a mask of keys and a bias that all rows share.

Shapes: * leading dimensions, R rows that attend each on its own, Q queries, K keys, H heads, D width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sartor.tools.fold.model.linear import JointLinear, Linear, Part, split_on_export

MASKED = 1e9
"""What is taken from the logit of a masked key; where all keys are masked, all weigh the same."""


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax(q k + mask + bias) v, [*, R, H, Q, D].

    q [*, R, H, Q, D] is scaled already, k and v [*, R, H, K, D], mask [*, R, K] is 1 for keys that count, bias
    [*, H, Q, K]. Logits are at least float32.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = torch.matmul(q.to(wide), k.to(wide).mT)
    # In place: these are the largest tensors of all, and their sum is all that a backward pass needs.
    logits += ((mask.to(wide) - 1) * MASKED)[..., None, None, :]
    if bias is not None:
        logits += bias.to(wide).unsqueeze(-4)
    return torch.matmul(torch.softmax(logits, dim=-1).to(v.dtype), v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Map [*, N, H * D] to [*, H, N, D]."""
    parts: Tensor = x.unflatten(-1, (heads, -1))
    return parts.transpose(-2, -3)


def join_heads(x: Tensor) -> Tensor:
    """Map [*, H, N, D] to [*, N, H * D]."""
    return x.transpose(-2, -3).flatten(-2)


class GatedSelfAttention(nn.Module):
    """Attention among the elements of every row, with a gate; q, k, v and gate are one product."""

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        inner = width * heads
        plain = [Part(f"linear_{name}", inner, bias=False, init="glorot") for name in "qkv"]
        self.linear_qkvg = JointLinear(channels, [*plain, Part("linear_g", inner, init="gating")])
        self.linear_o = Linear(inner, channels, init="final")
        split_on_export(self, "linear_qkvg")

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the update [*, R, N, c] of x [*, R, N, c]; mask [*, R, N], bias [*, H, N, N]."""
        q, k, v, gate = self.linear_qkvg(x)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        out = attention(q / math.sqrt(self.width), k, v, mask, bias)
        update: Tensor = self.linear_o(torch.sigmoid(gate) * join_heads(out))
        return update


class CrossAttention(nn.Module):
    """Attention of queries to other elements, without a gate; k and v are one product."""

    def __init__(self, c_query: int, c_key: int, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        inner = width * heads
        self.linear_q = Linear(c_query, inner, bias=False, init="glorot")
        self.linear_kv = JointLinear(c_key, [Part(f"linear_{name}", inner, bias=False, init="glorot") for name in "kv"])
        self.linear_o = Linear(inner, c_query, init="final")
        split_on_export(self, "linear_kv")

    def forward(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Return [*, R, Q, c_query] for query [*, R, Q, c_query], key [*, R, K, c_key], mask [*, R, K]."""
        q = split_heads(self.linear_q(query), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.linear_kv(key))
        update: Tensor = self.linear_o(join_heads(attention(q / math.sqrt(self.width), k, v, mask, None)))
        return update
