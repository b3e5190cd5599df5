"""Element types: which torch type carries which ONNX type, and the way between numpy and torch.

torch lacks the types of fewer than 8 bits. Their numbers are carried, unpacked, by the narrowest type that holds them:
signed integers by int8, unsigned ones by uint8, FLOAT4E2M1 by float32. What a value is in ONNX is then known only from
the model, so `to_numpy` takes the declared type.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

D = ir.DataType

TORCH = MappingProxyType(
    {
        D.FLOAT: torch.float32, D.DOUBLE: torch.float64, D.FLOAT16: torch.float16, D.BFLOAT16: torch.bfloat16,
        D.INT8: torch.int8, D.INT16: torch.int16, D.INT32: torch.int32, D.INT64: torch.int64,
        D.UINT8: torch.uint8, D.UINT16: torch.uint16, D.UINT32: torch.uint32, D.UINT64: torch.uint64,
        D.BOOL: torch.bool, D.COMPLEX64: torch.complex64, D.COMPLEX128: torch.complex128,
        D.FLOAT8E4M3FN: torch.float8_e4m3fn, D.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
        D.FLOAT8E5M2: torch.float8_e5m2, D.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz, D.FLOAT8E8M0: torch.float8_e8m0fnu,
        D.INT4: torch.int8, D.UINT4: torch.uint8, D.INT2: torch.int8, D.UINT2: torch.uint8, D.FLOAT4E2M1: torch.float32,
    }
)  # fmt: skip
"""The torch type that carries each ONNX type; strings have none."""

NARROW = MappingProxyType({D.INT4: (-8, 7), D.UINT4: (0, 15), D.INT2: (-2, 1), D.UINT2: (0, 3)})
"""Least and greatest number of the integers that torch lacks."""

FLOAT8 = frozenset({torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz})
"""The types of 8 bits that torch can only convert."""

_BITS = MappingProxyType(
    {
        ml_dtypes.bfloat16: (np.uint16, torch.uint16, torch.bfloat16),
        ml_dtypes.float8_e4m3fn: (np.uint8, torch.uint8, torch.float8_e4m3fn),
        ml_dtypes.float8_e4m3fnuz: (np.uint8, torch.uint8, torch.float8_e4m3fnuz),
        ml_dtypes.float8_e5m2: (np.uint8, torch.uint8, torch.float8_e5m2),
        ml_dtypes.float8_e5m2fnuz: (np.uint8, torch.uint8, torch.float8_e5m2fnuz),
        ml_dtypes.float8_e8m0fnu: (np.uint8, torch.uint8, torch.float8_e8m0fnu),
    }
)
_CARRIED = MappingProxyType(
    {
        ml_dtypes.int4: np.int8, ml_dtypes.uint4: np.uint8, ml_dtypes.int2: np.int8, ml_dtypes.uint2: np.uint8,
        ml_dtypes.float4_e2m1fn: np.float32,
    }
)  # fmt: skip
_OF_TORCH = MappingProxyType({bits[2]: scalar for scalar, bits in _BITS.items()})


def torch_type(dtype: ir.DataType | int) -> torch.dtype:
    """Return the torch type that carries an ONNX type; raises KeyError for strings."""
    return TORCH[ir.DataType(dtype)]


def onnx_type(tensor: torch.Tensor) -> ir.DataType:
    """Return the ONNX type of a tensor whose type the model does not declare: never one of fewer than 8 bits."""
    return next(dtype for dtype, carrier in TORCH.items() if carrier is tensor.dtype)


def from_numpy(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return an array of any ONNX type but strings as a tensor of its own memory."""
    if carrier := _CARRIED.get(array.dtype.type):
        array = array.astype(carrier)
    if bits := _BITS.get(array.dtype.type):
        words, _, dtype = bits
        return torch.from_numpy(np.array(array, order="C").view(words)).view(dtype)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def to_numpy(tensor: torch.Tensor, dtype: ir.DataType | None = None) -> npt.NDArray[Any]:
    """Return a tensor as an array; `dtype` tells the types apart that one torch type carries."""
    tensor = tensor.detach().cpu().contiguous()
    if scalar := _OF_TORCH.get(tensor.dtype):
        words = _BITS[scalar][1]
        return tensor.view(words).numpy().view(scalar)
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    array: npt.NDArray[Any] = tensor.numpy()
    narrow = dtype is not None and (dtype in NARROW or dtype is D.FLOAT4E2M1)
    return array.astype(dtype.numpy()) if dtype is not None and narrow else array
