"""CRNN for text in images (Shi et al. 2015, table 1): convolutions, two bidirectional LSTMs unrolled, CTC scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example
from models.recurrent import BidirectionalLSTM

HEIGHT, CLASSES = 32, 37
"""Rows of an image, and letters, digits and CTC's blank."""

WIDTHS, FEW = (64, 128, 256, 256, 512, 512, 512), (4, 8, 8, 8, 16, 16, 16)
NORMALISED = (2, 4, 6)
"""Which convolutions have batch normalisation."""


def pools() -> dict[int, nn.Module]:
    """Return the pooling behind some convolutions; the later ones halve the height alone."""
    flat = {index: nn.MaxPool2d((2, 2), (2, 1), padding=(0, 1)) for index in (3, 5)}
    return {0: nn.MaxPool2d(2), 1: nn.MaxPool2d(2), **flat}


def convolutions(widths: tuple[int, ...]) -> nn.Sequential:
    """Return the convolutions, of 3 x 3 but for the last one of 2 x 2, which leaves one row."""
    parts: list[nn.Module] = []
    pooled, last = pools(), len(widths) - 1
    for index, (inputs, outputs) in enumerate(zip((1, *widths), widths, strict=False)):
        parts.append(nn.Conv2d(inputs, outputs, 2 if index == last else 3, padding=0 if index == last else 1))
        parts += [nn.BatchNorm2d(outputs)] if index in NORMALISED else []
        parts += [nn.ReLU(), *([pooled[index]] if index in pooled else [])]
    return nn.Sequential(*parts)


class Crnn(nn.Module):
    """The whole network."""

    def __init__(self, widths: tuple[int, ...], units: int) -> None:
        super().__init__()
        self.features = convolutions(widths)
        self.recurrent = nn.Sequential(
            BidirectionalLSTM(widths[-1], units, units), BidirectionalLSTM(units, units, CLASSES)
        )

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Return the log-probabilities (B, T, classes) of the characters at each step."""
        features_BTC = self.features(image_B1HW).squeeze(2).transpose(1, 2)
        return torch.log_softmax(self.recurrent(features_BTC), dim=-1)


def crnn(small: bool) -> Example:
    """Return the network for images of 32 x 100 pixels, which make 26 steps, or a narrow one with 6 steps."""
    module, pixels = (Crnn(FEW, 16), 20) if small else (Crnn(WIDTHS, 256), 100)
    return Example(module, (torch.randn(2, 1, HEIGHT, pixels),), {"image": {0: Dim("batch", max=64)}})
