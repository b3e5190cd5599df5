"""Functions that generated Triton kernels call: roundings, integer arithmetic as in ONNX, rare functions in float64.

Functions of float32 that are neither here nor polynomials of `share/kernels/vecmath.py` are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import triton
import triton.language as tl

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Mark a function as Triton's."""
    marked: Function = triton.jit(function)
    return marked


@jit
def fold_sum(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Add two parts of a sum."""
    return x + y


@jit
def fold_prod(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Multiply two parts of a product."""
    return x * y


@jit
def fold_max(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Give the larger, or NaN where either is NaN."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@jit
def fold_peak(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Give the larger; a NaN loses against a number."""
    return tl.maximum(x, y)


@jit
def fold_min(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Give the smaller, or NaN where either is NaN."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@jit
def barrier(gate: tl.tensor, number: tl.tensor, programs: tl.tensor) -> tl.tensor:
    """Wait until all programs of the grid are here; `gate` points to a zero for each barrier of the launch."""
    tl.debug_barrier()
    tl.atomic_add(gate + number, 1, sem="acq_rel", scope="gpu")
    while tl.atomic_add(gate + number, 0, sem="acquire", scope="gpu") < programs:
        pass
    tl.debug_barrier()


@jit
def div_f32(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Divide, rounded as IEEE has it."""
    return tl.div_rn(x, y)


@jit
def div_f64(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Divide."""
    return x / y


@jit
def sqrt_f32(x: tl.tensor) -> tl.tensor:
    """Take the square root, rounded as IEEE has it."""
    return tl.sqrt_rn(x)


@jit
def sqrt_f64(x: tl.tensor) -> tl.tensor:
    """Take the square root."""
    return tl.sqrt(x)


@jit
def rint_f32(x: tl.tensor) -> tl.tensor:
    """Round to the nearest integer, half to even."""
    size = (tl.abs(x) + 8388608.0) - 8388608.0
    near = tl.where(x < 0, -size, size)
    return tl.where((tl.abs(x) < 8388608.0) & (near != x), near, x)


@jit
def rint_f64(x: tl.tensor) -> tl.tensor:
    """Round to the nearest integer, half to even."""
    size = (tl.abs(x) + 4503599627370496.0) - 4503599627370496.0
    near = tl.where(x < 0, -size, size)
    return tl.where((tl.abs(x) < 4503599627370496.0) & (near != x), near, x)


@jit
def sign(x: tl.tensor) -> tl.tensor:
    """Give -1, 0 or 1; NaN stays."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x)).to(x.dtype)


@jit
def sign_integer(x: tl.tensor) -> tl.tensor:
    """Give -1, 0 or 1."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@jit
def floor_mod(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Give the remainder with the divisor's sign."""
    rest = x % y
    return tl.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


@jit
def int_pow(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Raise an integer to a power; negative powers give 0, or +-1 for a base of +-1."""
    result = x * 0 + y * 0 + 1
    base = result * x
    rest = tl.where(y > 0, y, 0) + x * 0
    for _ in range(64):
        result = tl.where((rest & 1) != 0, result * base, result)
        base = base * base
        rest = rest >> 1
    odd = tl.where((y & 1) != 0, -1, 1).to(x.dtype)
    inverse = tl.where(x == 1, 1, tl.where(x == -1, odd, 0)).to(x.dtype)
    return tl.where(y < 0, inverse, result)


@jit
def fmod_f64(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Give the remainder with the dividend's sign; exact while the quotient is below 2^53."""
    quotient = x / y
    whole = tl.where(quotient < 0, tl.ceil(quotient), tl.floor(quotient))
    rest = tl.fma(-whole, y, x)
    # The quotient may have been rounded up to the next integer.
    rest = tl.where((rest != 0) & ((rest < 0) != (x < 0)), rest + tl.where((x < 0) == (y < 0), y, -y), rest)
    infinite = tl.abs(y) == float("inf")
    return tl.where(infinite & (tl.abs(x) < float("inf")), x, rest)


@jit
def exp_f64(x: tl.tensor) -> tl.tensor:
    """Give e to the power x."""
    return tl.exp(x)


@jit
def log_f64(x: tl.tensor) -> tl.tensor:
    """Give the natural logarithm."""
    return tl.log(x)


@jit
def shift_left(x: tl.tensor, count: tl.tensor, width: tl.constexpr) -> tl.tensor:
    """Shift by any amount; beyond the width, as a negative one is, no bit stays."""
    inside = (count >= 0) & (count < width)
    return tl.where(inside, x << tl.where(inside, count, 0), 0).to(x.dtype)


@jit
def shift_right(x: tl.tensor, count: tl.tensor, width: tl.constexpr) -> tl.tensor:
    """Shift by any amount; beyond the width, as a negative one is, copies of the sign stay."""
    inside = (count >= 0) & (count < width)
    last = (width - 1 if x.dtype.is_int_signed() else 0) + count * 0
    shifted = x >> tl.where(inside, count, last)
    return shifted if x.dtype.is_int_signed() else tl.where(inside, shifted, 0).to(x.dtype)


@jit
def erf_f64(x: tl.tensor) -> tl.tensor:
    """Give the error function."""
    return tl.erf(x)


@jit
def log1p_f64(x: tl.tensor) -> tl.tensor:
    """Give log(1 + x); Kahan's correction makes up for what the sum lost."""
    total = 1.0 + x
    ratio = tl.log(total) * x / (total - 1.0)
    return tl.where(total == 1.0, x, tl.where(total == float("inf"), total, ratio))


@jit
def expm1_f64(x: tl.tensor) -> tl.tensor:
    """Give e to the power x, less 1; Kahan's correction makes up for what the difference lost."""
    power = tl.exp(x)
    less = power - 1.0
    ratio = less * x / tl.log(power)
    return tl.where(power == 1.0, x, tl.where((power > 0) & (power < float("inf")), ratio, less))


@jit
def tanh_f64(x: tl.tensor) -> tl.tensor:
    """Give the hyperbolic tangent."""
    size = tl.minimum(tl.abs(x), 40.0, propagate_nan=tl.PropagateNan.ALL)
    grown = expm1_f64(2.0 * size)
    result = grown / (grown + 2.0)
    return tl.where(x < 0, -result, result)


@jit
def sigmoid_f64(x: tl.tensor) -> tl.tensor:
    """Give 1 / (1 + exp(-x))."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@jit
def silu_f64(x: tl.tensor) -> tl.tensor:
    """Give x / (1 + exp(-x))."""
    # The root of the exponential stays normal where the exponential does not.
    root = tl.exp(-0.5 * tl.abs(x))
    result = tl.where(x < 0, x * root * root, x) / (1.0 + root * root)
    return tl.where(x > float("-inf"), result, x * 0.0)


@jit
def gelu_f64(x: tl.tensor) -> tl.tensor:
    """Give x times the normal distribution; the absolute error is that of erf."""
    result = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    return tl.where(x > float("-inf"), result, x * 0.0)


@jit
def softplus_f64(x: tl.tensor) -> tl.tensor:
    """Give log(1 + exp(x))."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + log1p_f64(tl.exp(-tl.abs(x)))


@jit
def tan_f64(x: tl.tensor) -> tl.tensor:
    """Give the tangent."""
    return tl.sin(x) / tl.cos(x)


@jit
def atan_f64(x: tl.tensor) -> tl.tensor:
    """Give the arc tangent (Cephes, atan.c: two reductions and a rational function)."""
    size = tl.abs(x)
    large, middle = size > 2.414213562373095, size > 0.66
    cut = tl.where(large, -1.0 / size, tl.where(middle, (size - 1.0) / (size + 1.0), size))
    # Of numbers alone the result would be float32.
    quarters = tl.where(large, 2, tl.where(middle, 1, 0)).to(tl.float64)
    start, more = quarters * 0.7853981633974483, quarters * 3.061616997868383e-17
    z = cut * cut
    top = -0.8750608600031904 * z - 16.157537187333652
    top = ((top * z - 75.00855792314705) * z - 122.88666844901361) * z - 64.85021904942025
    bottom = (z + 24.858464901423062) * z + 165.02700983169885
    bottom = ((bottom * z + 432.88106049129027) * z + 485.3903996359137) * z + 194.5506571482614
    result = start + (cut * (z * top / bottom) + cut + more)
    return tl.where(x < 0, -result, result)


@jit
def asin_f64(x: tl.tensor) -> tl.tensor:
    """Give the arc sine."""
    return atan_f64(x / tl.sqrt((1.0 - x) * (1.0 + x)))


@jit
def acos_f64(x: tl.tensor) -> tl.tensor:
    """Give the arc cosine."""
    return 2.0 * atan_f64(tl.sqrt((1.0 - x) / (1.0 + x)))


@jit
def sinh_f64(x: tl.tensor) -> tl.tensor:
    """Give the hyperbolic sine."""
    size = tl.abs(x)
    half = expm1_f64(tl.minimum(size, 40.0, propagate_nan=tl.PropagateNan.ALL))
    root = tl.exp(0.5 * size)
    result = tl.where(size < 40.0, 0.5 * (half + half / (half + 1.0)), 0.5 * root * root)
    return tl.where(x < 0, -result, result)


@jit
def cosh_f64(x: tl.tensor) -> tl.tensor:
    """Give the hyperbolic cosine."""
    root = tl.exp(0.5 * tl.abs(x))
    return 0.5 * root * root + 0.5 / root / root


@jit
def asinh_f64(x: tl.tensor) -> tl.tensor:
    """Give the inverse hyperbolic sine."""
    size = tl.abs(x)
    square = size * size
    near = log1p_f64(size + square / (1.0 + tl.sqrt(square + 1.0)))
    result = tl.where(size < 1e10, near, tl.log(size) + 0.6931471805599453)
    return tl.where(x < 0, -result, result)


@jit
def acosh_f64(x: tl.tensor) -> tl.tensor:
    """Give the inverse hyperbolic cosine."""
    more = x - 1.0
    near = log1p_f64(more + tl.sqrt(2.0 * more + more * more))
    result = tl.where(x < 1e10, near, tl.log(x) + 0.6931471805599453)
    return tl.where(x < 1.0, float("nan"), result)


@jit
def atanh_f64(x: tl.tensor) -> tl.tensor:
    """Give the inverse hyperbolic tangent."""
    size = tl.abs(x)
    result = 0.5 * log1p_f64(2.0 * size / (1.0 - size))
    return tl.where(x < 0, -result, result)


@jit
def pow_f64(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Give x to the power y, with the special values of C."""
    size = tl.abs(x)
    power = tl.exp(y * tl.log(size))
    broken = tl.floor(y) != y
    odd = (tl.floor(y) == y) & (tl.floor(y * 0.5) * 2.0 != y)
    signed = tl.where((x < 0) & odd, -power, tl.where((x < 0) & broken & (size < float("inf")), float("nan"), power))
    known = (y == 0) | (x == 1.0) | ((x == -1.0) & (tl.abs(y) == float("inf")))
    return tl.where(known, 1.0, signed)
