"""Cross products of what a layer reads with a target that is not what it puts out for the same inputs, on the CPU.

Letters: N images, C channels, G groups, O outputs of a group, R rows, K columns of a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sartor.tools.prune.kernels.moments import CHUNK, batches, unfolded
from sartor.tools.prune.kernels.window import Array, Window, output_rows, sliding, unfold


@dataclass(frozen=True)
class Cross:
    """Sums over rows of the target Y less `shift` [G, O]: sums [G, O], energy [G] = |Y|^2, cross [G, K, O] = A^T Y.

    A is the design matrix less the shift of the moments that go with it.
    """

    rows: int
    shift: Array
    cross: Array
    sums: Array
    energy: Array

    def __add__(self, other: Cross) -> Cross:
        """Join the sums of two batches that were shifted alike."""
        assert np.array_equal(self.shift, other.shift)
        cross, sums, energy = self.cross + other.cross, self.sums + other.sums, self.energy + other.energy
        return Cross(self.rows + other.rows, self.shift, cross, sums, energy)


def cross_reference(x: Array, y: Array, window: Window, shift: Array, target_shift: Array) -> Cross:
    """Sum over the design matrix of a map [N, C, *spatial] and a target [N, G O, *output] in float64."""
    by_column = np.repeat(shift.astype(np.float64), window.taps).reshape(window.groups, 1, -1)
    target = output_rows(y.astype(np.float64), window.groups) - target_shift[:, None]
    design = unfold(x.astype(np.float64), window) - by_column
    return Cross(
        target.shape[1], target_shift, design.swapaxes(1, 2) @ target, target.sum(1), np.sum(target**2, (1, 2))
    )


def cross(x: Array, y: Array, window: Window, shift: Array, target_shift: Array) -> Cross:
    """Sum over the rows of the design matrix of a float32 map [N, C, *spatial] and a target [N, G O, *output].

    `shift` [C] is that of the moments, `target_shift` [G, O] is about the mean of the target.
    """
    groups, outputs = target_shift.shape
    columns = x.shape[1] // groups * window.taps
    products, sums, energy = np.zeros((groups, columns, outputs)), np.zeros((groups, outputs)), np.zeros(groups)
    rows, slide = 0, sliding(window)
    for first, last in batches(len(x), math.prod(y.shape[2:])):
        design_GKR = unfolded(x[first:last], slide, shift).reshape(groups, columns, -1)
        target_GRO = output_rows(y[first:last], groups) - target_shift[:, None].astype(y.dtype)
        rows += target_GRO.shape[1]
        for chunk in (slice(i, i + CHUNK) for i in range(0, target_GRO.shape[1], CHUNK)):
            target = target_GRO[:, chunk]
            products += design_GKR[:, :, chunk] @ target
            sums += target.sum(1, dtype=np.float64)
            energy += np.sum(target**2, (1, 2), dtype=np.float64)
    return Cross(rows, target_shift, products, sums, energy)
