"""Which rows of an alignment take part: blocks left out, clusters and extra rows drawn (supplementary 1.2.6, 1.2.7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.random import DELETION, ORDER, below, key_of, shuffled

Indices = NDArray[np.int64]


def block_deletion(depth: int, config: DataConfig, *seed: int) -> Indices:
    """Return the rows that stay of `depth` when runs of rows are left out; the first stays always (algorithm 1)."""
    kept = np.ones(depth, bool)
    size, key = int(depth * config.deleted_share), key_of(*seed, DELETION)
    for number in range(config.deleted_blocks):
        start = int(below(key, number, depth))
        kept[start : start + size] = False
    kept[0] = True
    return np.flatnonzero(kept)


def draw_rows(rows: Indices, config: DataConfig, *seed: int) -> tuple[Indices, Indices]:
    """Return the clusters, the first row and others at random, and all other rows in random order."""
    order = shuffled(key_of(*seed, ORDER), rows[1:])
    centres = np.concatenate([rows[:1], order[: config.clusters - 1]])
    return centres, order[config.clusters - 1 :]
