"""ConvNeXt-T (Liu et al. 2022): depthwise 7x7 convolutions, LayerNorm over channels, GELU, layer scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example


@dataclass(frozen=True)
class Size:
    """The blocks and channels of each stage, and the classes."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int


TINY, SMALL = Size((3, 3, 9, 3), (96, 192, 384, 768), 1000), Size((1, 2), (16, 24), 10)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the normalised image (B, C, H, W)."""
        return self.norm(image_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A depthwise convolution, and two linear layers on channels that are last meanwhile; both around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.empty(channels).uniform_(0.1, 0.5))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the next features (B, C, H, W)."""
        inner_BHWC = self.norm(self.depthwise(image_BCHW).permute(0, 2, 3, 1))
        inner_BHWC = self.scale * self.narrow(nn.functional.gelu(self.wide(inner_BHWC)))
        return image_BCHW + inner_BHWC.permute(0, 3, 1, 2)


def downsample(inputs: int, outputs: int) -> nn.Sequential:
    """Return the layer between two stages, which halves the image."""
    return nn.Sequential(ChannelNorm(inputs), nn.Conv2d(inputs, outputs, 2, stride=2))


class ConvNext(nn.Module):
    """The whole network."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, size.widths[0], 4, stride=4), ChannelNorm(size.widths[0])]
        for stage, (depth, width) in enumerate(zip(size.depths, size.widths, strict=True)):
            parts += [downsample(size.widths[stage - 1], width)] if stage else []
            parts += [Block(width) for _ in range(depth)]
        self.blocks = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(size.widths[-1], eps=1e-6)
        self.head = nn.Linear(size.widths[-1], size.classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        return self.head(self.norm(self.blocks(image_BCHW).mean((2, 3))))


def convnext(small: bool) -> Example:
    """Return ConvNeXt-T for 224 x 224 pixels, or three narrow blocks for 32 x 32."""
    pixels = 32 if small else 224
    image = torch.randn(2, 3, pixels, pixels)
    return Example(ConvNext(SMALL if small else TINY), (image,), {"image": {0: Dim("batch", max=64)}})
