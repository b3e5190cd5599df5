"""Networks on other than two spatial axes, and with operators through which no channel can be followed."""

from __future__ import annotations

import torch
from tests.kits.zoo.entry import CLASSES, Entry, operators
from tests.kits.zoo.parts import conv_norm, mean_head
from torch import Tensor, nn


def audio() -> nn.Module:
    """Return M5 for raw waves (Dai et al. 2017, table 1), one layer dilated (van den Oord et al. 2016, section 2.1)."""
    parts: list[nn.Module] = []
    for inputs, outputs, kernel, stride, dilation in ((1, 16, 16, 4, 1), (16, 24, 3, 1, 2), (24, 32, 3, 1, 1)):
        convolution = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation, bias=False)
        parts += [convolution, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def video() -> nn.Module:
    """Return C3D (Tran et al. 2015, figure 3): 3x3x3 convolutions, the first pooling leaves time alone."""
    parts: list[nn.Module] = []
    for inputs, outputs, pool in ((3, 8, (1, 2, 2)), (8, 16, (2, 2, 2)), (16, 24, (2, 2, 2))):
        convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        parts += [convolution, nn.BatchNorm3d(outputs), nn.ReLU(), nn.MaxPool3d(pool)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(24 * 2 * 2 * 2, 32), nn.ReLU(), nn.Linear(32, CLASSES))


class Crnn(nn.Module):
    """Convolutions, a bidirectional LSTM over columns, a label for each (Shi et al. 2017, figure 1)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2)
        self.convolutions = nn.Sequential(conv_norm(1, 8, 3), pool, conv_norm(8, 16, 3), pool, conv_norm(16, 16, 3, 2))
        self.recurrent = nn.LSTM(32, hidden, batch_first=True, bidirectional=True)
        self.label = nn.Linear(2 * hidden, CLASSES)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, T, classes) of an image (B, 1, 16, W)."""
        columns_BTC = self.convolutions(image_BCHW).flatten(1, 2).transpose(1, 2)
        return self.label(self.recurrent(columns_BTC)[0])


class DoubleAttention(nn.Module):
    """Gather features by a softmax over pixels, deal them out by one over channels (Chen et al. 2018, section 3)."""

    def __init__(self, channels: int, gathered: int, maps: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, gathered, 1)
        self.attend, self.deal = nn.Conv2d(channels, maps, 1), nn.Conv2d(channels, maps, 1)
        self.out = nn.Conv2d(gathered, channels, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the image with the dealt features added (B, C, H, W)."""
        features, attention, dealt = (part(image_BCHW).flatten(2) for part in (self.features, self.attend, self.deal))
        gathered = features @ torch.softmax(attention, 2).transpose(1, 2)
        spread = (gathered @ torch.softmax(dealt, 1)).unflatten(2, image_BCHW.shape[2:])
        return image_BCHW + self.out(spread)


def double_attention() -> nn.Module:
    """Return a small network around the block."""
    block = DoubleAttention(16, 12, 8)
    return nn.Sequential(conv_norm(3, 16, 3, 2), block, conv_norm(16, 24, 3, 2), mean_head(24, CLASSES))


SIGNALS = {
    "audio": Entry(audio, operators("Conv Relu MaxPool"), opset=11, inputs={"wave": (1, 1, 1024)}),
    "video": Entry(video, operators("Conv MaxPool Gemm"), opset=17, inputs={"clip": (1, 3, 8, 16, 16)}),
    "crnn": Entry(
        lambda: Crnn(12), operators("Conv LSTM Reshape Transpose"), opset=17, inputs={"line": (1, 1, 16, 32)}
    ),
    "double_attention": Entry(double_attention, operators("Conv Softmax MatMul Add"), opset=18, oldest=13),
}
