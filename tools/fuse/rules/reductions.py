"""Reductions over any axes."""

from __future__ import annotations

import math

import onnx_ir as ir

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.program import Value
from sartor.tools.fuse.rules.elementwise import like
from sartor.tools.fuse.rules.registry import Kind, Node, rule
from sartor.tools.fuse.tracer import apply, cast, const, mean, normalise, reduce, where

D = ir.DataType


def _axes(node: Node, rank: int) -> list[int]:
    listed = node.integers(1, "axes")
    if listed:
        return sorted({normalise(axis, rank) for axis in listed})
    return [] if node.attr("noop_with_empty_axes", 0) else list(range(rank))


def _log_sum_exp(x: Value, axes: list[int], keepdims: bool) -> Value:
    """Subtract the maximum first; an infinite maximum is not subtracted (inf - inf would be NaN)."""
    peak = reduce("max", x, axes, True)
    finite = apply("less", apply("abs", peak), like(math.inf, x))
    shift = where(finite, peak, like(0, x))
    total = reduce("sum", apply("exp", apply("sub", x, shift)), axes, keepdims)
    return apply("add", apply("log", total), reduce("max", shift, axes, keepdims))


def _square(x: Value) -> Value:
    return apply("mul", x, x)


@rule(
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp", kind=Kind.REDUCE, parameters=(1,),
)  # fmt: skip
def reduction(node: Node) -> Value:
    """Translate any Reduce* operator."""
    x, keep = node.arg(0), bool(node.attr("keepdims", 1))
    axes = _axes(node, len(x.axes))
    match node.node.op_type:
        case "ReduceSum":
            return reduce("sum", x, axes, keep)
        case "ReduceMean":
            return mean(x, axes, keep)
        case "ReduceMax" | "ReduceMin" if x.dtype == D.BOOL:
            op = node.node.op_type[6:].lower()
            return apply("not", apply("equal", reduce(op, cast(x, D.UINT8), axes, keep), const(0, D.UINT8)))
        case "ReduceMax":
            return reduce("max", x, axes, keep)
        case "ReduceMin":
            return reduce("min", x, axes, keep)
        case "ReduceProd":
            return reduce("prod", x, axes, keep)
        case "ReduceL1":
            return reduce("sum", apply("abs", x), axes, keep)
        case "ReduceL2":
            return apply("sqrt", reduce("sum", _square(x), axes, keep))
        case "ReduceSumSquare":
            return reduce("sum", _square(x), axes, keep)
        case "ReduceLogSum":
            return apply("log", reduce("sum", x, axes, keep))
    if x.dtype not in ops.FLOATING:
        raise NotEmittableError("a logarithm of integers")
    return _log_sum_exp(x, axes, keep)


@rule("GlobalAveragePool", "GlobalMaxPool", kind=Kind.REDUCE)
def global_pool(node: Node) -> Value:
    """Reduce over all axes behind batch and channel."""
    x = node.arg(0)
    axes = range(2, len(x.axes))
    return mean(x, axes, True) if node.node.op_type == "GlobalAveragePool" else reduce("max", x, axes, True)
