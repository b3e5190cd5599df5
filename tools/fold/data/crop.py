"""Where a sample is cut out of a chain, and which templates it sees (supplementary 1.2.3 and 1.2.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.random import CLAMP, CROP, TEMPLATES, below, key_of, shuffled, uniform


def is_clamped(config: DataConfig, *seed: int) -> bool:
    """Tell whether a sample's backbone loss is clamped."""
    return bool(uniform(key_of(*seed, CLAMP), 0) < config.clamped)


def crop_of(length: int, clamped: bool, config: DataConfig, *seed: int) -> slice:
    """Return the residues of a sample: anywhere alike, or, where the loss is not clamped, rather near the start."""
    room = max(length - config.crop_size, 0)
    key = key_of(*seed, CROP)
    if not clamped:
        room -= int(below(key, 1, room + 1))
    start = int(below(key, 0, room + 1))
    return slice(start, start + min(config.crop_size, length))


def draw_templates(sum_probs: NDArray[np.float32], config: DataConfig, *seed: int) -> NDArray[np.int64]:
    """Return which templates a sample sees: up to a few at random of the surest twenty, often fewer, at times none."""
    surest = np.argsort(-sum_probs, kind="stable")[: config.template_pool].astype(np.int64)
    key = key_of(*seed, TEMPLATES)
    count = min(int(below(key, len(surest), len(surest) + 1)), config.templates)
    return np.asarray(shuffled(key, surest)[:count])
