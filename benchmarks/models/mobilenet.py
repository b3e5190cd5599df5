"""MobileNetV3-Large (Howard et al. 2019, table 1): squeeze-and-excitation and hard-swish."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example

Row = tuple[int, int, int, bool, type[nn.Module], int]
"""Kernel size, expanded and output channels, squeeze-and-excitation, activation, stride."""

LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)
FEW: tuple[Row, ...] = (
    (3, 16, 16, False, nn.ReLU, 1),
    (5, 32, 24, True, nn.ReLU, 2),
    (3, 48, 24, True, nn.Hardswish, 1),
)


def convolution(
    inputs: int, outputs: int, size: int, activation: type[nn.Module], stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution with batch normalisation and an activation."""
    convolved = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(convolved, nn.BatchNorm2d(outputs), activation())


class Excitation(nn.Module):
    """Squeeze-and-excitation with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(8, (channels // 4 + 4) // 8 * 8)
        self.down, self.up = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the features, each channel scaled."""
        squeezed = nn.functional.adaptive_avg_pool2d(image_BCHW, 1)
        return image_BCHW * nn.functional.hardsigmoid(self.up(torch.relu(self.down(squeezed))))


class Bottleneck(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        size, wide, outputs, excited, activation, stride = row
        self.residual = stride == 1 and inputs == outputs
        parts = [convolution(inputs, wide, 1, activation)] if wide != inputs else []
        parts.append(convolution(wide, wide, size, activation, stride, groups=wide))
        if excited:
            parts.append(Excitation(wide))
        self.parts = nn.Sequential(*parts, convolution(wide, outputs, 1, nn.Identity))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the next features (B, C, H, W)."""
        return self.parts(image_BCHW) + image_BCHW if self.residual else self.parts(image_BCHW)


class MobileNet(nn.Module):
    """The whole network of the bottlenecks in `rows`."""

    def __init__(self, rows: tuple[Row, ...], classes: int) -> None:
        super().__init__()
        inputs = [16, *(row[2] for row in rows)]
        self.stem = convolution(3, 16, 3, nn.Hardswish, stride=2)
        self.blocks = nn.Sequential(*map(Bottleneck, inputs, rows))
        last = 6 * inputs[-1]
        self.last = convolution(inputs[-1], last, 1, nn.Hardswish)
        self.head = nn.Sequential(nn.Linear(last, last * 4 // 3), nn.Hardswish(), nn.Linear(last * 4 // 3, classes))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        return self.head(self.last(self.blocks(self.stem(image_BCHW))).mean((2, 3)))


def mobilenet(small: bool) -> Example:
    """Return MobileNetV3-Large for 224 x 224 pixels, or three of its blocks for 64 x 64."""
    module = MobileNet(FEW, 10) if small else MobileNet(LARGE, 1000)
    pixels = 64 if small else 224
    return Example(module, (torch.randn(2, 3, pixels, pixels),), {"image": {0: Dim("batch", max=64)}})
