"""A U-Net of latent diffusion (Rombach et al. 2022): residual blocks told the time, transformers told the text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example

LATENTS, GROUPS = 4, 8


@dataclass(frozen=True)
class Size:
    """Channels of the outer level, which the inner one has twice; width of a head and of the text; pixels, tokens."""

    channels: int
    head: int
    text: int
    pixels: int
    tokens: int


BASE, SMALL = Size(128, 32, 768, 32, 77), Size(16, 8, 24, 8, 5)


class ResidualBlock(nn.Module):
    """Two convolutions, each behind GroupNorm and SiLU, with the time added between them."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, image_BCHW: Tensor, time_BT: Tensor) -> Tensor:
        """Return the next features (B, outputs, H, W)."""
        inner = self.enter(image_BCHW) + self.time(time_BT)[:, :, None, None]
        return self.shortcut(image_BCHW) + self.leave(inner)


class Attention(nn.Module):
    """Attention of pixels to each other or to the text."""

    def __init__(self, channels: int, memory: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.query, self.out = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels)
        self.key, self.value = (nn.Linear(memory, channels, bias=False) for _ in range(2))

    def forward(self, hidden_BSC: Tensor, memory_BKC: Tensor) -> Tensor:
        """Return the mixed values (B, S, C)."""
        query, key, value = (
            self._split(part) for part in (self.query(hidden_BSC), self.key(memory_BKC), self.value(memory_BKC))
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, hidden_BSC: Tensor) -> Tensor:
        return hidden_BSC.unflatten(-1, (-1, self.head)).transpose(1, 2)


class Geglu(nn.Module):
    """A linear layer gated by GELU (Shazeer 2020)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = nn.Linear(inputs, 2 * outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the gated values."""
        value, gate = self.wide(hidden).chunk(2, dim=-1)
        return value * nn.functional.gelu(gate)


class SpatialTransformer(nn.Module):
    """Self-attention of the pixels, attention to the text, and a gated feed-forward, between two projections."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.enter, self.leave = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.own, self.cross = Attention(channels, channels, size.head), Attention(channels, size.text, size.head)
        self.feed = nn.Sequential(Geglu(channels, 4 * channels), nn.Linear(4 * channels, channels))

    def forward(self, image_BCHW: Tensor, text_BKC: Tensor) -> Tensor:
        """Return the next features (B, C, H, W)."""
        hidden_BSC = self.enter(self.norm(image_BCHW)).flatten(2).transpose(1, 2)
        normed = self.norms[0](hidden_BSC)
        hidden_BSC = hidden_BSC + self.own(normed, normed)
        hidden_BSC = hidden_BSC + self.cross(self.norms[1](hidden_BSC), text_BKC)
        hidden_BSC = hidden_BSC + self.feed(self.norms[2](hidden_BSC))
        return image_BCHW + self.leave(hidden_BSC.transpose(1, 2).unflatten(2, image_BCHW.shape[2:]))


class Upsampling(nn.Module):
    """Every pixel becomes four, then a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return features (B, outputs, 2H, 2W)."""
        return self.convolution(nn.functional.interpolate(image_BCHW, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Two levels: down, the middle, and up again beside what was kept on the way."""

    rates: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        outer, inner, time = size.channels, 2 * size.channels, 4 * size.channels
        self.register_buffer("rates", torch.exp(-math.log(10000) * torch.arange(outer // 2) / (outer // 2)))
        self.time = nn.Sequential(nn.Linear(outer, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(LATENTS, outer, 3, padding=1)
        self.outer, self.outer_text = ResidualBlock(outer, outer, time), SpatialTransformer(outer, size)
        self.down = nn.Conv2d(outer, outer, 3, stride=2, padding=1)
        self.inner, self.inner_text = ResidualBlock(outer, inner, time), SpatialTransformer(inner, size)
        self.middle = ResidualBlock(inner, inner, time)
        self.up = Upsampling(inner, inner)
        self.merge, self.merge_text = ResidualBlock(inner + outer, outer, time), SpatialTransformer(outer, size)
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, outer), nn.SiLU(), nn.Conv2d(outer, LATENTS, 3, padding=1))

    def forward(self, latents_BCHW: Tensor, step_B: Tensor, text_BKC: Tensor) -> Tensor:
        """Return the noise (B, 4, H, W) in latents at a step of diffusion, given the states of a text."""
        angles = step_B[:, None].to(latents_BCHW.dtype) * self.rates
        time_BT = self.time(torch.cat((angles.cos(), angles.sin()), 1))
        kept = self.outer_text(self.outer(self.enter(latents_BCHW), time_BT), text_BKC)
        inner = self.inner_text(self.inner(self.down(kept), time_BT), text_BKC)
        raised = self.up(self.middle(inner, time_BT))
        merged = self.merge_text(self.merge(torch.cat((raised, kept), 1), time_BT), text_BKC)
        return self.leave(merged)


def unet(small: bool) -> Example:
    """Return a net of 128 and 256 channels for latents of 32 x 32, or a narrow one for 8 x 8."""
    size, batch = SMALL if small else BASE, Dim("batch", max=64)
    latents, text = torch.randn(2, LATENTS, size.pixels, size.pixels), torch.randn(2, size.tokens, size.text)
    inputs = (latents, torch.tensor([1, 500]), text)
    return Example(UNet(size), inputs, {name: {0: batch} for name in ("latents", "step", "text")})
