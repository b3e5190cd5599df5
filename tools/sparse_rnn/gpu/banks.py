"""Shared memory as the hardware serves it: how often a warp's look-ups have to be split because of its banks.

A load of 32 bits is served for a warp at a time, one of 64 bits for half of it, one of 128 bits for a quarter. Each
bank gives one word of 32 bits at a time; threads that want the same word share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.kernels.memory import compiled

Array = NDArray[Any]

BANKS = 32
PHASE_THREADS = {4: 32, 8: 16, 16: 8}
"""The threads that are served together, by the bytes of a load."""


@dataclass(frozen=True)
class Conflicts:
    """Times that shared memory is read, and how many these would be without conflicts."""

    reads: int
    ideal: int

    @property
    def factor(self) -> float:
        """How many times longer look-ups take than without conflicts."""
        return self.reads / max(self.ideal, 1)


def conflicts(places: Array, width: int) -> Conflicts:
    """Count the reads of look-ups of `width` bytes at places [slots, threads], in units of the width."""
    together = PHASE_THREADS[width]
    phases = np.ascontiguousarray(places, np.int64).reshape(-1, together)
    reads = _reads(phases, BANKS * 4 // width)
    return Conflicts(int(reads.sum()), len(phases))


@compiled
def _reads(phases: Any, banks: int) -> Any:
    """Return the reads of each phase: the most places, each counted once, that share a bank."""
    found = np.zeros(len(phases), np.int64)
    for i in range(len(phases)):
        load = np.zeros(banks, np.int64)
        for j in range(phases.shape[1]):
            seen = False
            for k in range(j):
                seen = seen or phases[i, k] == phases[i, j]
            if not seen:
                load[phases[i, j] % banks] += 1
        found[i] = load.max()
    return found
