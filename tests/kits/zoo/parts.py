"""Layers that several networks of the zoo are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution of unchanged size (if not strided), batch normalisation and an activation."""
    pair = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (pair[0] // 2, pair[1] // 2)
    convolution = nn.Conv2d(inputs, outputs, pair, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), activation())


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means (Hu et al. 2018, section 3)."""

    def __init__(
        self, channels: int, narrow: int, activation: Activation = nn.ReLU, gate: Activation = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), activation(), nn.Conv2d(narrow, channels, 1), gate()
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the image (B, C, H, W), each channel scaled."""
        return image_BCHW * self.excite(self.squeeze(image_BCHW))


class Shuffle(nn.Module):
    """Deal the channels of each group out to all groups (Zhang et al. 2018, ShuffleNet, section 3.1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the image (B, C, H, W) with its channels in another order."""
        batch, channels, height, width = image_BCHW.shape
        dealt = image_BCHW.reshape(batch, self.groups, channels // self.groups, height, width).transpose(1, 2)
        return dealt.reshape(batch, channels, height, width)


class Concat(nn.Module):
    """Apply several branches to one image and put their channels one after the other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the channels of all branches (B, sum of C, H, W)."""
        return torch.cat([branch(image_BCHW) for branch in self.branches], 1)


class Residual(nn.Module):
    """Add a branch to a shortcut, then activate (He et al. 2016, section 3.2)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, last: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut, self.last = shortcut or nn.Identity(), last or nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the activated sum; a shortcut is the input itself unless given."""
        return self.last(self.branch(hidden) + self.shortcut(hidden))


def mean_head(channels: int, classes: int) -> nn.Sequential:
    """Return global average pooling and a classifier: logits (B, classes) of an image (B, C, H, W)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
