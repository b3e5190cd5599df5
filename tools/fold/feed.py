"""The samples of every step, made ahead by threads; what a step gets depends on seed and step alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sartor.tools.fold.config import Config
from sartor.tools.fold.data.sample import sample
from sartor.tools.fold.sampler import Sampler
from sartor.tools.fold.store import Shards

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Pass:
    """Samples that go through the model at once: the names of their chains, and arrays with samples first."""

    chains: tuple[str, ...]
    arrays: dict[str, Tensor]


@contextmanager
def open_feed(
    shards: Shards, sampler: Sampler, config: Config, first: int, threads: int
) -> Iterator[Iterator[list[Pass]]]:
    """Yield an iterator over the passes of each step from the first, a few steps ahead of who takes them."""
    pool = ThreadPoolExecutor(threads, "features")
    try:
        yield _steps(pool, shards, sampler, config, first)
    finally:
        # Samples that nobody waits for any more are not begun.
        pool.shutdown(wait=True, cancel_futures=True)


def _steps(
    pool: ThreadPoolExecutor, shards: Shards, sampler: Sampler, config: Config, first: int
) -> Iterator[list[Pass]]:
    waiting: deque[list[Future[Pass]]] = deque()
    for step in range(first, config.training.steps + 1):
        waiting.append(_begin(pool, shards, sampler, config, step))
        if len(waiting) > config.training.ahead:
            yield [one.result() for one in waiting.popleft()]
    for started in waiting:
        yield [one.result() for one in started]


def _begin(pool: ThreadPoolExecutor, shards: Shards, sampler: Sampler, config: Config, step: int) -> list[Future[Pass]]:
    each = config.training.pass_batch
    starts = range(0, config.training.batch, each)
    return [pool.submit(_make, shards, sampler, config, step, range(start, start + each)) for start in starts]


def _make(shards: Shards, sampler: Sampler, config: Config, step: int, places: range) -> Pass:
    names, samples = [], []
    for index in places:
        chain = shards.load(sampler.draw(step, index))
        names.append(chain.name)
        samples.append(sample(chain, config.data, config.training.seed, step, index))
    return Pass(tuple(names), collate(samples))


def collate(samples: Sequence[Arrays]) -> dict[str, Tensor]:
    """Stack samples along a new first axis."""
    return {name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]}
