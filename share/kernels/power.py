"""Powers and remainders for generated kernels, in the manner of vecmath.py; docs/minimax.py derives the polynomial.

The logarithm of a power's base needs some ten bits more than the result has, because the exponent multiplies its error;
it is taken in float64.
"""

from __future__ import annotations

import math

from sartor.share.kernels.branches import branching
from sartor.share.kernels.scalar import Condition, Scalar, binary, two_chains
from sartor.share.kernels.vecmath import SMALLEST_NORMAL, exp_near_zero, exponent_and_fraction, split

# log2(1 + f) = f P(f) for sqrt(1/2) <= 1 + f <= sqrt(2), in float64.
LOG2 = (
    1.442695040939348, -0.72134752521326206, 0.48089832072932254, -0.36067280053934764, 0.28854064354887388,
    -0.24050417437522317, 0.20609625697993844, -0.17904694943582855, 0.1590014846979641, -0.15698226606353166,
    0.15485759642261832, -0.086346063048017604,
)  # fmt: skip
_ROUNDER_DOUBLE = 1.5 * 2.0**52
_INFINITY = math.inf


def _is_plain(x: Scalar, y: Scalar) -> Condition:
    """Tell whether a base is positive and normal and an exponent finite."""
    return ~(x < SMALLEST_NORMAL) & (x < _INFINITY) & (abs(y) < _INFINITY)


def _log2(exponent: Scalar, f: Scalar) -> Scalar:
    """Give log2 of 2^exponent (1 + f) in float64."""
    wide = f.widen()
    return wide * two_chains(wide, LOG2) + exponent.widen()


def _exp2(x: Scalar) -> Scalar:
    """Round 2^x, with x in float64, to float32."""
    cut = x.at_least(-160.0).at_most(130.0)
    rounded = cut + _ROUNDER_DOUBLE
    rest = (cut - (rounded - _ROUNDER_DOUBLE)) * math.log(2)
    return exp_near_zero(rest.narrow()).times_power(rounded.low_word())


def _plain_power(x: Scalar, y: Scalar) -> Scalar:
    return _exp2(_log2(*exponent_and_fraction(x)) * y.widen())


def _power(x: Scalar, y: Scalar) -> Scalar:
    """Write x^y as C defines it for zeros, infinities, NaN and negative bases."""
    size = abs(x)
    log2 = (size < _INFINITY).select(_log2(*split(size)), size.widen())
    log2 = size.equals(0.0).select(log2.constant(-_INFINITY), log2)
    result = _exp2(log2 * y.widen())
    half = y * 0.5
    whole, odd = y.equals(y.call("llvm.rint")), abs(half - half.call("llvm.rint")) > 0.0
    result = (whole & odd).select(result.call("llvm.copysign", x), result)
    result = ((x < 0.0) & (x > -_INFINITY) & ~whole).select(x.constant(math.nan), result)
    one = y.equals(0.0) | x.equals(1.0) | (x.equals(-1.0) & abs(y).equals(_INFINITY))
    return one.select(x.constant(1.0), result)


_QUOTIENT = 2.0**28
"""Quotients below are cut to whole numbers without error when they are rounded to float64."""

_STEPS = 6
"""Divisions in float64 that bring the largest quotient of float32, 2^277, below 1."""


def _is_near(x: Scalar, y: Scalar) -> Condition:
    return (abs(x) < abs(y) * _QUOTIENT) & (abs(y) < _INFINITY)


def _reduced(x: Scalar, y: Scalar) -> Scalar:
    """Subtract from x about as many times y as x holds; exact in float64."""
    return (-(x / y).call("llvm.trunc")).fused(y, x)


def _near_remainder(x: Scalar, y: Scalar) -> Scalar:
    return _reduced(x.widen(), y.widen()).narrow().call("llvm.copysign", x)


def _remainder(x: Scalar, y: Scalar) -> Scalar:
    """Write fmod(x, y) for all arguments."""
    # An infinite divisor leaves x as it is, as a huge one does.
    rest, divisor = abs(x).widen(), abs(y).widen().at_most(2.0**200)
    for _ in range(_STEPS):
        rest = _reduced(rest, divisor)
    rest = (rest < 0.0).select(rest + divisor, rest)
    return rest.narrow().call("llvm.copysign", x)


pow_f32 = binary("f32", branching("sartor_pow", lambda x, y: ~_is_plain(x, y), _plain_power, _power))
fmod_f32 = binary("f32", branching("sartor_fmod", lambda x, y: ~_is_near(x, y), _near_remainder, _remainder))

pow_f64 = binary("f64", lambda x, y: x.library("pow", y))
fmod_f64 = binary("f64", lambda x, y: x.library("fmod", y))
