"""What stays of the weights of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.find import Layer, R, W
from sartor.tools.sparse_rnn.oracle import GATES
from sartor.tools.sparse_rnn.pattern import Mask, masks
from sartor.tools.sparse_rnn.plan import Options

Matrices = dict[Layer, dict[int, Mask]]
"""What stays of the weights of layers by their positions, [D, G H, columns]."""


def choose(layers: Sequence[Layer], options: Options) -> Matrices:
    """Choose what stays of the recurrent weights, and of the input weights if asked to."""
    slots = [(layer, place) for layer in layers for place in ((W, R) if options.also_input else (R,))]
    chosen: Matrices = {layer: {} for layer in layers}
    # All that share a number of gates are chosen among at once, so that a threshold may be that of the whole model.
    for gates in sorted({len(GATES[layer.cell.kind]) for layer in layers}):
        mine = [(layer, place) for layer, place in slots if len(GATES[layer.cell.kind]) == gates]
        matrices = [matrix for layer, place in mine for matrix in weight_of(layer, place)]
        found = iter(masks(matrices, gates, options.pattern, options.density, options.scope))
        for layer, place in mine:
            chosen[layer][place] = np.stack([next(found) for _ in range(layer.cell.directions)])
    return chosen


def weight_of(layer: Layer, place: int) -> NDArray[Any]:
    """Return the weight [D, G H, columns] of a layer at a position of its inputs."""
    return layer.weights.w if place == W else layer.weights.r
