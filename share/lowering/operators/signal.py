"""Fourier transforms; complex numbers are pairs on a last axis of size 2, real ones stand alone on one of size 1."""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.share.lowering.registry import Op, rule


def _complex(x: Tensor) -> Tensor:
    """Return pairs as complex numbers, single numbers as real ones."""
    return x.squeeze(-1) if x.shape[-1] == 1 else torch.complex(x[..., 0], x[..., 1])


def _forward(signal: Tensor, length: int, axis: int, onesided: bool) -> Tensor:
    """Return the transform as pairs, of a half if `onesided`."""
    whole = torch.fft.fft(signal, n=length, dim=axis)
    if onesided:
        whole = whole.narrow(axis, 0, length // 2 + 1)
    return torch.view_as_real(whole)


@rule("DFT", host=(1, 2))
def fourier(op: Op, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """Transform along an axis, or back; one-sided backwards gives real numbers."""
    dim = (op.attr("axis", 1 if op.version < 20 else -2) if axis is None else int(axis)) % x.dim()
    inverse, onesided = bool(op.attr("inverse", 0)), bool(op.attr("onesided", 0))
    count = x.shape[dim] if length is None else int(length)
    if not inverse:
        return _forward(_complex(x), count, dim, onesided)
    if onesided:
        count = 2 * (x.shape[dim] - 1) if length is None else count
        back: Tensor = torch.fft.irfft(_complex(x), n=count, dim=dim)
        return back.unsqueeze(-1)
    return torch.view_as_real(torch.fft.ifft(_complex(x), n=count, dim=dim))


@rule("STFT", host=(1, 3))
def short_time_fourier(
    op: Op, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """Transform overlapping frames (B, frames, ...) of signals (B, samples, 1 or 2), weighted by a window."""
    count = int(length) if length is not None else (x.shape[1] if window is None else window.shape[0])
    frames = _complex(x).unfold(1, count, int(step))
    weighted = frames if window is None else frames * window
    return _forward(weighted, count, 2, bool(op.attr("onesided", 1)))
