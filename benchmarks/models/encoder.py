"""A transformer encoder like BERT: post-norm, GELU, a padding mask, token, position and type embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example

Weigh = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Mixes values (B, H, K, D) for queries (B, H, Q, D) by keys (B, H, K, D) and an additive mask of the scores."""

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


def weigh(query: Tensor, key: Tensor, value: Tensor, mask_B1QK: Tensor) -> Tensor:
    """Mix values by scaled dot products, written plainly."""
    scores_BHQK = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return torch.softmax(scores_BHQK + mask_B1QK, dim=-1) @ value


class Attention(nn.Module):
    """Attention to the sequence itself or to a memory, with an additive mask."""

    def __init__(self, size: Size, weigh: Weigh = weigh) -> None:
        super().__init__()
        self.heads, self.weigh = size.heads, weigh
        self.query, self.key, self.value, self.out = (nn.Linear(size.hidden, size.hidden) for _ in range(4))

    def forward(self, hidden_BSC: Tensor, mask_B1SK: Tensor, memory_BKC: Tensor | None = None) -> Tensor:
        """Return the mixed values (B, S, hidden)."""
        source_BKC = hidden_BSC if memory_BKC is None else memory_BKC
        query = self._split(self.query(hidden_BSC))
        key, value = (self._split(part(source_BKC)) for part in (self.key, self.value))
        mixed = self.weigh(query, key, value, mask_B1SK)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, hidden_BSC: Tensor) -> Tensor:
        return hidden_BSC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual connection and a LayerNorm behind it."""

    def __init__(
        self, size: Size, weigh: Weigh = weigh, activation: Callable[[Tensor], Tensor] = nn.functional.gelu
    ) -> None:
        super().__init__()
        self.attention, self.activation = Attention(size, weigh), activation
        self.wide = nn.Linear(size.hidden, 4 * size.hidden)
        self.narrow = nn.Linear(4 * size.hidden, size.hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(size.hidden) for _ in range(2))

    def forward(self, hidden_BSC: Tensor, mask_B11S: Tensor) -> Tensor:
        """Return the next hidden states (B, S, hidden)."""
        return self.feed(self.attend(hidden_BSC, mask_B11S))

    def attend(self, hidden_BSC: Tensor, mask_B1SK: Tensor) -> Tensor:
        """Return the hidden states behind attention."""
        return self.norms[0](hidden_BSC + self.attention(hidden_BSC, mask_B1SK))

    def feed(self, hidden_BSC: Tensor) -> Tensor:
        """Return the hidden states behind the feed-forward."""
        return self.norms[1](hidden_BSC + self.narrow(self.activation(self.wide(hidden_BSC))))


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
