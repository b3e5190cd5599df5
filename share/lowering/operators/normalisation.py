"""Normalisations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.operators.indexing import padded
from sartor.share.lowering.registry import NotLoweredError, Op, rule


def _channels(x: Tensor, values_C: Tensor) -> Tensor:
    """Return one number a channel in a shape that broadcasts over (B, C, ...)."""
    return values_C.reshape([1, -1] + [1] * (x.dim() - 2))


@rule("BatchNormalization")
def batch_norm(
    op: Op, x: Tensor, scale_C: Tensor, bias_C: Tensor, mean_C: Tensor, variance_C: Tensor
) -> Tensor | tuple[Tensor, ...]:
    """Normalise channels by running statistics, or by those of the batch in training mode."""
    epsilon = op.attr("epsilon", 1e-5)
    if not (op.attr("training_mode", 0) or op.wants(1)):
        if x.dtype is scale_C.dtype is mean_C.dtype:
            return F.batch_norm(x, mean_C, variance_C, scale_C, bias_C, False, 0.0, epsilon)
        factor = scale_C / torch.sqrt(variance_C + epsilon)
        return (x * _channels(x, factor) + _channels(x, bias_C - mean_C * factor)).to(x.dtype)
    if op.version < 14:
        raise NotLoweredError("training of an opset before 14")
    momentum = op.attr("momentum", 0.9)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    batch_mean, batch_variance = x.mean(axes), x.var(axes, correction=0)
    factor = scale_C / torch.sqrt(batch_variance + epsilon)
    result = x * _channels(x, factor) + _channels(x, bias_C - batch_mean * factor)
    running = [
        old * momentum + new * (1 - momentum) for old, new in ((mean_C, batch_mean), (variance_C, batch_variance))
    ]
    return result.to(x.dtype), *running


@rule("InstanceNormalization")
def instance_norm(op: Op, x: Tensor, scale_C: Tensor, bias_C: Tensor) -> Tensor:
    """Normalise each channel of each sample."""
    axes = tuple(range(2, x.dim()))
    normal = _standard(x, axes, op.attr("epsilon", 1e-5))
    return normal * _channels(x, scale_C) + _channels(x, bias_C)


def _standard(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    """Return x with mean 0 and variance 1 over axes."""
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)


@rule("GroupNormalization")
def group_norm(op: Op, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise groups of channels; scale and bias are one a group before opset 21."""
    groups = op.attr("num_groups")
    if op.version < 21:
        scale, bias = (values.repeat_interleave(x.shape[1] // groups) for values in (scale, bias))
    return F.group_norm(x, groups, scale, bias, op.attr("epsilon", 1e-5))


@rule("LayerNormalization")
def layer_norm(op: Op, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
    """Normalise the axes from `axis` on in float32 or wider; return the mean and 1 / deviation where asked for."""
    axis = op.attr("axis", -1) % x.dim()
    epsilon = op.attr("epsilon", 1e-5)
    shape = x.shape[axis:]
    if not op.wants(1) and not op.wants(2) and scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    axes = tuple(range(axis, x.dim()))
    wide = x.to(torch.promote_types(x.dtype, torch.float32)) if op.attr("stash_type", 1) == 1 else x
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    result = (centred * inverse).to(x.dtype) * scale
    return result if bias is None else result + bias, mean, inverse


@rule("SimplifiedLayerNormalization", "RMSNormalization")
def rms_norm(op: Op, x: Tensor, scale: Tensor) -> Tensor:
    """Divide by the root of the mean square over the axes from `axis` on, in float32 or wider."""
    axes = tuple(range(op.attr("axis", -1) % x.dim(), x.dim()))
    wide = x.to(torch.promote_types(x.dtype, torch.float32)) if op.attr("stash_type", 1) == 1 else x
    inverse = torch.rsqrt((wide * wide).mean(axes, keepdim=True) + op.attr("epsilon", 1e-5))
    return (wide * inverse).to(x.dtype) * scale


@rule("LpNormalization")
def lp_normalization(op: Op, x: Tensor) -> Tensor:
    """Divide by the L1 or L2 norm along an axis; 0 where the norm is 0."""
    axis = op.attr("axis", -1)
    size = x.abs().sum(axis, keepdim=True) if op.attr("p", 2) == 1 else (x * x).sum(axis, keepdim=True).sqrt()
    return torch.where(size == 0, torch.zeros_like(x), x / size)


@rule("MeanVarianceNormalization")
def mean_variance(op: Op, x: Tensor) -> Tensor:
    """Subtract the mean and divide by the deviation over axes."""
    axes = tuple(op.attr("axes") or (0, 2, 3))
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred * centred).mean(axes, keepdim=True).sqrt() + 1e-9)


@rule("LRN")
def local_response(op: Op, x: Tensor) -> Tensor:
    """Divide by a power of the squares of neighbouring channels (Krizhevsky et al. 2012, section 3.3)."""
    size = op.attr("size")
    before = (size - 1) // 2
    squares = padded((x * x).movedim(1, -1), [before, size - 1 - before])
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    factor = op.attr("bias", 1.0) + op.attr("alpha", 1e-4) / size * total
    return x / torch.pow(factor, op.attr("beta", 0.75))
