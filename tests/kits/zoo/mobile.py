"""Networks for small devices: depthwise and grouped convolutions, inverted bottlenecks, shuffled channels, Fire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tests.kits.zoo.entry import CLASSES, Entry, operators
from tests.kits.zoo.parts import Activation, Concat, Residual, Shuffle, SqueezeExcite, conv_norm, mean_head
from torch import Tensor, nn

Gate = Callable[[int, int], nn.Module]
"""Makes a gate from its channels and its inner width."""


V1 = ((8, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2))
"""Input channels, output channels and stride of each separable convolution."""


def separable(inputs: int, outputs: int, stride: int, multiplier: int = 1) -> nn.Module:
    """Return a depthwise 3x3 and a pointwise convolution (Howard et al. 2017, section 3.1)."""
    wide = inputs * multiplier
    return nn.Sequential(conv_norm(inputs, wide, 3, stride, groups=inputs), conv_norm(wide, outputs))


def mobilenet_v1(multiplier: int = 1) -> nn.Module:
    """Return MobileNet (Howard et al. 2017, table 1); `multiplier` is the depthwise filters that each channel has."""
    blocks = [separable(inputs, outputs, stride, multiplier) for inputs, outputs, stride in V1]
    return nn.Sequential(conv_norm(3, 8, 3, 2), *blocks, mean_head(32, CLASSES))


@dataclass(frozen=True)
class Inverted:
    """An inverted bottleneck: kernel, channels (in, expanded, out), stride, the gate's width, the activation."""

    kernel: int
    channels: tuple[int, int, int]
    stride: int
    gate: int = 0
    activation: Activation = nn.ReLU6


def hard_gate(channels: int, narrow: int) -> nn.Module:
    """Return the gate of MobileNetV3 (Howard et al. 2019, sections 5.2 and 5.3)."""
    return SqueezeExcite(channels, narrow, nn.ReLU, nn.Hardsigmoid)


def soft_gate(channels: int, narrow: int) -> nn.Module:
    """Return the gate of EfficientNet (Tan and Le 2019, section 4)."""
    return SqueezeExcite(channels, narrow, nn.SiLU, nn.Sigmoid)


def inverted(row: Inverted, gate: Gate) -> nn.Module:
    """Return expansion, depthwise convolution, gate, linear projection (Sandler et al. 2018, section 3.3)."""
    inputs, wide, outputs = row.channels
    parts: list[nn.Module] = [conv_norm(inputs, wide, activation=row.activation)] if wide != inputs else []
    parts.append(conv_norm(wide, wide, row.kernel, row.stride, groups=wide, activation=row.activation))
    parts += [gate(wide, row.gate)] if row.gate else []
    branch = nn.Sequential(*parts, conv_norm(wide, outputs, activation=nn.Identity))
    return Residual(branch) if row.stride == 1 and inputs == outputs else branch


V2 = (
    Inverted(3, (8, 8, 8), 1),
    Inverted(3, (8, 48, 16), 2),
    Inverted(3, (16, 48, 16), 1),
    Inverted(3, (16, 64, 24), 2),
)
V3 = (
    Inverted(3, (8, 8, 8), 1, 8, nn.ReLU),
    Inverted(3, (8, 24, 16), 2, 0, nn.ReLU),
    Inverted(5, (16, 48, 16), 1, 16, nn.Hardswish),
    Inverted(5, (16, 48, 24), 2, 16, nn.Hardswish),
)
EFFICIENT = (
    Inverted(3, (8, 8, 8), 1, 2, nn.SiLU),
    Inverted(3, (8, 48, 16), 2, 2, nn.SiLU),
    Inverted(5, (16, 64, 16), 1, 4, nn.SiLU),
    Inverted(5, (16, 64, 24), 2, 4, nn.SiLU),
)


def inverted_net(rows: tuple[Inverted, ...], gate: Gate, activation: Activation, head: nn.Module) -> nn.Module:
    """Return a stem, inverted bottlenecks and a last 1x1 convolution to 48 channels before the head."""
    stem = conv_norm(3, rows[0].channels[0], 3, 2, activation=activation)
    last = conv_norm(rows[-1].channels[2], 48, activation=activation)
    return nn.Sequential(stem, *(inverted(row, gate) for row in rows), last, head)


def mobilenet_v2() -> nn.Module:
    """Return MobileNetV2 (Sandler et al. 2018, table 2)."""
    return inverted_net(V2, soft_gate, nn.ReLU6, mean_head(48, CLASSES))


def mobilenet_v3() -> nn.Module:
    """Return MobileNetV3 (Howard et al. 2019, table 2), whose head has no convolution left (same, figure 5)."""
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    head = nn.Sequential(*pool, nn.Linear(48, 64), nn.Hardswish(), nn.Linear(64, CLASSES))
    return inverted_net(V3, hard_gate, nn.Hardswish, head)


def efficientnet() -> nn.Module:
    """Return EfficientNet (Tan and Le 2019, table 1)."""
    return inverted_net(EFFICIENT, soft_gate, nn.SiLU, mean_head(48, CLASSES))


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1 around a shortcut (Zhang et al. 2018, figure 2 b and c)."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        inner, made = outputs // 4, outputs - inputs if stride == 2 else outputs
        enter, spatial = conv_norm(inputs, inner, groups=groups), conv_norm(inner, inner, 3, stride, inner, nn.Identity)
        leave = conv_norm(inner, made, groups=groups, activation=nn.Identity)
        self.branch = nn.Sequential(enter, Shuffle(groups), spatial, leave)
        self.pool = nn.AvgPool2d(3, 2, padding=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the sum with the image, or beside the pooled image where the unit is strided."""
        made = self.branch(image_BCHW)
        joined = torch.cat((self.pool(image_BCHW), made), 1) if self.stride == 2 else image_BCHW + made
        return torch.relu(joined)


def shufflenet_v1(groups: int = 2) -> nn.Module:
    """Return ShuffleNet (same, table 1)."""
    units = [ShuffleUnit(16, 32, 2, groups), ShuffleUnit(32, 32, 1, groups), ShuffleUnit(32, 64, 2, groups)]
    return nn.Sequential(conv_norm(3, 16, 3, 2), *units, mean_head(64, CLASSES))


def shuffle_branch(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return 1x1, depthwise 3x3 and 1x1 convolutions (Ma et al. 2018, figure 3 c)."""
    spatial = conv_norm(outputs, outputs, 3, stride, groups=outputs, activation=nn.Identity)
    return nn.Sequential(conv_norm(inputs, outputs), spatial, conv_norm(outputs, outputs))


class SplitUnit(nn.Module):
    """Work on half of the channels and shuffle them with the other half (same, figure 3 c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch, self.shuffle = shuffle_branch(channels // 2, channels // 2, 1), Shuffle(2)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return as many channels (B, C, H, W)."""
        kept, worked = image_BCHW.chunk(2, 1)
        return self.shuffle(torch.cat((kept, self.branch(worked)), 1))


def strided_unit(inputs: int, outputs: int) -> nn.Module:
    """Return the unit with two branches on all channels that halves the image (same, figure 3 d)."""
    half = outputs // 2
    spatial = conv_norm(inputs, inputs, 3, 2, groups=inputs, activation=nn.Identity)
    return nn.Sequential(
        Concat(nn.Sequential(spatial, conv_norm(inputs, half)), shuffle_branch(inputs, half, 2)), Shuffle(2)
    )


def shufflenet_v2() -> nn.Module:
    """Return ShuffleNetV2 (same, table 5)."""
    units = [strided_unit(8, 16), SplitUnit(16), strided_unit(16, 32), SplitUnit(32)]
    return nn.Sequential(conv_norm(3, 8, 3, 2), *units, conv_norm(32, 48), mean_head(48, CLASSES))


def fire(inputs: int, narrow: int, wide: int) -> nn.Module:
    """Return a squeezing 1x1 and two expanding convolutions side by side (Iandola et al. 2016, section 3.2)."""
    point, spatial = nn.Conv2d(narrow, wide, 1), nn.Conv2d(narrow, wide, 3, padding=1)
    expand = Concat(nn.Sequential(point, nn.ReLU()), nn.Sequential(spatial, nn.ReLU()))
    return nn.Sequential(nn.Conv2d(inputs, narrow, 1), nn.ReLU(), expand)


def squeezenet() -> nn.Module:
    """Return SqueezeNet (same, table 1): no normalisation, the classifier a convolution before global pooling."""
    stem = [nn.Conv2d(3, 16, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    last = [nn.Conv2d(48, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, fire(16, 8, 16), fire(32, 8, 16), nn.MaxPool2d(3, 2), fire(32, 12, 24), *last)


MOBILE = {
    "mobilenet_v1": Entry(mobilenet_v1, operators("Conv Relu Gemm"), opset=13),
    "depth_multiplier": Entry(lambda: mobilenet_v1(2), operators("Conv Relu Gemm"), opset=11),
    "mobilenet_v2": Entry(mobilenet_v2, operators("Conv Clip Add"), opset=18),
    "mobilenet_v3": Entry(mobilenet_v3, operators("Conv HardSwish HardSigmoid Mul Add"), opset=18),
    "efficientnet": Entry(efficientnet, operators("Conv Sigmoid Mul Add"), opset=20),
    "shufflenet_v1": Entry(shufflenet_v1, operators("Conv Reshape Transpose AveragePool Concat Add"), opset=11),
    "shufflenet_v2": Entry(shufflenet_v2, operators("Conv Split Concat Reshape Transpose"), opset=18),
    "squeezenet": Entry(squeezenet, operators("Conv Concat MaxPool GlobalAveragePool"), opset=9),
}
