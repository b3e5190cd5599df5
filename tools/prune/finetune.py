"""Fine-tuning of a pruned model: gradient steps on labels, or towards what the original gives (distillation).

The ONNX model is lowered to torch, its floating initialisers are the parameters, and what they become is written back
by name. Normalisations run as in inference: most exporters have folded them into weights anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from sartor.share.data import Split
from sartor.share.errors import InputRefusedError
from sartor.share.lowering import lower, write_back
from sartor.share.training import Recipe, cross_entropy, distillation, train
from sartor.tools.prune.evaluate import Arrays

RATE, MOMENTUM, DECAY = 0.03, 0.9, 1e-4
"""Of stochastic gradient descent."""

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
    loss = distillation if wanted else cross_entropy(1)
    recipe = Recipe(epochs, seed, threads, loss, _optimizer)
    losses = train(lowered, parameters, split, goals, recipe, lambda _: step(1))
    write_back(model, {name: tensor.detach() for name, tensor in tensors.items() if tensor.requires_grad})
    return losses


def _optimizer(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)


def _fixed(model: ir.Model) -> set[str]:
    """Name the means and variances of normalisations, which are not trained by gradients."""
    nodes = (node for node in model.graph if node.op_type == "BatchNormalization")
    return {str(value.name) for node in nodes for value in node.inputs[3:5] if value is not None}
