"""How much weight classes of channels have, over all tensors that hold them, each read once.

A tensor is taken as [L, C, I]: the channels of one axis, what lies before it and what lies behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from sartor.tools.prune.kernels.window import Array


@dataclass(frozen=True)
class Part:
    """A float32 tensor that has a weight for each channel of an axis; classes [C] holds a channel's class, or -1."""

    weight: Array
    axis: int
    classes: Array


@dataclass(frozen=True)
class Saliency:
    """Sums over the weights of each class [n], of all parts: of squares, and of magnitudes."""

    squares: Array
    magnitudes: Array


def saliency(parts: Sequence[Part], count: int) -> Saliency:
    """Sum the weights of `count` classes."""
    found = Saliency(np.zeros(count), np.zeros(count))
    for part in parts:
        add_classes(found, part.classes, *channel_sums(part))
    return found


def add_classes(found: Saliency, classes: Array, squares: Array, magnitudes: Array) -> None:
    """Add sums of channels [C] to those of their classes."""
    inside = classes >= 0
    np.add.at(found.squares, classes[inside], squares[inside])
    np.add.at(found.magnitudes, classes[inside], magnitudes[inside])


def channel_sums(part: Part) -> tuple[Array, Array]:
    """Sum squares and magnitudes of each channel [C] in one pass."""
    weight_LCI = np.ascontiguousarray(part.weight).reshape(lengths(part.weight.shape, part.axis))
    squares, magnitudes = np.zeros(weight_LCI.shape[1]), np.zeros(weight_LCI.shape[1])
    (_add_columns if weight_LCI.shape[2] == 1 else _add_runs)(weight_LCI, squares, magnitudes)
    return squares, magnitudes


def channel_sums_reference(part: Part) -> tuple[Array, Array]:
    """Sum squares and magnitudes of each channel [C] in float64."""
    weight_LCI = part.weight.astype(np.float64).reshape(lengths(part.weight.shape, part.axis))
    return np.sum(weight_LCI**2, (0, 2)), np.abs(weight_LCI).sum((0, 2))


def lengths(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Count what lies before an axis, along it, and behind it."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _add_runs(weight_LCI: Array, squares: Array, magnitudes: Array) -> None:
    """Add runs of weights of one channel; float32 within a run."""
    for before in range(weight_LCI.shape[0]):
        for channel in range(weight_LCI.shape[1]):
            square, magnitude = np.float32(0), np.float32(0)
            for behind in range(weight_LCI.shape[2]):
                weight = weight_LCI[before, channel, behind]
                square += weight * weight
                magnitude += abs(weight)
            squares[channel] += square
            magnitudes[channel] += magnitude


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _add_columns(weight_LC1: Array, squares: Array, magnitudes: Array) -> None:
    """Add rows that have one weight of each channel."""
    for before in range(weight_LC1.shape[0]):
        for channel in range(weight_LC1.shape[1]):
            weight = weight_LC1[before, channel, 0]
            squares[channel] += weight * weight
            magnitudes[channel] += abs(weight)
