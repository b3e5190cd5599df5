"""Which rows of an alignment take part: blocks left out, clusters drawn (AlphaFold 2, supplementary 1.2.6, 1.2.7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.draws import Purpose, below, key_of, shuffled

Indices = NDArray[np.int64]


def kept_rows(depth: int, config: DataConfig, *drawn: int) -> Indices:
    """Return the rows of `depth` that stay when blocks of rows are left out; the first always does (algorithm 1)."""
    kept = np.ones(depth, bool)
    size, key = int(depth * config.deleted_share), key_of(*drawn, Purpose.BLOCKS)
    for number in range(config.deleted_blocks):
        start = below(key, number, depth)
        kept[start : start + size] = False
    kept[0] = True
    return np.flatnonzero(kept)


def draw_clusters(rows: int, config: DataConfig, *drawn: int) -> tuple[Indices, Indices]:
    """Return the centres of clusters, row 0 and others at random, and all other rows in random order."""
    order = shuffled(key_of(*drawn, Purpose.ORDER), np.arange(1, rows))
    return np.concatenate([[0], order[: config.clusters - 1]]), order[config.clusters - 1 :]
