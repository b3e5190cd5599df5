"""The exponential moving average of the weights, which is what is evaluated and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Average of parameters (Jumper et al. 2021, suppl. 1.11.7); early steps count more, so that it starts at once."""

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.values = [one.detach().clone() for one in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step, the first is 1; the decay grows from 2/11 to what was asked for."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, list(self._parameters), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters be the average in the block."""
        before = [one.detach().clone() for one in self._parameters]
        self._fill(self.values)
        try:
            yield
        finally:
            self._fill(before)

    @torch.no_grad()
    def _fill(self, values: Sequence[Tensor]) -> None:
        for one, value in zip(self._parameters, values, strict=True):
            one.copy_(value)
