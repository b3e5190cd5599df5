"""Networks of linear layers on tokens: ViT with three kinds of attention, MLP-Mixer, ConvNeXt."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tests.kits.zoo.entry import CLASSES, Entry, operators
from tests.kits.zoo.parts import Residual
from torch import Tensor, nn

PATCH, TOKENS = 8, 16
"""The side of a patch, and the patches of an image of 32 x 32 pixels."""


class FusedAttention(nn.Module):
    """Attention whose query, key and value are one projection, written out (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, math.sqrt(heads / width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, hidden_BNC: Tensor) -> Tensor:
        """Return the mixed values (B, N, C)."""
        batch, tokens, width = hidden_BNC.shape
        projected = self.project(hidden_BNC).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.softmax(query @ key.transpose(2, 3) * self.scale, 3) @ value
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class GroupedAttention(nn.Module):
    """Attention with separate projections, several queries to one key and value (Ainslie et al. 2023, section 2.2).

    With as many keys as queries it is that of Vaswani et al. 2017.
    """

    def __init__(self, width: int, heads: int, keys: int) -> None:
        super().__init__()
        self.size, self.repeats = width // heads, heads // keys
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = (nn.Linear(width, keys * self.size) for _ in range(2))

    def _split(self, projected_BNC: Tensor, repeats: int) -> Tensor:
        heads = projected_BNC.unflatten(2, (-1, self.size)).transpose(1, 2)
        return heads if repeats == 1 else heads.repeat_interleave(repeats, 1)

    def forward(self, hidden_BNC: Tensor) -> Tensor:
        """Return the mixed values (B, N, C)."""
        query = self._split(self.query(hidden_BNC), 1)
        key, value = (self._split(part(hidden_BNC), self.repeats) for part in (self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


def mlp(width: int, wide: int) -> nn.Module:
    """Return two linear layers around GELU."""
    return nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))


class Patches(nn.Module):
    """Turn each patch of an image into a token (Dosovitskiy et al. 2021, equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return tokens (B, N, C)."""
        return self.convolution(image_BCHW).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, two blocks with normalisation first (same, section 3.1)."""

    def __init__(self, width: int, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.patches = Patches(width)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.2 * torch.randn(1, TOKENS + 1, width))
        blocks = []
        for _ in range(2):
            blocks += [Residual(nn.Sequential(nn.LayerNorm(width), attention()))]
            blocks += [Residual(nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width)))]
        self.blocks, self.norm, self.head = nn.Sequential(*blocks), nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes), read off the class token."""
        patches = self.patches(image_BCHW)
        hidden_BNC = torch.cat((self.token.expand(patches.shape[0], -1, -1), patches), 1) + self.positions
        return self.head(self.norm(self.blocks(hidden_BNC))[:, 0])


class Transposed(nn.Module):
    """Apply a module with two axes exchanged."""

    def __init__(self, module: nn.Module, first: int, second: int) -> None:
        super().__init__()
        self.module, self.axes = module, (first, second)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the result with the axes in their old order."""
        return self.module(hidden.transpose(*self.axes)).transpose(*self.axes)


class Mixer(nn.Module):
    """Mix tokens, then channels, by linear layers (Tolstikhin et al. 2021, equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        blocks = []
        for _ in range(2):
            blocks += [Residual(nn.Sequential(nn.LayerNorm(width), Transposed(mlp(TOKENS, 24), 1, 2)))]
            blocks += [Residual(nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width)))]
        self.body = nn.Sequential(Patches(width), *blocks, nn.LayerNorm(width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.head(self.body(image_BCHW).mean(1))


class ChannelsLast(nn.Module):
    """Apply a module to an image whose channels are the last axis meanwhile."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return an image (B, C, H, W)."""
        return self.module(image_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    """Multiply the last axis by a vector (layer scale, Touvron et al. 2021, section 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.empty(width).uniform_(0.2, 0.6))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the scaled values."""
        return hidden * self.factors


def convnext_block(width: int) -> nn.Module:
    """Return a depthwise 7x7 and two linear layers on channels that are last (Liu et al. 2022, figure 4)."""
    depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
    inner = nn.Sequential(nn.LayerNorm(width, eps=1e-6), mlp(width, 4 * width), Scale(width))
    return Residual(nn.Sequential(depthwise, ChannelsLast(inner)))


def convnext(widths: tuple[int, int] = (8, 16)) -> nn.Module:
    """Return ConvNeXt (same, section 2.2 to 2.6): patchify stem, a normalised downsampling between two stages."""
    first, second = widths
    stem = [nn.Conv2d(3, first, 4, 4), ChannelsLast(nn.LayerNorm(first)), convnext_block(first)]
    down = [ChannelsLast(nn.LayerNorm(first)), nn.Conv2d(first, second, 2, 2), convnext_block(second)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(second), nn.Linear(second, CLASSES)]
    return nn.Sequential(*stem, *down, *pool)


TRANSFORMERS = {
    "vit_fused": Entry(
        lambda: VisionTransformer(32, lambda: FusedAttention(32, 4)),
        operators("Conv Concat LayerNormalization MatMul Softmax Transpose Gemm"),
        opset=17,
    ),
    "vit_separate": Entry(
        lambda: VisionTransformer(32, lambda: GroupedAttention(32, 4, 4)),
        operators("Conv Concat LayerNormalization MatMul Softmax Transpose Gemm"),
        opset=18,
        oldest=14,
    ),
    "vit_grouped": Entry(
        lambda: VisionTransformer(32, lambda: GroupedAttention(32, 4, 2)),
        operators("Conv Concat LayerNormalization MatMul Softmax Transpose Gemm"),
        opset=21,
        oldest=14,
    ),
    "mixer": Entry(lambda: Mixer(24), operators("Conv LayerNormalization Transpose MatMul"), opset=17),
    "convnext": Entry(convnext, operators("Conv LayerNormalization Transpose Mul Add"), opset=20),
}
