"""In which order classes of channels are kept: greedily by what is lost.

All consumers of a unit share one order; losses are sums over consumers of shares of the whole. The class whose loss
costs least is dropped next, the rest being refitted each time: of the inverse of the Gram matrix, with the diagonal
block D_j of class j and its weights R_j, given those dropped, the loss is `tr(R_j^T D_j^-1 R_j)` (the optimal brain
surgeon in blocks: Kurtic et al. 2023, ZipLM, section 3). Dropping eliminates the class from that matrix: a Cholesky
factor that chooses its next block as it goes.

Letters: G groups, n classes of s columns, K = n s columns, O outputs of a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sartor.tools.prune.kernels.nested import inverse_of_transpose
from sartor.tools.prune.kernels.window import Array
from sartor.tools.prune.refit import Statistics, nest


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the classes of a unit: class j is the columns `classes[j]` of [n, s]."""

    statistics: Statistics
    classes: Array


def backward_greedy(consumers: Sequence[Consumer]) -> Array:
    """Order classes by dropping next what costs least, the most important first."""
    return np.array(list(_eliminated([_start(one) for one in consumers])))[::-1]


_TINY = 1e-300


@dataclass(frozen=True)
class _Elimination:
    """A matrix [G, K, K] and right sides [G, K, O], of which blocks are eliminated in place.

    factor [G, K, K] fills with the columns of eliminated blocks; diagonal [G, n, s, s] and right hold what is left.
    """

    matrix: Array
    right: Array
    factor: Array
    diagonal: Array
    energy: float


def _start(one: Consumer) -> _Elimination:
    """Begin with the inverse of the Gram matrix of classes, given the columns of no class."""
    count, size = one.classes.shape
    nested = nest(one.statistics, one.classes, np.arange(count))
    kept = int(nested.ends[0])
    triangle, solved = inverse_of_transpose(nested.factor[:, kept:, kept:]), nested.solved[:, kept:]
    matrix = triangle @ triangle.swapaxes(1, 2)
    blocks = matrix.reshape(len(matrix), count, size, count, size)
    diagonal = np.ascontiguousarray(np.einsum("gisit->gist", blocks))
    energy = max(float(np.sum(nested.solved**2)), _TINY)
    return _Elimination(matrix, triangle @ solved, np.zeros_like(matrix), diagonal, energy)


def _eliminated(parts: Sequence[_Elimination]) -> Iterable[int]:
    """Eliminate the class of the smallest loss from all consumers until none is left; yield each."""
    left = np.arange(parts[0].diagonal.shape[1])
    for done in range(len(left)):
        values = np.sum([_values(part, left) for part in parts], axis=0)
        chosen = int(left[np.argmin(values)])
        left = left[left != chosen]
        for part in parts:
            _eliminate(part, chosen, done)
        yield chosen


def _values(part: _Elimination, left: Array) -> Array:
    """Return `tr(R_j^T D_j^-1 R_j)` of classes as a share of the output's energy."""
    groups, count, size, _ = part.diagonal.shape
    right = part.right.reshape(groups, count, size, -1)[:, left]
    solved = np.linalg.solve(part.diagonal[:, left], right @ right.swapaxes(2, 3))
    return np.asarray(np.einsum("gnss->n", solved) / part.energy)


def _eliminate(part: _Elimination, chosen: int, done: int) -> None:
    """Eliminate a class after `done` others."""
    groups, count, size, _ = part.diagonal.shape
    block, before = slice(chosen * size, (chosen + 1) * size), slice(0, done * size)
    column = part.matrix[:, :, block] - part.factor[:, :, before] @ part.factor[:, block, before].swapaxes(1, 2)
    inverse = np.linalg.inv(np.linalg.cholesky(column[:, block]))
    column = column @ inverse.swapaxes(1, 2)
    part.factor[:, :, done * size : (done + 1) * size] = column
    np.subtract(part.right, column @ (inverse @ part.right[:, block]), out=part.right)
    blocks = column.reshape(groups, count, size, size)
    np.subtract(part.diagonal, blocks @ blocks.swapaxes(2, 3), out=part.diagonal)
