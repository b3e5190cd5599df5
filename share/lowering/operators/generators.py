"""Operators that make tensors from a few numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sartor.share.lowering.dtypes import torch_type
from sartor.share.lowering.frame import Frame
from sartor.share.lowering.registry import Op, rule

_FLOAT = 1
_WINDOWS = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}
"""The coefficients of 1, -cos x and cos 2x."""


@rule(*_WINDOWS, host=(0,), framed=True)
def window(op: Op, frame: Frame, size: Tensor) -> Tensor:
    """Return a window of cosines, periodic or symmetric."""
    count = int(size.reshape(()).item())
    period = count if op.attr("periodic", 1) else count - 1
    angle = torch.arange(count, device=frame.device, dtype=torch.float64) * (2 * math.pi / period)
    a, b, c = _WINDOWS[op.node.op_type]
    return (a - b * torch.cos(angle) + c * torch.cos(2 * angle)).to(torch_type(op.attr("output_datatype", _FLOAT)))


@rule("MelWeightMatrix", host=(0, 1, 2, 3, 4), framed=True)
def mel_weight_matrix(op: Op, frame: Frame, *parameters: Tensor) -> Tensor:
    """Return triangles over the bins of a spectrum, of equal distance on the mel scale."""
    bins, length, rate, low, high = (one.item() for one in parameters)
    step = (_mel(high) - _mel(low)) / (bins + 2)
    edges = torch.arange(int(bins) + 2, dtype=torch.float64) * step + _mel(low)
    hertz = 700 * torch.expm1(edges / 2595 * math.log(10))
    borders = torch.floor((length + 1) * hertz / rate)
    left, centre, right = borders[:-2], borders[1:-1], borders[2:]
    place = torch.arange(int(length) // 2 + 1, dtype=torch.float64)[:, None]
    rising = (place - left) / (centre - left)
    falling = (right - place) / (right - centre)
    weights = torch.where((place >= left) & (place <= centre), rising, torch.zeros_like(rising))
    weights = torch.where(centre == left, (place == centre).double(), weights)
    weights = torch.where((place >= centre) & (place < right), falling, weights)
    return weights.to(torch_type(op.attr("output_datatype", _FLOAT))).to(frame.device)


def _mel(hertz: float) -> float:
    return 2595 * math.log1p(hertz / 700) / math.log(10)
