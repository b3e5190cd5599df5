"""The learning rate by step."""

from __future__ import annotations

from sartor.tools.fold.config import OptimiserConfig


def rate_at(step: int, config: OptimiserConfig) -> float:
    """Return the rate of a step, the first is 1: linear warm-up, then steps down (supplementary 1.11.3)."""
    rate = config.rate * min(1.0, step / config.warm_up) if config.warm_up else config.rate
    if step <= config.decay_after:
        return rate
    return float(rate * config.decay ** (1 + (step - config.decay_after - 1) // config.decay_every))
