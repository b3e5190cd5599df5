"""Networks that concatenate: DenseNet, Inception, U-Net."""

from __future__ import annotations

import torch
from tests.kits.zoo.entry import CLASSES, Entry, operators
from tests.kits.zoo.parts import Concat, conv_norm, mean_head
from torch import Tensor, nn


def norm_conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Return batch normalisation, ReLU and convolution in this order, so that the first can't be folded."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), convolution)


def dense_layer(inputs: int, growth: int) -> nn.Module:
    """Return a layer that puts `growth` channels behind its inputs (Huang et al. 2017, section 3)."""
    bottleneck = norm_conv(inputs, 2 * growth, 1)
    return Concat(nn.Identity(), nn.Sequential(bottleneck, norm_conv(2 * growth, growth, 3)))


def densenet(growth: int = 8) -> nn.Module:
    """Return DenseNet-BC (same, table 1): two blocks of three layers and a transition that halves the channels."""
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, 2, padding=1, bias=False)]
    parts += [dense_layer(width, growth) for width in (16, 24, 32)]
    parts += [norm_conv(40, 20, 1), nn.AvgPool2d(2)]
    parts += [dense_layer(width, growth) for width in (20, 28, 36)]
    return nn.Sequential(*parts, nn.BatchNorm2d(44), nn.ReLU(), mean_head(44, CLASSES))


def asymmetric(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    """Return 1x1, 1x7 and 7x1 convolutions (Szegedy et al. 2016, section 3.2)."""
    return nn.Sequential(conv_norm(inputs, inner), conv_norm(inner, inner, (1, 7)), conv_norm(inner, outputs, (7, 1)))


def inception_block(inputs: int) -> nn.Module:
    """Return four branches: 1x1, factorised 7x7 once and twice, pooling (same, figure 6)."""
    twice = nn.Sequential(asymmetric(inputs, 8, 8), conv_norm(8, 8, (1, 7)), conv_norm(8, 16, (7, 1)))
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, padding=1), conv_norm(inputs, 8))
    return Concat(conv_norm(inputs, 8), asymmetric(inputs, 8, 16), twice, pooled)


def split_block(inputs: int) -> nn.Module:
    """Return branches that end in a 1x3 and a 3x1 side by side (same, figure 7)."""

    def ends(width: int) -> nn.Module:
        return Concat(conv_norm(width, 8, (1, 3)), conv_norm(width, 8, (3, 1)))

    once = nn.Sequential(conv_norm(inputs, 12), ends(12))
    twice = nn.Sequential(conv_norm(inputs, 12), conv_norm(12, 16, 3), ends(16))
    return Concat(conv_norm(inputs, 8), once, twice)


def inception() -> nn.Module:
    """Return Inception-v3 (same, table 1): a stem, one block of each kind, a strided reduction between (figure 10)."""
    reduction = Concat(conv_norm(48, 24, 3, 2), nn.MaxPool2d(3, 2, padding=1))
    stem = conv_norm(3, 16, 3, 2)
    return nn.Sequential(stem, inception_block(16), reduction, split_block(72), mean_head(40, CLASSES))


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions."""
    return nn.Sequential(conv_norm(inputs, outputs, 3), conv_norm(outputs, outputs, 3))


class UNet(nn.Module):
    """Down two levels and up again, beside what was there on the way (Ronneberger et al. 2015, figure 1)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList((double(3, width), double(width, 2 * width)))
        self.middle = double(2 * width, 4 * width)
        self.raises = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in (2 * width, width))
        self.up = nn.ModuleList(double(2 * size, size) for size in (2 * width, width))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits of pixels (B, classes, H, W)."""
        hidden, kept = image_BCHW, []
        for down in self.down:
            kept.append(down(hidden))
            hidden = nn.functional.max_pool2d(kept[-1], 2)
        hidden = self.middle(hidden)
        for raising, up, before in zip(self.raises, self.up, reversed(kept), strict=True):
            hidden = up(torch.cat((before, raising(hidden)), 1))
        return self.head(hidden)


DENSE = {
    "densenet": Entry(densenet, operators("BatchNormalization Relu Conv Concat AveragePool"), opset=18),
    "inception": Entry(inception, operators("Conv Concat AveragePool MaxPool"), opset=13),
    "unet": Entry(lambda: UNet(8, 3), operators("ConvTranspose Concat MaxPool"), opset=13, outputs=("mask",)),
}
