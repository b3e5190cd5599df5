"""Conversion between element types as onnxruntime does it."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from sartor.share.lowering.dtypes import FLOAT8, NARROW, torch_type
from sartor.share.lowering.registry import NotLoweredError

D = ir.DataType
_E8M0_BIAS = 127


def cast(x: Tensor, dtype: ir.DataType, saturate: bool = True, rounding: str = "up") -> Tensor:
    """Return a tensor converted to an ONNX type; raises NotLoweredError for strings."""
    if dtype is D.STRING:
        raise NotLoweredError("conversion to strings")
    if dtype is D.FLOAT4E2M1:
        return to_float4(x.to(torch.float32))
    if dtype in NARROW:
        return to_narrow(x, dtype)
    if dtype is D.FLOAT8E8M0:
        return to_float8e8m0(x.to(torch.float32), saturate, rounding)
    target = torch_type(dtype)
    if target in FLOAT8:
        return to_float8(x, target, saturate)
    if target is torch.bool and x.dtype in FLOAT8:
        return x.float() != 0
    return x.to(target)


def to_float8(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """Round to 8 bits; what does not fit becomes the greatest number, or infinity or NaN unless `saturate`."""
    limit = torch.finfo(dtype).max
    wide = x.to(torch.float32)
    if saturate:
        return wide.clamp(-limit, limit).to(dtype)
    # torch clamps to the greatest e4m3fn number, ONNX wants NaN from the middle to the next one on.
    if dtype is torch.float8_e4m3fn:
        wide = torch.where(wide.abs() > limit * 29 / 28, torch.nan, wide)
    return wide.to(dtype)


def to_float8e8m0(x: Tensor, saturate: bool, rounding: str) -> Tensor:
    """Return the powers of two at, above or next to the magnitudes of float32 numbers."""
    bits = x.abs().view(torch.int32)
    exponent, fraction = bits >> 23, bits & 0x7FFFFF
    if rounding == "up":
        exponent = exponent + (fraction > 0)
    elif rounding == "nearest":
        exponent = exponent + (fraction >= 1 << 22)
    least, greatest = (0, 254) if saturate else (0, 255)
    exponent = exponent.clamp(least, greatest)
    exponent = torch.where(x.isnan(), 255, exponent)
    return exponent.to(torch.uint8).view(torch.float8_e8m0fnu)


def to_float4(x: Tensor) -> Tensor:
    """Round float32 numbers to 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to the even code; NaN becomes the greatest."""
    size = x.abs()
    code = sum((over.to(torch.int64) for over in _crossed(size)), torch.zeros_like(x, dtype=torch.int64))
    half = torch.where(code < 4, code * 1.0, torch.where(code == 7, 12.0, code * 2.0 - 4.0))
    return torch.copysign(half / 2, x)


def _crossed(size: Tensor) -> list[Tensor]:
    """Return which of the seven borders between neighbours the magnitudes have crossed."""
    down, up = (0.25, 1.25, 2.5, 5.0), (0.75, 1.75, 3.5)
    return [size > border for border in down] + [size >= border for border in up]


def to_narrow(x: Tensor, dtype: ir.DataType) -> Tensor:
    """Convert to integers of fewer than 8 bits: real numbers are rounded and clamped, integers lose their high bits."""
    low, high = NARROW[dtype]
    if x.is_floating_point():
        return x.float().round().clamp(low, high).to(torch_type(dtype))
    size = high - low + 1
    return ((x.to(torch.int64) - low) % size + low).to(torch_type(dtype))
