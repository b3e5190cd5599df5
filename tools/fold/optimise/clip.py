"""Gradients clipped by norm, of each sample or of a whole step, and summed up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Gradients:
    """Sums of gradients of a step, one sample or several at a time; norms stay on the device.

    By sample (Jumper et al. 2021, suppl. 1.11.3) each pass is scaled to a norm of at most `clip` before it is added;
    globally (MLPerf HPC v3.0) the mean is.
    """

    def __init__(self, parameters: Sequence[Tensor], clip: float, by_sample: bool) -> None:
        self._parameters, self._clip, self._by_sample = parameters, clip, by_sample
        self._sums = [torch.zeros_like(one) for one in parameters]
        self._samples = 0
        self._norms: list[Tensor] = []
        self._clear()

    def add(self, samples: int) -> None:
        """Take over the gradients of a pass over some samples, whose loss was a mean, and clear them."""
        found = [torch.zeros_like(one) if one.grad is None else one.grad for one in self._parameters]
        weight: Tensor | float = float(samples)
        if self._by_sample:
            weight = weight * self._scale(found)
        torch._foreach_add_(self._sums, torch._foreach_mul(found, weight))
        self._samples += samples
        self._clear()

    def settle(self) -> Tensor:
        """Put the mean into `grad` and return the norm: of the mean, or the mean of the norms by sample."""
        torch._foreach_div_(self._sums, float(self._samples))
        if not self._by_sample:
            torch._foreach_mul_(self._sums, self._scale(self._sums))
        for one, total in zip(self._parameters, self._sums, strict=True):
            one.grad = total
        return torch.stack(self._norms).mean()

    def _clear(self) -> None:
        for one in self._parameters:
            one.grad = None

    def _scale(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the factor, at most 1, that makes the norm at most `clip`."""
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
        self._norms.append(norm)
        factor: Tensor = (self._clip / norm.clamp_min(1e-12)).clamp_max(1.0)
        return factor
