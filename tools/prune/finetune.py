"""Fine-tuning of a pruned model: gradient steps on labels, or towards what the original gives (distillation).

The ONNX model is lowered to torch, its floating initialisers are the parameters, and what they become is written back
by name. Normalisations run as in inference: most exporters have folded them into weights anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from sartor.share.errors import InputRefusedError
from sartor.share.lowering import lower, write_back
from sartor.tools.prune.data import Split
from sartor.tools.prune.evaluate import Arrays

BATCH = 64
RATE, MOMENTUM, DECAY = 0.03, 0.9, 1e-4
"""Of stochastic gradient descent; the rate falls along half a cosine (Loshchilov and Hutter 2017, equation 5)."""

CLIP = 1.0
"""Largest norm of a gradient: a pruned network's first steps are steep."""

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
Step = Callable[[int], None]


def finetune(
    model: ir.Model, split: Split, wanted: Arrays | None, epochs: int, seed: int, threads: int, step: Step
) -> list[float]:
    """Train a model in place and return the mean loss of every epoch; `wanted` replaces the labels.

    Raises InputRefusedError where there is nothing to learn from, and where a loss is not finite: the model is then
    as it was.
    """
    goals = wanted or split.labels
    if not goals:
        raise InputRefusedError("it has no labels train/y", remedy="Add them, or use --distill")
    lowered = lower(model)
    tensors, fixed = lowered.tensors(), _fixed(model)
    parameters = [
        one for name, one in tensors.items() if one.is_floating_point() and one.dim() > 0 and name not in fixed
    ]
    for one in parameters:
        one.requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(split) / BATCH)
    optimizer = torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: (1 + math.cos(math.pi * at / steps)) / 2)
    loss_of, losses = _distillation if wanted else _classification, []
    with _reproducible(threads):
        for _ in range(epochs):
            total = 0.0
            for batch in torch.split(torch.randperm(len(split), generator=generator), BATCH):
                feed, goal = (_taken(arrays, batch) for arrays in (split.inputs, goals))
                loss = loss_of(lowered(**feed), goal)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(parameters, CLIP)
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(batch)
                step(1)
            losses.append(total / len(split))
            if not math.isfinite(losses[-1]):
                raise InputRefusedError("the loss of fine-tuning is not finite", remedy="Check the samples for NaN")
    write_back(model, {name: tensor.detach() for name, tensor in tensors.items() if tensor.requires_grad})
    return losses


def _fixed(model: ir.Model) -> set[str]:
    """Name the means and variances of normalisations, which are not trained by gradients."""
    nodes = (node for node in model.graph if node.op_type == "BatchNormalization")
    return {str(value.name) for node in nodes for value in node.inputs[3:5] if value is not None}


def steps_of(split: Split, epochs: int) -> int:
    """Count the gradient steps."""
    return epochs * math.ceil(len(split) / BATCH)


def _taken(arrays: Arrays, batch: Tensor) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array[batch.numpy()])) for name, array in arrays.items()}


def _classification(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Return the cross entropy; outputs that sum to one are probabilities already (classes along axis 1)."""
    losses = []
    for name, label in labels.items():
        output = outputs[name]
        sums = output.detach().sum(1)
        probable = bool((output.detach() >= 0).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-3))
        likely = output.clamp_min(1e-12).log() if probable else output.log_softmax(1)
        losses.append(nn.functional.nll_loss(likely, label.long()))
    return torch.stack(losses).sum()


def _distillation(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Return the mean square of what is off, in units of each output's variance."""
    losses = [
        (outputs[name] - goal).square().mean() / goal.var().clamp_min(1e-12)
        for name, goal in wanted.items()
        if goal.is_floating_point()
    ]
    return torch.stack(losses).sum()


@contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """Let torch use a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
