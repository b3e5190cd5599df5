"""The judgement of a model: lDDT of alpha carbons over whole chains, in buckets of length, within memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sartor.share.console import warn
from sartor.tools.fold.checkpoint import State
from sartor.tools.fold.config import Config
from sartor.tools.fold.estimate import available, inference_bytes
from sartor.tools.fold.inference import accuracy, padded, run_chain
from sartor.tools.fold.store import Shards


@dataclass(frozen=True)
class Judgement:
    """The lDDT-Ca (0 to 1) of chains by name, and how many were left out for want of memory."""

    chains: dict[str, float]
    left_out: int

    @property
    def lddt_ca(self) -> float | None:
        """The mean over the chains, None where no chain fits into memory."""
        return sum(self.chains.values()) / len(self.chains) if self.chains else None


def judge(state: State, shards: Shards, config: Config, device: torch.device) -> Judgement:
    """Predict chains, the shortest first, by the average of the weights and compare them with what is known."""
    wanted = sorted(range(len(shards)), key=lambda position: (shards.lengths[position], position))
    wanted = wanted[: config.evaluation.chains]
    room = available(device)
    fitting = [one for one in wanted if inference_bytes(padded(shards.lengths[one], config), config) <= room]
    if len(fitting) < len(wanted):
        warn(f"{len(wanted) - len(fitting)} chains are too long to be judged in {room / 2**30:.1f} GiB")
    training = state.model.training
    state.model.eval()
    with state.average.applied():
        found = dict(_judged(state, shards, position, config, device) for position in fitting)
    state.model.train(training)
    return Judgement(found, len(wanted) - len(fitting))


def _judged(state: State, shards: Shards, position: int, config: Config, device: torch.device) -> tuple[str, float]:
    """Return the name of a chain and its lDDT-Ca."""
    found = run_chain(state.model, shards.load(position), config, device, config.evaluation.recycles)
    return found.chain.name, accuracy(found)
