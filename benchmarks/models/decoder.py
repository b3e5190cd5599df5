"""A causal decoder like Llama: RMSNorm, rotary positions, grouped queries, gated feed-forward, last token's logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example

VOCABULARY, LONGEST = 4096, 2048


@dataclass(frozen=True)
class Size:
    """The widths of a decoder."""

    layers: int
    hidden: int
    heads: int
    keys: int
    """Heads of keys and values, each shared by heads / keys queries (Ainslie et al. 2023)."""

    @property
    def width(self) -> int:
        """The size of one head."""
        return self.hidden // self.heads


BASE, SMALL = Size(6, 512, 8, 8), Size(2, 64, 4, 4)
GROUPED, SMALL_GROUPED = Size(4, 1024, 16, 4), Size(2, 64, 4, 2)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, written plainly as the Llama code does."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden).uniform_(0.5, 1.5))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the normalised last axis."""
        return self.weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(part_BHSD: Tensor, cosine_SD: Tensor, sine_SD: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of a head by the angle of its position (RoFormer, equation 34)."""
    first, second = part_BHSD.chunk(2, dim=-1)
    return part_BHSD * cosine_SD + torch.cat((-second, first), dim=-1) * sine_SD


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped queries."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.width, self.shared = size.width, size.heads // size.keys
        narrow = size.keys * size.width
        self.query, self.key, self.value, self.out = (
            nn.Linear(size.hidden, outputs, bias=False) for outputs in (size.hidden, narrow, narrow, size.hidden)
        )

    def forward(self, hidden_BSC: Tensor, cosine_SD: Tensor, sine_SD: Tensor) -> Tensor:
        """Return the mixed values (B, S, hidden)."""
        query, key, value = (self._split(part(hidden_BSC)) for part in (self.query, self.key, self.value))
        query, key = rotate(query, cosine_SD, sine_SD), rotate(key, cosine_SD, sine_SD)
        key, value = self._repeat(key), self._repeat(value)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, hidden_BSC: Tensor) -> Tensor:
        return hidden_BSC.unflatten(-1, (-1, self.width)).transpose(1, 2)

    def _repeat(self, part_BKSD: Tensor) -> Tensor:
        """Give every query head its keys, as the Llama code does: (B, K, S, D) to (B, heads, S, D)."""
        if self.shared == 1:
            return part_BKSD
        return part_BKSD[:, :, None].expand(-1, -1, self.shared, -1, -1).flatten(1, 2)


class Layer(nn.Module):
    """Attention and a gated feed-forward, each behind an RMSNorm."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention = Attention(size)
        self.norms = nn.ModuleList(RMSNorm(size.hidden) for _ in range(2))
        wide = 8 * size.hidden // 3 // 32 * 32
        self.gate, self.up = (nn.Linear(size.hidden, wide, bias=False) for _ in range(2))
        self.down = nn.Linear(wide, size.hidden, bias=False)

    def forward(self, hidden_BSC: Tensor, cosine_SD: Tensor, sine_SD: Tensor) -> Tensor:
        """Return the next hidden states (B, S, hidden)."""
        hidden_BSC = hidden_BSC + self.attention(self.norms[0](hidden_BSC), cosine_SD, sine_SD)
        normed = self.norms[1](hidden_BSC)
        return hidden_BSC + self.down(nn.functional.silu(self.gate(normed)) * self.up(normed))


class Decoder(nn.Module):
    """The whole decoder."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, size.hidden)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = RMSNorm(size.hidden)
        self.head = nn.Linear(size.hidden, VOCABULARY, bias=False)
        turns = 10000 ** (-torch.arange(0, size.width, 2) / size.width)
        angles = torch.outer(torch.arange(LONGEST), turns).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Return the logits (B, vocabulary) of the token after the last."""
        length = ids_BS.shape[1]
        hidden_BSC = self.token(ids_BS)
        for layer in self.layers:
            hidden_BSC = layer(hidden_BSC, self.cosine[:length], self.sine[:length])
        return self.head(self.norm(hidden_BSC[:, -1]))


def decoder(small: bool) -> Example:
    """Return a decoder of 6 layers and width 512, or a small one."""
    return _example(SMALL if small else BASE)


def llama(small: bool) -> Example:
    """Return a decoder of 4 layers and width 1024, whose 16 queries share 4 keys and values, or a small one."""
    return _example(SMALL_GROUPED if small else GROUPED)


def _example(size: Size) -> Example:
    batch, sequence = Dim("batch", max=64), Dim("sequence", min=2, max=LONGEST)
    ids = torch.randint(VOCABULARY, (2, 24))
    return Example(Decoder(size), (ids,), {"ids": {0: batch, 1: sequence}})
