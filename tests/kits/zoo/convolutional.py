"""VGG and residual networks: plain, bottleneck, other normalisations and activations, grouped, with attention."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from tests.kits.zoo.entry import CLASSES, Entry, operators
from tests.kits.zoo.parts import Concat, Residual, SqueezeExcite, conv_norm, mean_head
from torch import Tensor, nn

Layer = Callable[[int], nn.Module]
Branch = Callable[[int, int, int], nn.Module]
"""Makes the branch of a residual block from input channels, output channels and stride."""


def relu(_: int) -> nn.Module:
    """Return a ReLU for any number of channels."""
    return nn.ReLU()


def group_norm(channels: int) -> nn.Module:
    """Return a GroupNorm with groups of four channels (Wu and He 2018)."""
    return nn.GroupNorm(channels // 4, channels)


def vgg(widths: tuple[int, ...] = (8, 16, 24), pixels: int = 32) -> nn.Module:
    """Return VGG (Simonyan and Zisserman 2015, table 1): 3x3 convolutions, pooling, linear layers on C x H x W."""
    features: list[nn.Module] = []
    for inputs, outputs in pairwise((3, *widths)):
        features += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    flat = widths[-1] * (pixels >> len(widths)) ** 2
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(flat, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def basic(norm: Layer = nn.BatchNorm2d, activation: Layer = relu) -> Branch:
    """Return the maker of two 3x3 convolutions (He et al. 2016, figure 5 left)."""

    def branch(inputs: int, outputs: int, stride: int) -> nn.Module:
        first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        return nn.Sequential(first, norm(outputs), activation(outputs), second, norm(outputs))

    return branch


def bottleneck(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return 1x1, 3x3 and 1x1 convolutions, the inner ones with a quarter of the channels (same, figure 5 right)."""
    inner = outputs // 4
    narrow, spatial = conv_norm(inputs, inner), conv_norm(inner, inner, 3, stride)
    return nn.Sequential(narrow, spatial, conv_norm(inner, outputs, activation=nn.Identity))


def grouped(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return RegNetY's block (Radosavovic et al. 2020, figure 4 and section 4): a grouped 3x3 with a gate behind."""
    spatial = conv_norm(outputs, outputs, 3, stride, groups=outputs // 8)
    gate = SqueezeExcite(outputs, max(inputs // 4, 4))
    return nn.Sequential(conv_norm(inputs, outputs), spatial, gate, conv_norm(outputs, outputs, activation=nn.Identity))


class SpatialAttention(nn.Module):
    """Scale pixels by a gate computed from the mean and the maximum over channels (Woo et al. 2018, section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the image (B, C, H, W), each pixel scaled."""
        pooled = torch.cat((image_BCHW.mean(1, keepdim=True), image_BCHW.amax(1, keepdim=True)), 1)
        return image_BCHW * torch.sigmoid(self.gate(pooled))


def attended(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return a basic branch with attention to channels, then to pixels (Woo et al. 2018, figure 3).

    The attention to channels looks at their means only, as that of Hu et al. 2018 does.
    """
    return nn.Sequential(basic()(inputs, outputs, stride), SqueezeExcite(outputs, outputs // 4), SpatialAttention())


class Crelu(nn.Module):
    """Rectify an image and its negative (Shang et al. 2016, definition 2.1): twice the channels."""

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the two parts (B, 2C, H, W)."""
        return torch.relu(torch.cat((image_BCHW, -image_BCHW), 1))


def crelu() -> nn.Module:
    """Return convolutions each followed by a concatenation of its output with itself."""
    first, second = nn.Conv2d(3, 8, 5, 2, padding=2), nn.Conv2d(16, 12, 3, 2, padding=1)
    twice = Concat(nn.Identity(), nn.Identity())
    return nn.Sequential(first, Crelu(), second, twice, nn.BatchNorm2d(24), nn.ReLU(), mean_head(24, CLASSES))


def resnet(
    branch: Branch, widths: tuple[int, ...] = (8, 16, 32), norm: Layer = nn.BatchNorm2d, activation: Layer = relu
) -> nn.Module:
    """Return stages of two residual blocks behind a 3x3 stem (He et al. 2016, section 4.2)."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))
        shortcut = None if inputs == outputs and stride == 1 else projection
        return Residual(branch(inputs, outputs, stride), shortcut, activation(outputs))

    stem = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), norm(widths[0]), activation(widths[0])]
    blocks = [block(widths[0], widths[0], 1), block(widths[0], widths[0], 1)]
    for inputs, outputs in pairwise(widths):
        blocks += [block(inputs, outputs, 2), block(outputs, outputs, 1)]
    return nn.Sequential(*stem, *blocks, mean_head(widths[-1], CLASSES))


CONVOLUTIONAL = {
    "vgg": Entry(vgg, operators("Conv MaxPool Flatten Gemm"), opset=9),
    "resnet_basic": Entry(lambda: resnet(basic()), operators("Conv Add Relu Gemm"), opset=18),
    "resnet_bottleneck": Entry(lambda: resnet(bottleneck, (16, 32, 64)), operators("Conv Add Relu Gemm"), opset=13),
    "resnet_prelu": Entry(
        lambda: resnet(basic(activation=nn.PReLU), activation=nn.PReLU), operators("Conv PRelu Add"), opset=21
    ),
    "resnet_group_norm": Entry(
        lambda: resnet(basic(norm=group_norm), norm=group_norm), operators("Conv GroupNormalization Add"), opset=21
    ),
    "regnet": Entry(lambda: resnet(grouped, (16, 32)), operators("Conv Sigmoid Mul Add"), opset=20),
    "cbam": Entry(lambda: resnet(attended, (8, 16)), operators("ReduceMean ReduceMax Concat Sigmoid Mul"), opset=17),
    "crelu": Entry(crelu, operators("Neg Concat BatchNormalization Relu"), opset=18),
}
