"""Gradient steps on a lowered model: towards labels, or towards what another model gives (distillation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.share.data import Axes, Split
from sartor.share.errors import InputRefusedError
from sartor.share.lowering import Lowered

Arrays = Mapping[str, NDArray[Any]]
Tensors = Mapping[str, Tensor]

BATCH = 64
CLIP = 1.0
"""Largest norm of a gradient: the first steps of a model that has lost weights are steep."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, with the axes of the samples of inputs and outputs."""

    epochs: int
    seed: int
    threads: int
    loss: Callable[[Tensors, Tensors], Tensor]
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]
    axes: Axes = field(default_factory=dict)


def train(
    lowered: Lowered, parameters: Sequence[Tensor], split: Split, goals: Arrays, recipe: Recipe,
    after: Callable[[int], None],
) -> list[float]:  # fmt: skip
    """Train parameters in place and return the mean loss of every epoch; `after` hears of each step, the first is 0.

    The rate falls along half a cosine (Loshchilov and Hutter 2017, equation 5). Raises InputRefusedError where a loss
    is not finite.
    """
    for one in parameters:
        one.requires_grad_()
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = steps_of(split, recipe.epochs)
    optimizer = recipe.optimizer(list(parameters))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: (1 + math.cos(math.pi * at / steps)) / 2)
    losses: list[float] = []
    done = 0
    shared = {name: torch.from_numpy(array) for name, array in split.shared.items()}
    with _threads(recipe.threads):
        for _ in range(recipe.epochs):
            total = 0.0
            for batch in torch.split(torch.randperm(len(split), generator=generator), BATCH):
                outputs = lowered(**_taken(split.inputs, batch, recipe.axes), **shared)
                loss = recipe.loss(_samples_first(outputs, recipe.axes), _taken(goals, batch, {}))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(parameters, CLIP)
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(batch)
                after(done)
                done += 1
            losses.append(total / len(split))
            if not math.isfinite(losses[-1]):
                raise InputRefusedError("the loss of fine-tuning is not finite", remedy="Check the samples for NaN")
    return losses


def steps_of(split: Split, epochs: int) -> int:
    """Count the gradient steps."""
    return epochs * math.ceil(len(split) / BATCH)


def _taken(arrays: Arrays, batch: Tensor, axes: Axes) -> dict[str, Tensor]:
    """Return samples of a batch, whose axis stands where the model has it."""
    found = {}
    for name, array in arrays.items():
        moved = np.moveaxis(array[batch.numpy()], 0, axes.get(name) or 0)
        found[name] = torch.from_numpy(np.ascontiguousarray(moved))
    return found


def _samples_first(outputs: Tensors, axes: Axes) -> Tensors:
    return {name: output.movedim(axes.get(name) or 0, 0) for name, output in outputs.items()}


def cross_entropy(axis: int) -> Callable[[Tensors, Tensors], Tensor]:
    """Return the loss of labels; outputs that sum to one along the axis of classes are probabilities already."""

    def loss(outputs: Tensors, labels: Tensors) -> Tensor:
        losses = []
        for name, label in labels.items():
            output = outputs[name].movedim(axis, 1)
            sums = output.detach().sum(1)
            probable = bool((output.detach() >= 0).all()) and bool(
                torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
            )
            likely = output.clamp_min(1e-12).log() if probable else output.log_softmax(1)
            losses.append(nn.functional.nll_loss(likely, label.long()))
        return torch.stack(losses).sum()

    return loss


def distillation(outputs: Tensors, wanted: Tensors) -> Tensor:
    """Return the mean square of what is off, in units of each output's variance."""
    losses = [
        (outputs[name] - goal).square().mean() / goal.var().clamp_min(1e-12)
        for name, goal in wanted.items()
        if goal.is_floating_point()
    ]
    return torch.stack(losses).sum()


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Let torch use a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
