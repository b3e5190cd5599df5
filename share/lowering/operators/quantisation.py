"""Quantised operators: dequantise, compute, quantise."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from sartor.share.lowering.casting import cast
from sartor.share.lowering.dtypes import FLOAT8, NARROW, onnx_type, torch_type
from sartor.share.lowering.operators.convolution import convolve
from sartor.share.lowering.operators.linear import centred
from sartor.share.lowering.registry import Op, rule

D = ir.DataType


def spread(parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Return scales or zero points in a shape that broadcasts: one for all, one a slice, or one a block."""
    if parameter.numel() == 1 and parameter.dim() <= 1:
        return parameter.reshape(())
    if parameter.dim() == 1 and not block:
        shape = [1] * x.dim()
        shape[axis] = -1
        return parameter.reshape(shape)
    return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])


@rule("QuantizeLinear")
def quantize(op: Op, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Divide by the scale, round half to even, add the zero point, and clamp."""
    dtype = _quantised_type(op, zero)
    axis, block = op.attr("axis", 1), op.attr("block_size", 0)
    precision = op.attr("precision", 0)
    wide = torch_type(precision) if precision else torch.promote_types(scale.dtype, x.dtype)
    wide = wide if wide.is_floating_point else torch.float32
    ratio = x.to(wide) / spread(scale, x, axis, block).to(wide)
    if dtype is D.FLOAT4E2M1 or torch_type(dtype) in FLOAT8:
        return cast(ratio, dtype, bool(op.attr("saturate", 1)))
    shifted = ratio.float().round()
    if zero is not None:
        shifted = shifted + spread(zero, x, axis, block).float()
    low, high = NARROW.get(dtype) or _limits(torch_type(dtype))
    return shifted.clamp(low, high).to(torch_type(dtype))


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return limits.min, limits.max


def _quantised_type(op: Op, zero: Tensor | None) -> D:
    """Return the result's type: that of the zero point, or the one that an attribute names, or uint8."""
    if zero is None:
        return D(op.attr("output_dtype", 0) or D.UINT8)
    return op.input_type(2) or onnx_type(zero)


@rule("DequantizeLinear")
def dequantize(op: Op, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Subtract the zero point and multiply by the scale."""
    axis, block = op.attr("axis", 1), op.attr("block_size", 0)
    dtype = torch_type(op.attr("output_dtype", 0) or D.FLOAT) if op.attr("output_dtype", 0) else scale.dtype
    wide = x.to(torch.float32)
    if zero is not None and zero.dtype not in FLOAT8:
        wide = wide - spread(zero, x, axis, block).to(torch.float32)
    return (wide * spread(scale, x, axis, block).to(torch.float32)).to(dtype)


@rule("DynamicQuantizeLinear")
def quantize_dynamically(_op: Op, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise to uint8 by the least and greatest elements; return the scale and the zero point too."""
    greatest, least = x.amax().clamp(min=0), x.amin().clamp(max=0)
    scale = (greatest - least) / 255
    scale = torch.where(scale == 0, torch.full_like(scale, 1 / 255), scale)
    zero = (-least / scale).clamp(0, 255).round()
    values = ((x / scale).round() + zero).clamp(0, 255)
    return values.to(torch.uint8), scale, zero.to(torch.uint8)


def _requantize(total: Tensor, factor: Tensor, zero: Tensor) -> Tensor:
    """Scale exact sums in float32, as onnxruntime does, and round."""
    low, high = _limits(zero.dtype)
    return ((total.float() * factor).round() + zero.float()).clamp(low, high).to(zero.dtype)


@rule("QLinearMatMul")
def quantized_matmul(
    _op: Op,
    a: Tensor,
    scale_a: Tensor,
    zero_a: Tensor,
    b: Tensor,
    scale_b: Tensor,
    zero_b: Tensor,
    scale_y: Tensor,
    zero_y: Tensor,
) -> Tensor:
    """Multiply quantised matrices; float64 holds the sums of products exactly."""
    total = centred(a, zero_a, rows=True) @ centred(b, zero_b)
    return _requantize(total, scale_a.float() * scale_b.float() / scale_y.float(), zero_y)


@rule("QLinearConv")
def quantized_convolution(
    op: Op,
    x: Tensor,
    scale_x: Tensor,
    zero_x: Tensor,
    weight: Tensor,
    scale_w: Tensor,
    zero_w: Tensor,
    scale_y: Tensor,
    zero_y: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve quantised numbers; the weights' scale may be one a channel."""
    shape = [-1] + [1] * (weight.dim() - 1)
    kernel = weight.double() - (zero_w.reshape(shape) if zero_w.numel() > 1 else zero_w).double()
    total = convolve(op, centred(x, zero_x), kernel, None if bias is None else bias.double())
    scale = scale_w.reshape([1, -1] + [1] * (x.dim() - 2)) if scale_w.numel() > 1 else scale_w
    return _requantize(total, scale_x * scale / scale_y, zero_y)
