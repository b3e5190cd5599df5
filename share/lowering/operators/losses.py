"""Losses of classification."""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.share.lowering.registry import Op, rule


@rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood(op: Op, log_BC: Tensor, target: Tensor, weight_C: Tensor | None = None) -> Tensor:
    """Return minus the log-probability of the targets (B, ...) among classes (B, C, ...), reduced as asked for."""
    ignored = op.attr("ignore_index")
    index = target.to(torch.int64)
    counted = torch.ones_like(index, dtype=torch.bool) if ignored is None else index != ignored
    index = torch.where(counted, index, 0)
    weight = counted.to(log_BC.dtype) if weight_C is None else torch.where(counted, weight_C[index], 0)
    loss = -log_BC.gather(1, index.unsqueeze(1)).squeeze(1) * weight
    reduction = op.attr("reduction", "mean")
    if reduction == "mean":
        return loss.sum() / weight.sum()
    return loss.sum() if reduction == "sum" else loss


@rule("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    op: Op, scores_BC: Tensor, target: Tensor, weight_C: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss of scores that are no logarithms yet, and the logarithms."""
    logarithms = torch.log_softmax(scores_BC, 1)
    return negative_log_likelihood(op, logarithms, target, weight_C), logarithms
