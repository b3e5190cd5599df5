"""A Conformer encoder for speech (Gulati et al. 2020) with relative positions, and CTC scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example
from models.transformer import sinusoids

BANDS, LONGEST = 80, 1024
"""Mel bands of a frame, and the most steps that an utterance may have after subsampling."""


@dataclass(frozen=True)
class Size:
    """The blocks and widths of an encoder; `taps` is the length of its depthwise convolutions."""

    blocks: int
    hidden: int
    heads: int
    taps: int
    tokens: int


BASE, SMALL = Size(6, 256, 4, 31, 1000), Size(1, 32, 2, 7, 20)


class Subsampling(nn.Module):
    """Two convolutions of stride 2 over time and bands, and a projection."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, hidden, 3, stride=2), nn.ReLU()), *(nn.Conv2d(hidden, hidden, 3, stride=2), nn.ReLU())
        )
        self.out = nn.Linear(hidden * (((BANDS - 1) // 2 - 1) // 2), hidden)

    def forward(self, frames_BTM: Tensor) -> Tensor:
        """Return the hidden states (B, S, C) of a quarter as many steps."""
        return self.out(self.convolutions(frames_BTM[:, None]).transpose(1, 2).flatten(2))


def feed_forward(hidden: int) -> nn.Sequential:
    """Return a feed-forward of fourfold width behind a LayerNorm."""
    return nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.SiLU(), nn.Linear(4 * hidden, hidden))


def shift(scores_BHSP: Tensor) -> Tensor:
    """Align scores of relative positions, P = 2S - 1, with the keys (Dai et al. 2019, appendix B): (B, H, S, S)."""
    batch, heads, length, _ = scores_BHSP.shape
    padded = nn.functional.pad(scores_BHSP, (1, 0)).view(batch, heads, 2 * length, length)
    return padded[:, :, 1:].reshape(batch, heads, length, 2 * length - 1)[..., :length]


class Attention(nn.Module):
    """Self-attention whose scores have a part for relative positions (Dai et al. 2019, section 3.3)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm = nn.LayerNorm(size.hidden)
        self.query, self.key, self.value, self.out = (nn.Linear(size.hidden, size.hidden) for _ in range(4))
        self.position = nn.Linear(size.hidden, size.hidden, bias=False)
        width = size.hidden // size.heads
        self.content_bias, self.position_bias = (
            nn.Parameter(torch.empty(size.heads, 1, width).normal_(0.0, 0.1)) for _ in range(2)
        )

    def forward(self, hidden_BSC: Tensor, positions_PC: Tensor) -> Tensor:
        """Return the mixed values (B, S, C)."""
        normed = self.norm(hidden_BSC)
        query, key, value = (self._split(part(normed)) for part in (self.query, self.key, self.value))
        position_HPD = self._split(self.position(positions_PC))
        content_BHSS = (query + self.content_bias) @ key.transpose(-1, -2)
        relative_BHSS = shift((query + self.position_bias) @ position_HPD.transpose(-1, -2))
        scores_BHSS = (content_BHSS + relative_BHSS) / math.sqrt(query.shape[-1])
        mixed = torch.softmax(scores_BHSS, dim=-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


class Convolution(nn.Module):
    """The convolution module: gated linear unit, depthwise convolution over time, batch normalisation, SiLU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        hidden = size.hidden
        self.norm = nn.LayerNorm(hidden)
        self.convolutions = nn.Sequential(
            *(nn.Conv1d(hidden, 2 * hidden, 1), nn.GLU(dim=1)),
            *(nn.Conv1d(hidden, hidden, size.taps, padding=size.taps // 2, groups=hidden), nn.BatchNorm1d(hidden)),
            *(nn.SiLU(), nn.Conv1d(hidden, hidden, 1)),
        )

    def forward(self, hidden_BSC: Tensor) -> Tensor:
        """Return the update (B, S, C)."""
        return self.convolutions(self.norm(hidden_BSC).transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """Attention and convolution between two halves of a feed-forward, all with residuals."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.before, self.after = feed_forward(size.hidden), feed_forward(size.hidden)
        self.attention, self.convolution = Attention(size), Convolution(size)
        self.norm = nn.LayerNorm(size.hidden)

    def forward(self, hidden_BSC: Tensor, positions_PC: Tensor) -> Tensor:
        """Return the next hidden states (B, S, C)."""
        hidden_BSC = hidden_BSC + 0.5 * self.before(hidden_BSC)
        hidden_BSC = hidden_BSC + self.attention(hidden_BSC, positions_PC)
        hidden_BSC = hidden_BSC + self.convolution(hidden_BSC)
        return self.norm(hidden_BSC + 0.5 * self.after(hidden_BSC))


class Conformer(nn.Module):
    """The whole encoder."""

    positions: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.subsampling = Subsampling(size.hidden)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.head = nn.Linear(size.hidden, size.tokens)
        self.register_buffer("positions", sinusoids(1 - LONGEST, LONGEST, size.hidden).flip(0))

    def forward(self, frames_BTM: Tensor) -> Tensor:
        """Return the log-probabilities (B, S, tokens) of frames of mel bands (B, T, 80)."""
        hidden_BSC = self.subsampling(frames_BTM)
        length = hidden_BSC.shape[1]
        positions_PC = self.positions[LONGEST - length : LONGEST + length - 1]
        for block in self.blocks:
            hidden_BSC = block(hidden_BSC, positions_PC)
        return torch.log_softmax(self.head(hidden_BSC), dim=-1)


def conformer(small: bool) -> Example:
    """Return an encoder of 6 blocks and width 256, or one narrow block."""
    batch, time = Dim("batch", max=64), Dim("time", min=16, max=4 * LONGEST)
    frames = torch.randn(2, 50, BANDS)
    return Example(Conformer(SMALL if small else BASE), (frames,), {"frames": {0: batch, 1: time}})
