"""Reductions, softmax and running sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sartor.share.lowering.operators.movement import integers
from sartor.share.lowering.registry import Op, Place, rule

Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _extreme(greatest: bool) -> Reduction:
    def reduce(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
        if x.dtype is torch.bool:
            return (torch.any if greatest else torch.all)(x, dim=axes, keepdim=keep)
        if not x.numel():
            shape = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
            return torch.full(shape, _identity(x.dtype, greatest), dtype=x.dtype, device=x.device)
        return (torch.amax if greatest else torch.amin)(x, dim=axes, keepdim=keep)

    return reduce


def _identity(dtype: torch.dtype, greatest: bool) -> float:
    if dtype.is_floating_point:
        return -math.inf if greatest else math.inf
    return torch.iinfo(dtype).min if greatest else torch.iinfo(dtype).max


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(dim=axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(dim=axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(dim=axis, keepdim=keep, dtype=x.dtype)
    return x


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    return torch.logsumexp(wide, dim=axes, keepdim=keep).to(x.dtype)


def _norm(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    return torch.sqrt(_sum(wide * wide, axes, keep)).to(x.dtype)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _extreme(True),
    "ReduceMin": _extreme(False),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": _norm,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
}


@rule(*_REDUCTIONS, host=(1,), place=Place.FOLLOWS)
def reduce(op: Op, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Reduce over axes: all of them where none are given, none where `noop_with_empty_axes` says so."""
    chosen = integers(op, "axes", axes)
    if not chosen:
        # Over no axes squares and logarithms are still taken.
        chosen = [] if op.attr("noop_with_empty_axes", 0) else list(range(x.dim()))
    function = _REDUCTIONS[op.node.op_type]
    keep = bool(op.attr("keepdims", 1))
    if chosen or not x.dim():
        return function(x, tuple(axis % x.dim() for axis in chosen), keep) if x.dim() else _of_scalar(function, x)
    return _of_scalar(function, x.unsqueeze(-1)).reshape(x.shape)


def _of_scalar(function: Reduction, x: Tensor) -> Tensor:
    """Reduce over a last axis of size 1."""
    x = x.reshape(*x.shape, 1) if not x.dim() else x
    return function(x, (x.dim() - 1,), False)


def _coerced(function: Callable[[Tensor, int], Tensor], op: Op, x: Tensor) -> Tensor:
    """Apply along an axis; before opset 13 along all axes from it on."""
    if op.version >= 13:
        return function(x, op.attr("axis", -1))
    axis = op.attr("axis", 1) % max(x.dim(), 1)
    matrix = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return function(matrix, -1).reshape(x.shape)


@rule("Softmax")
def softmax(op: Op, x: Tensor) -> Tensor:
    """Return exponentials over their sum."""
    return _coerced(torch.softmax, op, x)


@rule("LogSoftmax")
def log_softmax(op: Op, x: Tensor) -> Tensor:
    """Return the logarithm of the softmax."""
    return _coerced(torch.log_softmax, op, x)


@rule("CumSum", "CumProd", host=(1,), place=Place.FOLLOWS)
def cumulate(op: Op, x: Tensor, axis: Tensor) -> Tensor:
    """Add or multiply up along an axis, from its end if `reverse`, without the element itself if `exclusive`."""
    dim = int(axis.reshape(()).item())
    first = 0 if op.node.op_type == "CumSum" else 1
    x = x.flip(dim) if op.attr("reverse", 0) else x
    if op.attr("exclusive", 0) and x.shape[dim]:
        head = torch.full_like(x.narrow(dim, 0, 1), first)
        x = torch.cat([head, x.narrow(dim, 0, x.shape[dim] - 1)], dim)
    total = functools.partial(torch.cumprod if first else torch.cumsum, dim=dim, dtype=x.dtype)(x)
    return total.flip(dim) if op.attr("reverse", 0) else total
