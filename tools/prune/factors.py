"""Choose how reshapes that divide an axis hand on its atoms, so that most of a model can be removed.

Where (heads, width) or (groups, channels) are made of one axis, one factor keeps atoms: whole heads go, or the same
channels of all heads. Which of them the rest of the model allows is found by trying.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sartor.tools.prune.channels import Channels
from sartor.tools.prune.spread import spread
from sartor.tools.prune.units import find_units

ROUNDS = 2
"""How often all reshapes are looked at: a choice may make another one worth it."""


def find_channels(graph: ir.Graph, opset: int) -> Channels:
    """Find the channels of a graph whose shapes are inferred.

    Reshapes that do the same choose alike; of equal choices the first factor is taken.
    """
    factors: dict[str, int] = {}
    best = spread(graph, opset, factors)
    for _ in range(ROUNDS):
        before = dict(factors)
        for key, count in sorted(best.divided.items()):
            for choice in set(range(count)) - {factors.get(key, 0)}:
                other = spread(graph, opset, {**factors, key: choice})
                if _freedom(other) > _freedom(best):
                    best, factors = other, {**factors, key: choice}
        if factors == before:
            break
    return best


def _freedom(found: Channels) -> int:
    """Count the atoms that can be removed when one class of each unit stays."""
    times = np.bincount(found.atoms.roots(), minlength=found.atoms.count)
    return sum(int(times[unit.classes[1:]].sum()) for unit in find_units(found))
