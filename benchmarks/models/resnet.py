"""ResNet-18 (He et al. 2015, table 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the next features (B, C, H, W)."""
        inner = torch.relu(self.first(image_BCHW))
        return torch.relu(self.second(inner) + self.shortcut(image_BCHW))


class ResNet(nn.Module):
    """The whole network; `widths` are the channels of its four stages of two blocks."""

    def __init__(self, widths: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.stem = convolution(3, widths[0], 7, 2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        inputs = (widths[0], *widths)
        blocks = [
            Block(inputs[stage] if first else width, width, 2 if first and stage else 1)
            for stage, width in enumerate(widths)
            for first in (True, False)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        features = self.blocks(self.pool(torch.relu(self.stem(image_BCHW))))
        return self.head(features.mean((2, 3)))


def resnet(small: bool) -> Example:
    """Return ResNet-18 for 224 x 224 pixels, or a narrow one for 64 x 64."""
    module = ResNet((8, 16, 16, 32), 10) if small else ResNet((64, 128, 256, 512), 1000)
    pixels = 64 if small else 224
    return Example(module, (torch.randn(2, 3, pixels, pixels),), {"image": {0: Dim("batch", max=64)}})
