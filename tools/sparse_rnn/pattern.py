"""Which recurrent weights stay: patterns of non-zeros, and thresholds a gate, a matrix or a model.

Letters: D directions, G gates, H hidden units (rows of a gate), C columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import UsageError

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Kind = Literal["balanced", "unstructured", "row", "block"]
Scope = Literal["gate", "matrix", "model"]

WIDTHS = (32, 16)
"""Widths of groups that `balanced` may have; kernels look up so many columns at a time."""


@dataclass(frozen=True)
class Pattern:
    """A pattern: `balanced` has equally many in every group of `size` columns of a row, `block` blocks of a size."""

    kind: Kind
    size: tuple[int, ...] = ()


def parse_pattern(text: str) -> Pattern:
    """Return the pattern of `balanced:32`, `unstructured`, `row` or `block:16x1`; raises UsageError for others."""
    name, _, rest = text.partition(":")
    sizes = tuple(int(size) for size in rest.split("x") if size.isdecimal())
    known = {"balanced": 1, "unstructured": 0, "row": 0, "block": 2}
    if known.get(name) != len(sizes) or rest.count("x") + bool(rest) != len(sizes) or 0 in sizes:
        remedy = "Take balanced:32, unstructured, row or block:16x1"
        raise UsageError(f"there is no pattern {text!r}", subject="--pattern", remedy=remedy)
    return Pattern(name, sizes)  # type: ignore[arg-type]


def masks(matrices: Sequence[Array], gates: int, pattern: Pattern, density: float, scope: Scope) -> list[Mask]:
    """Choose what stays of matrices [G H, C], the largest magnitudes first; of equals the first.

    A gate, a matrix or all of them together have the density. `balanced` and `row` have it in every row, whatever the
    scope.
    """
    if pattern.kind in ("balanced", "row"):
        return [_by_row(one, pattern, density) for one in matrices]
    blocks = [_blocks(one, pattern) for one in matrices]
    if scope == "model":
        flat = _largest(np.concatenate([one.ravel() for one in blocks]), density)
        kept = np.split(flat, np.cumsum([one.size for one in blocks])[:-1])
        chosen = [mask.reshape(one.shape) for mask, one in zip(kept, blocks, strict=True)]
    else:
        parts = gates if scope == "gate" else 1
        chosen = [_in_parts(one, parts, density) for one in blocks]
    return [_spread(mask, one.shape, pattern) for mask, one in zip(chosen, matrices, strict=True)]


def _by_row(matrix: Array, pattern: Pattern, density: float) -> Mask:
    width = pattern.size[0] if pattern.kind == "balanced" else matrix.shape[1]
    groups = math.ceil(matrix.shape[1] / width)
    padded = np.full((len(matrix), groups * width), -1.0)
    padded[:, : matrix.shape[1]] = np.abs(matrix)
    cells = padded.reshape(-1, width)
    count = max(round(density * width), 1)
    order = np.argsort(-cells, axis=1, kind="stable")[:, :count]
    mask = np.zeros(cells.shape, bool)
    np.put_along_axis(mask, order, True, axis=1)
    return (mask & (cells >= 0)).reshape(padded.shape)[:, : matrix.shape[1]]


def _blocks(matrix: Array, pattern: Pattern) -> Array:
    """Return the squares of blocks, summed; of single weights without blocks."""
    rows, columns = pattern.size or (1, 1)
    height, width = math.ceil(len(matrix) / rows), math.ceil(matrix.shape[1] / columns)
    padded = np.zeros((height * rows, width * columns))
    padded[: len(matrix), : matrix.shape[1]] = np.square(matrix.astype(np.float64))
    return np.asarray(padded.reshape(height, rows, width, columns).sum((1, 3)))


def _in_parts(energy: Array, parts: int, density: float) -> Mask:
    split = np.array_split(energy, parts)
    return np.concatenate([_largest(one.ravel(), density).reshape(one.shape) for one in split])


def _largest(energy: Array, density: float) -> Mask:
    mask = np.zeros(energy.size, bool)
    mask[np.argsort(-energy, kind="stable")[: max(round(density * energy.size), 1)]] = True
    return mask


def _spread(mask: Mask, shape: tuple[int, ...], pattern: Pattern) -> Mask:
    rows, columns = pattern.size or (1, 1)
    return mask.repeat(rows, 0).repeat(columns, 1)[: shape[0], : shape[1]]
