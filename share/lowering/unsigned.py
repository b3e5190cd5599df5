"""Arithmetic on the unsigned types that torch stores but hardly computes with, by int64 of the same bits."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})

_TOP_BIT = -(1 << 63)
_REST = (1 << 63) - 1

Binary = Callable[[Tensor, Tensor], Tensor]


def signed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function compute with int64 where torch lacks the unsigned type; right for what wraps around."""

    @functools.wraps(function)
    def compute(*inputs: Tensor) -> Tensor:
        dtype = inputs[0].dtype
        if dtype not in UNSIGNED:
            return function(*inputs)
        result = function(*(x.to(torch.int64) for x in inputs))
        return result.to(dtype) if result.dtype is torch.int64 else result

    return compute


def ordered(function: Binary) -> Binary:
    """Let a function compare uint64 as int64 with the top bit flipped, which keeps the order."""

    @functools.wraps(function)
    def compute(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype is not torch.uint64:
            return signed(function)(a, b)
        result = function(a.view(torch.int64) ^ _TOP_BIT, b.view(torch.int64) ^ _TOP_BIT)
        return (result ^ _TOP_BIT).view(torch.uint64) if result.dtype is torch.int64 else result

    return compute


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Divide integers of any type, cut towards zero."""
    if a.dtype is not torch.uint64:
        return signed(_truncated)(a, b)
    dividend, divisor = a.view(torch.int64), b.view(torch.int64)
    # Halve, divide, double; what is lost is at most one (Hacker's Delight, section 9-3).
    quotient = _truncated((dividend >> 1) & _REST, divisor) << 1
    rest = dividend - quotient * divisor
    quotient = quotient + ((rest ^ _TOP_BIT) >= (divisor ^ _TOP_BIT))
    above = (dividend ^ _TOP_BIT) >= (divisor ^ _TOP_BIT)
    return torch.where(divisor < 0, above.to(torch.int64), quotient).view(torch.uint64)


def modulo(a: Tensor, b: Tensor) -> Tensor:
    """Return the remainder of integers of any type, with the sign of the divisor."""
    if a.dtype is not torch.uint64:
        return signed(torch.remainder)(a, b)
    return signed(torch.sub)(a, signed(torch.mul)(divide(a, b), b))


def shift_right(x: Tensor, amount: Tensor) -> Tensor:
    """Shift bits to the right; zeros come in."""
    if x.dtype is not torch.uint64:
        return signed(torch.bitwise_right_shift)(x, amount)
    bits, count = x.view(torch.int64), amount.view(torch.int64)
    moved = ((bits >> 1) & _REST) >> (count - 1).clamp(min=0)
    return torch.where(count == 0, bits, moved).view(torch.uint64)


def _truncated(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="trunc")
