"""Where a sample is cut out of a chain, and which templates it sees (AlphaFold 2, supplementary 1.2.3 and 1.2.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.draws import Purpose, below, key_of, shuffled, uniform


def draw_clamped(config: DataConfig, *drawn: int) -> bool:
    """Tell whether the backbone loss of a sample is clamped (1.11.5)."""
    return bool(uniform(key_of(*drawn, Purpose.CLAMPED), 0) < config.clamped)


def draw_crop(length: int, clamped: bool, config: DataConfig, *drawn: int) -> slice:
    """Return the residues of a sample: any alike, or rather those near the start where the loss is not clamped."""
    room, key = max(length - config.crop_size, 0), key_of(*drawn, Purpose.CROP)
    if not clamped:
        room -= below(key, 0, room + 1)
    start = below(key, 1, room + 1)
    return slice(start, start + min(config.crop_size, length))


def draw_templates(count: int, config: DataConfig, *drawn: int) -> NDArray[np.int64]:
    """Return which of `count` templates, the surest first, a sample sees: min(Uniform[0, n], 4) of the surest n."""
    pool = min(count, config.template_pool)
    size = min(below(key_of(*drawn, Purpose.TEMPLATE_COUNT), 0, pool + 1), config.templates)
    return shuffled(key_of(*drawn, Purpose.TEMPLATE_ORDER), np.arange(pool))[:size]
