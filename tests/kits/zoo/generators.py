"""Networks that make images: transposed and grouped convolutions, pixel shuffle, instance normalisation."""

from __future__ import annotations

from tests.kits.zoo.entry import Entry, operators
from tests.kits.zoo.parts import Residual
from torch import nn

PICTURE = ("picture",)


def generator() -> nn.Module:
    """Return DCGAN's generator (Radford et al. 2016, figure 1) with transposed convolutions of all kinds.

    The first is grouped, the second depthwise as for bilinear upsampling (Long et al. 2015, section 3.3).
    """
    first = nn.ConvTranspose2d(16, 24, 4, 2, padding=1, groups=4, bias=False)
    second = nn.ConvTranspose2d(24, 24, 4, 2, padding=1, groups=24, bias=False)
    third = nn.ConvTranspose2d(24, 3, 4, 2, padding=1)
    parts = [first, nn.BatchNorm2d(24), nn.ReLU(), second, nn.BatchNorm2d(24), nn.ReLU(), third, nn.Tanh()]
    return nn.Sequential(nn.Linear(12, 16 * 4 * 4), nn.Unflatten(1, (16, 4, 4)), *parts)


def espcn() -> nn.Module:
    """Return a super-resolution network that turns channels into pixels (Shi et al. 2016, section 2.2).

    A last convolution mixes the colours, so that the channels before the shuffle are not outputs.
    """
    first, second = nn.Conv2d(1, 16, 5, padding=2), nn.Conv2d(16, 12, 3, padding=1)
    shuffle, colours = nn.Conv2d(12, 16, 3, padding=1), nn.Conv2d(4, 1, 1)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), shuffle, nn.PixelShuffle(2), nn.Tanh(), colours)


def conv_instance(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return reflection padding, convolution and instance normalisation (Ulyanov et al. 2016, equation 3)."""
    padding, convolution = nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride)
    return [padding, convolution, nn.InstanceNorm2d(outputs, affine=True)]


def style() -> nn.Module:
    """Return the style transfer network of Johnson et al. 2016 (supplement, table 1), resized instead of transposed."""
    branch = nn.Sequential(*conv_instance(16, 16, 3), nn.ReLU(), *conv_instance(16, 16, 3))
    enter = [*conv_instance(3, 8, 5), nn.ReLU(), *conv_instance(8, 16, 3, 2), nn.ReLU()]
    leave = [nn.Upsample(scale_factor=2.0), *conv_instance(16, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 5, padding=2)]
    return nn.Sequential(*enter, Residual(branch), *leave)


GENERATORS = {
    "generator": Entry(
        generator,
        operators("Gemm Reshape ConvTranspose Relu Tanh"),
        opset=18,
        oldest=13,
        inputs={"noise": (1, 12)},
        outputs=PICTURE,
    ),
    "espcn": Entry(
        espcn, operators("Conv Tanh DepthToSpace"), opset=13, inputs={"image": (1, 1, 16, 16)}, outputs=PICTURE
    ),
    "style": Entry(style, operators("Pad Conv InstanceNormalization Resize Add"), opset=18, outputs=PICTURE),
}
