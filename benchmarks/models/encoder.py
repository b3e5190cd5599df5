"""A transformer encoder like BERT: post-norm, GELU, a padding mask, token, position and type embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example

VOCABULARY, LONGEST, TYPES = 4096, 512, 2


@dataclass(frozen=True)
class Size:
    """The widths of an encoder."""

    layers: int
    hidden: int
    heads: int


BASE, SMALL = Size(12, 768, 12), Size(2, 64, 4)


class Embeddings(nn.Module):
    """Token, position and type embeddings, added and normalised."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, size.hidden)
        self.position = nn.Embedding(LONGEST, size.hidden)
        self.kind = nn.Embedding(TYPES, size.hidden)
        self.norm = nn.LayerNorm(size.hidden)

    def forward(self, ids_BS: Tensor, types_BS: Tensor) -> Tensor:
        """Return hidden states (B, S, hidden)."""
        positions = torch.arange(ids_BS.shape[1], device=ids_BS.device)
        return self.norm(self.token(ids_BS) + self.position(positions) + self.kind(types_BS))


class Attention(nn.Module):
    """Self-attention written plainly, with an additive mask."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.query, self.key, self.value, self.out = (nn.Linear(size.hidden, size.hidden) for _ in range(4))

    def forward(self, hidden_BSC: Tensor, mask_B11S: Tensor) -> Tensor:
        """Return the mixed values (B, S, hidden)."""
        query, key, value = (self._split(part(hidden_BSC)) for part in (self.query, self.key, self.value))
        scores_BHSS = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = torch.softmax(scores_BHSS + mask_B11S, dim=-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, hidden_BSC: Tensor) -> Tensor:
        return hidden_BSC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual connection and a LayerNorm behind it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention = Attention(size)
        self.wide = nn.Linear(size.hidden, 4 * size.hidden)
        self.narrow = nn.Linear(4 * size.hidden, size.hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(size.hidden) for _ in range(2))

    def forward(self, hidden_BSC: Tensor, mask_B11S: Tensor) -> Tensor:
        """Return the next hidden states (B, S, hidden)."""
        hidden_BSC = self.norms[0](hidden_BSC + self.attention(hidden_BSC, mask_B11S))
        return self.norms[1](hidden_BSC + self.narrow(nn.functional.gelu(self.wide(hidden_BSC))))


class Encoder(nn.Module):
    """The whole encoder."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embeddings = Embeddings(size)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))

    def forward(self, ids_BS: Tensor, attention_BS: Tensor, types_BS: Tensor) -> Tensor:
        """Return hidden states (B, S, hidden) of token ids; `attention` is 1 for tokens and 0 for padding."""
        hidden_BSC = self.embeddings(ids_BS, types_BS)
        mask_B11S = (1 - attention_BS[:, None, None, :].to(hidden_BSC.dtype)) * -1e4
        for layer in self.layers:
            hidden_BSC = layer(hidden_BSC, mask_B11S)
        return hidden_BSC


def encoder(small: bool) -> Example:
    """Return an encoder of BERT-base's size, or a small one."""
    batch, sequence = Dim("batch", max=64), Dim("sequence", min=2, max=LONGEST)
    ids = torch.randint(VOCABULARY, (2, 24))
    attention = torch.ones_like(ids)
    attention[1, 15:] = 0
    dynamic = {name: {0: batch, 1: sequence} for name in ("ids", "attention", "types")}
    return Example(Encoder(SMALL if small else BASE), (ids, attention, torch.randint(TYPES, (2, 24))), dynamic)
