"""A one-stage detector in the manner of YOLOv8: split and concatenated stages, pooling pyramid, two heads."""

from __future__ import annotations

import torch
from tests.kits.zoo.entry import Entry, operators
from tests.kits.zoo.parts import Residual, conv_norm
from torch import Tensor, nn

BOX = 4


def conv_silu(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalisation and SiLU."""
    return conv_norm(inputs, outputs, kernel, stride, activation=nn.SiLU)


class C2f(nn.Module):
    """Split channels, pass half through bottlenecks, concatenate all that came on the way.

    The block of YOLOv8 (Jocher et al. 2023, without a paper), after CSPNet (Wang et al. 2020, section 3.1).
    """

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.enter, self.leave = conv_silu(inputs, outputs), conv_silu((2 + depth) * half, outputs)
        pairs = [nn.Sequential(conv_silu(half, half, 3), conv_silu(half, half, 3)) for _ in range(depth)]
        self.blocks = nn.ModuleList(Residual(pair) if shortcut else pair for pair in pairs)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the next features (B, outputs, H, W)."""
        parts = list(self.enter(image_BCHW).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Sppf(nn.Module):
    """Concatenate an image pooled never, once, twice and thrice.

    The block of YOLOv5 6.0 (Jocher et al. 2021, without a paper), after the pyramid of He et al. 2015, section 2.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = conv_silu(channels, channels // 2), conv_silu(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, padding=2)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return as many channels (B, C, H, W)."""
        parts = [self.enter(image_BCHW)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Detector(nn.Module):
    """Backbone, a neck from coarse to fine and back, and one head for each of two scales."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        fine, coarse = 2 * width, 4 * width
        self.stem = nn.Sequential(conv_silu(3, width, 3, 2), conv_silu(width, fine, 3, 2), C2f(fine, fine, 1, True))
        self.deep = nn.Sequential(conv_silu(fine, coarse, 3, 2), C2f(coarse, coarse, 2, True), Sppf(coarse))
        self.raised = C2f(fine + coarse, fine, 1, False)
        self.lower, self.lowered = conv_silu(fine, fine, 3, 2), C2f(fine + coarse, coarse, 1, False)
        self.heads = nn.ModuleList(
            nn.Sequential(conv_silu(size, size, 3), nn.Conv2d(size, BOX + classes, 1)) for size in (fine, coarse)
        )

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and classes (B, 4 + classes, H/4, W/4) and (B, 4 + classes, H/8, W/8)."""
        fine = self.stem(image_BCHW)
        coarse = self.deep(fine)
        raised = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        fine = self.raised(torch.cat((raised, fine), 1))
        coarse = self.lowered(torch.cat((self.lower(fine), coarse), 1))
        return self.heads[0](fine), self.heads[1](coarse)


DETECTION = {
    "yolo": Entry(
        lambda: Detector(8, 6), operators("Conv Split Concat MaxPool Resize"), opset=18, outputs=("fine", "coarse")
    )
}
