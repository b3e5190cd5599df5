"""Classifiers of small grey images: ResNet20, ResNet56, ResNet18, MobileNet, each of any width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from models.mobilenet import convolution as convolution_activated
from models.resnet import Block, convolution

CLASSES = 10
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 1), (1024, 1))
"""Output channels and stride of MobileNet's layers; stem and last stage are not strided, because images are small."""


class Classifier(nn.Module):
    """Convolutions on images of one channel, global average pooling, a linear layer."""

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(width, CLASSES)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, 1, H, W)."""
        return self.head(self.features(image_BCHW).mean((2, 3)))


def residual(widths: tuple[int, ...], depth: int) -> nn.Module:
    """Return a 3x3 stem and stages of `depth` residual blocks; all stages but the first halve the image."""
    blocks: list[nn.Module] = [convolution(1, widths[0], 3), nn.ReLU()]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        blocks.append(Block(inputs, width, 2 if stage else 1))
        blocks += [Block(width, width, 1) for _ in range(depth - 1)]
        inputs = width
    return Classifier(nn.Sequential(*blocks), widths[-1])


def resnet_cifar(depth: int, width: int) -> nn.Module:
    """Return the ResNet of 6n + 2 layers (He et al. 2016, section 4.2), shortcuts projected; its own width is 16."""
    return residual((width, 2 * width, 4 * width), (depth - 2) // 6)


def resnet18(width: int) -> nn.Module:
    """Return ResNet-18 (same, table 1) with a 3x3 stem and without its pooling; its own width is 64."""
    return residual((width, 2 * width, 4 * width, 8 * width), 2)


def mobilenet_v1(multiplier: float) -> nn.Module:
    """Return MobileNet (Howard et al. 2017, table 1) of `multiplier` times its channels, rounded to multiples of 8."""

    def scaled(channels: int) -> int:
        return max(8, round(channels * multiplier / 8) * 8)

    inputs = scaled(32)
    layers: list[nn.Module] = [convolution_activated(1, inputs, 3, nn.ReLU)]
    for channels, stride in SEPARABLE:
        layers.append(convolution_activated(inputs, inputs, 3, nn.ReLU, stride, groups=inputs))
        layers.append(convolution_activated(inputs, scaled(channels), 1, nn.ReLU))
        inputs = scaled(channels)
    return Classifier(nn.Sequential(*layers), inputs)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": partial(resnet_cifar, 20, 8),
    "resnet20_wide": partial(resnet_cifar, 20, 64),
    "resnet56": partial(resnet_cifar, 56, 8),
    "resnet18": partial(resnet18, 16),
    "mobilenet_v1": partial(mobilenet_v1, 0.25),
}
"""The networks as wide as a processor trains them in a minute or two; the wide one is busy with arithmetic."""


def make_network(name: str, seed: int) -> nn.Module:
    """Build a network with the weights that torch draws for a seed, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]()
