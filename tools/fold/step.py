"""One step of training: passes forward and backward, gradients clipped and added up, Adam, average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sartor.share.artifact import write_tensors
from sartor.share.errors import GoalNotMetError
from sartor.tools.fold.checkpoint import State
from sartor.tools.fold.config import Config
from sartor.tools.fold.features import expand
from sartor.tools.fold.feed import Pass
from sartor.tools.fold.losses.total import loss
from sartor.tools.fold.optimise.clip import Gradients
from sartor.tools.fold.optimise.rate import rate_at

DROPOUT = 1
"""Keeps the draws of dropout apart from others of the same seed and step."""


@dataclass(frozen=True)
class Taken:
    """What a step came to: the mean loss of its samples, its terms, the norm of the gradient before clipping."""

    loss: float
    terms: dict[str, float]
    norm: float
    rate: float
    recycles: int
    chains: tuple[str, ...]


def take(state: State, passes: Sequence[Pass], step: int, config: Config, device: torch.device) -> Taken:
    """Take a step, the first is 1; raises GoalNotMetError, which names the chain, where a loss is not finite."""
    seed_dropout(config.training.seed, step)
    state.model.train()
    parameters = list(state.model.parameters())
    gradients = Gradients(parameters, config.optimiser.clip, config.optimiser.clip_by == "sample")
    totals, terms = [], []
    for one in passes:
        total, parts = forward(state, one, config, device)
        _require_finite(parts["scaled_weighted_total_loss"], one, step)
        torch.autograd.backward(total)
        gradients.add(len(one.chains))
        totals.append(float(total.detach()))
        terms.append({name: float(part.mean()) for name, part in parts.items()})
    norm = float(gradients.settle())
    rate = rate_at(step, config.optimiser)
    for group in state.adam.param_groups:
        group["lr"] = rate
    state.adam.step()
    state.average.update(step)
    mean = {name: math.fsum(one[name] for one in terms) / len(terms) for name in terms[0]}
    recycles = passes[0].arrays["msa"].shape[1] - 1
    chains = tuple(name for one in passes for name in one.chains)
    return Taken(math.fsum(totals) / len(totals), mean, norm, rate, recycles, chains)


def forward(state: State, one: Pass, config: Config, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scaled mean loss of a pass and its terms, a number a sample."""
    features = expand({name: array.to(device) for name, array in one.arrays.items()}, config.model)
    outputs = state.model(features)
    total, terms = loss(outputs, features, config.loss)
    return total, terms


def seed_dropout(seed: int, step: int) -> None:
    """Make what torch draws in a step a function of seed and step alone, so that a run can go on at any step."""
    torch.manual_seed(seed * 2**32 + step * 4 + DROPOUT)


class NonFiniteLossError(GoalNotMetError):
    """The loss of chains is infinite or not a number; `one` is the pass that they were in."""

    def __init__(self, step: int, one: Pass, chains: Sequence[str]) -> None:
        super().__init__(f"the loss is not finite in step {step}", subject=", ".join(dict.fromkeys(chains)))
        self.step, self.one = step, one


def _require_finite(losses: Tensor, one: Pass, step: int) -> None:
    """Raise NonFiniteLossError where the loss of a sample [B] is not finite."""
    wrong = [name for name, value in zip(one.chains, losses.tolist(), strict=True) if not math.isfinite(value)]
    if wrong:
        raise NonFiniteLossError(step, one, wrong)


def keep_for_inspection(error: NonFiniteLossError, run: Path) -> Path:
    """Write the samples of the pass that went wrong beside the checkpoints and return the file."""
    path = run / f"nonfinite-step-{error.step:08d}.safetensors"
    write_tensors(error.one.arrays, path, {"chains": " ".join(error.one.chains)})
    return path
