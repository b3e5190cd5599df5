"""Normalisations and softmax, taken apart into reductions and element-wise operators."""

from __future__ import annotations

import onnx_ir as ir

from sartor.tools.fuse.axes import NotEmittableError, Size
from sartor.tools.fuse.program import Value
from sartor.tools.fuse.rules.elementwise import like, reciprocal
from sartor.tools.fuse.rules.registry import Kind, Node, rule
from sartor.tools.fuse.tracer import apply, cast, mean, normalise, reduce, reindex, reshape, shape_of, where

D = ir.DataType


def softmax(x: Value, axes: list[int]) -> Value:
    """Return exp(x - max) / sum(exp(x - max)) over some axes."""
    shifted = apply("sub", x, reduce("peak", x, axes, True))
    power = apply("exp", shifted)
    return apply("mul", power, reciprocal(reduce("sum", power, axes, True)))


def log_softmax(x: Value, axes: list[int]) -> Value:
    """Return x - max - log(sum(exp(x - max))) over some axes."""
    shifted = apply("sub", x, reduce("peak", x, axes, True))
    return apply("sub", shifted, apply("log", reduce("sum", apply("exp", shifted), axes, True)))


def standardise(x: Value, axes: list[int], epsilon: float) -> tuple[Value, Value, Value]:
    """Return x with mean 0 and variance 1 over some axes, the mean, and the inverse deviation (two passes)."""
    average = mean(x, axes, True)
    centred = apply("sub", x, average)
    variance = mean(apply("mul", centred, centred), axes, True)
    inverse = reciprocal(apply("sqrt", apply("add", variance, like(epsilon, x))))
    return apply("mul", centred, inverse), average, inverse


def channelwise(value: Value, rank: int) -> Value:
    """Lay a vector of channels along axis 1 of a tensor of `rank` axes."""
    return reindex(value, (value.axes[0], *((),) * (rank - 2)))


@rule("Softmax", "LogSoftmax", kind=Kind.REDUCE)
def _softmax(node: Node) -> Value:
    x = node.arg(0)
    rank = len(x.axes)
    axis = normalise(node.attr("axis", -1 if node.opset >= 13 else 1), rank)
    # Before opset 13 the input was coerced to two dimensions at the axis.
    axes = [axis] if node.opset >= 13 else list(range(axis, rank))
    return softmax(x, axes) if node.node.op_type == "Softmax" else log_softmax(x, axes)


@rule("LayerNormalization", kind=Kind.REDUCE)
def layer_norm(node: Node) -> list[Value]:
    """Normalise over the last axes in float32, scale and shift; further outputs are the mean and inverse deviation."""
    x = node.arg(0)
    axes = list(range(normalise(node.attr("axis", -1), len(x.axes)), len(x.axes)))
    wide = cast(x, D.DOUBLE if x.dtype == D.DOUBLE else D.FLOAT)
    normal, average, inverse = standardise(wide, axes, node.attr("epsilon", 1e-5))
    y = apply("mul", cast(normal, x.dtype), node.arg(1))
    if node.has(2):
        y = apply("add", y, node.arg(2))
    return [y, average, inverse]


@rule("RMSNormalization", kind=Kind.REDUCE)
def rms_norm(node: Node) -> Value:
    """Divide by the root of the mean square over the last axes in float32, and scale."""
    x = node.arg(0)
    axes = list(range(normalise(node.attr("axis", -1), len(x.axes)), len(x.axes)))
    wide = cast(x, D.DOUBLE if x.dtype == D.DOUBLE else D.FLOAT)
    square = mean(apply("mul", wide, wide), axes, True)
    inverse = reciprocal(apply("sqrt", apply("add", square, like(node.attr("epsilon", 1e-5), wide))))
    return apply("mul", cast(apply("mul", wide, inverse), x.dtype), node.arg(1))


@rule("BatchNormalization", kind=Kind.LIGHT)
def batch_norm(node: Node) -> Value:
    """Scale and shift by the stored statistics (inference only)."""
    if node.attr("training_mode", 0) or len([out for out in node.node.outputs if out.name]) > 1:
        raise NotEmittableError("a batch normalisation in training mode")
    x = node.arg(0)
    scale, shift, average, variance = (channelwise(node.arg(i), len(x.axes)) for i in range(1, 5))
    inverse = reciprocal(apply("sqrt", apply("add", variance, like(node.attr("epsilon", 1e-5), variance))))
    return apply("add", apply("mul", apply("sub", x, average), apply("mul", inverse, scale)), shift)


@rule("InstanceNormalization", kind=Kind.REDUCE)
def instance_norm(node: Node) -> Value:
    """Normalise each channel of each sample over its positions."""
    x = node.arg(0)
    normal, _, _ = standardise(x, list(range(2, len(x.axes))), node.attr("epsilon", 1e-5))
    scale, shift = (channelwise(node.arg(i), len(x.axes)) for i in (1, 2))
    return apply("add", apply("mul", normal, scale), shift)


@rule("GroupNormalization", kind=Kind.REDUCE)
def group_norm(node: Node) -> Value:
    """Normalise groups of channels over their positions; scale and shift are per channel since opset 21."""
    if node.opset < 21:
        raise NotEmittableError("a group normalisation with parameters per group")
    x = node.arg(0)
    shape, groups = shape_of(x), Size(node.attr("num_groups", 1))
    width = shape[1].over(groups)
    if width is None:
        raise NotEmittableError("channels do not divide into groups")
    split = reshape(x, (shape[0], groups, width, *shape[2:]))
    wide = cast(split, D.DOUBLE if x.dtype == D.DOUBLE else D.FLOAT)
    normal, _, _ = standardise(wide, list(range(2, len(split.axes))), node.attr("epsilon", 1e-5))
    whole = reshape(cast(normal, x.dtype), shape)
    scale, shift = (channelwise(node.arg(i), len(x.axes)) for i in (1, 2))
    return apply("add", apply("mul", whole, scale), shift)


@rule("MeanVarianceNormalization", kind=Kind.REDUCE)
def mean_variance(node: Node) -> Value:
    """Standardise over the given axes; ONNX adds 1e-9 to the deviation."""
    x = node.arg(0)
    axes = [normalise(axis, len(x.axes)) for axis in node.attr("axes", [0, 2, 3])]
    average = mean(x, axes, True)
    centred = apply("sub", x, average)
    deviation = apply("sqrt", mean(apply("mul", centred, centred), axes, True))
    return apply("div", centred, apply("add", deviation, like(1e-9, x)))


@rule("LpNormalization", kind=Kind.REDUCE)
def lp_norm(node: Node) -> Value:
    """Divide by the L1 or L2 norm along an axis; a zero norm gives zero."""
    x = node.arg(0)
    axes = [normalise(node.attr("axis", -1), len(x.axes))]
    if node.attr("p", 2) == 1:
        norm = reduce("sum", apply("abs", x), axes, True)
    else:
        norm = apply("sqrt", reduce("sum", apply("mul", x, x), axes, True))
    return where(apply("equal", norm, like(0, x)), like(0, x), apply("div", x, norm))
