"""Hyperbolic functions and their inverses for generated kernels, in the manner of vecmath.py, whose tanh is there.

docs/minimax.py derives the polynomial.
"""

from __future__ import annotations

import math

from sartor.share.kernels.scalar import Scalar, polynomial, unary
from sartor.share.kernels.vecmath import exp_near_zero, log1p, reduce_exponent

# sinh(x) = x + x z P(z) with z = x^2 for |x| <= 1.
SINH = (0.166666672, 0.00833331048, 0.000198428956, 2.78221319e-06)
_FAR = 4096.0
"""From here on the inverses are log(2 |x|) to the last bit, and squares may overflow."""


def _half_exp(size: Scalar) -> Scalar:
    """Write exp(size) / 2 for a size that is not negative; it overflows where the functions do."""
    rest, exponent = reduce_exponent(size.at_most(90.0))
    return exp_near_zero(rest).times_power(exponent - 1)


def _sinh(x: Scalar) -> Scalar:
    half, square = _half_exp(abs(x)), x * x
    near = x * square * polynomial(square, SINH) + x
    far = (half - half.constant(0.25) / half).call("llvm.copysign", x)
    return (abs(x) < 1.0).select(near, far)


def _cosh(x: Scalar) -> Scalar:
    half = _half_exp(abs(x))
    return half + half.constant(0.25) / half


def _asinh(x: Scalar) -> Scalar:
    size = abs(x)
    square = size * size
    near = square / ((square + 1.0).call("llvm.sqrt") + 1.0) + size
    return _log_of_sum(size, near).call("llvm.copysign", x)


def _acosh(x: Scalar) -> Scalar:
    above = x - 1.0
    near = (above * above + above * 2.0).call("llvm.sqrt") + above
    return (x < 1.0).select(x.constant(math.nan), _log_of_sum(x, near))


def _log_of_sum(size: Scalar, near: Scalar) -> Scalar:
    """Give log(1 + near), or log(2 size) where the size is large."""
    far = size > _FAR
    return log1p(far.select(size - 1.0, near)) + far.select(size.constant(math.log(2)), 0.0)


def _atanh(x: Scalar) -> Scalar:
    size = abs(x)
    return (log1p(size * 2.0 / (1.0 - size)) * 0.5).call("llvm.copysign", x)


sinh_f32, cosh_f32 = unary("f32", _sinh), unary("f32", _cosh)
asinh_f32, acosh_f32, atanh_f32 = (unary("f32", body) for body in (_asinh, _acosh, _atanh))

sinh_f64 = unary("f64", lambda x: x.library("sinh"))
cosh_f64 = unary("f64", lambda x: x.library("cosh"))
asinh_f64 = unary("f64", lambda x: x.library("asinh"))
acosh_f64 = unary("f64", lambda x: x.library("acosh"))
atanh_f64 = unary("f64", lambda x: x.library("atanh"))
