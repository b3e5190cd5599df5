"""Which chain a step trains on: a pure function of seed, step and place in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST, MOST = 256, 512
"""Lengths below and above which a chain's chance grows no more with its length."""


@dataclass(frozen=True)
class Sampler:
    """Draws chains by weight, with replacement; `upto` are the running sums of the weights (chains), the last is 1."""

    seed: int
    upto: NDArray[np.float64]

    def draw(self, step: int, index: int) -> int:
        """Return the position of the chain of a place in a step's batch."""
        bits = np.random.Philox(key=self.seed, counter=[0, index, step, 0])
        return int(np.searchsorted(self.upto, np.random.Generator(bits).random(), side="right"))


def make_sampler(lengths: Sequence[int], clusters: Sequence[int], seed: int) -> Sampler:
    """Weigh chains by max(min(length, 512), 256) over the size of their cluster (AlphaFold 2, supplementary 1.2.5)."""
    weights = np.clip(np.asarray(lengths, np.float64), LEAST, MOST) / np.asarray(clusters, np.float64)
    upto = np.cumsum(weights) / weights.sum()
    upto[-1] = 1.0
    return Sampler(seed, upto)
