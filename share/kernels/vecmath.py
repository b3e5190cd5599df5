"""Mathematical functions for generated kernels; LLVM inlines them into loops and vectorises the float32 ones.

The float32 functions hold a relative error below 1e-6 over the whole range, with IEEE results at zero, infinity, NaN
and in the subnormal range. Polynomials and rational functions are minimax fits of the relative error. The float64
functions hold 1e-13 and call the C library. `gelu` and `silu` of minus infinity are NaN, as their ONNX definitions
(minus infinity times zero) and onnxruntime have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sartor.share.kernels.scalar import Scalar, Word, binary, polynomial, unary

_INFINITY = math.inf
_LOG2_E = math.log2(math.e)
# Ten bits, so that its product with an exponent is exact; the low part makes up the rest of ln 2.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2) - _LN2_HIGH
# Adding it leaves the nearest integer in the low bits of the float32.
_ROUNDER = 1.5 * 2**23
_ROUNDER_BITS = 0x4B400000
_SQRT_HALF_BITS = 0x3F3504F3
SMALLEST_NORMAL = 2.0**-126
_SQRT_HALF = math.sqrt(0.5)
# sqrt(1/2) in 107 bits needs this much more than its float64.
_SQRT_HALF_LOW = -4.833646656726457e-17

# exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2)/2.
_EXP_TAIL = (0.49999994, 0.166665152, 0.041668456, 0.00836941879, 0.00138131448)
# log(1+f) = f - f^2/2 + f^3 P(f) for sqrt(1/2) <= 1+f <= sqrt(2).
_LOG_TAIL = (
    0.333333313, -0.250008196, 0.200012267, -0.166233569,
    0.142017573, -0.131601825, 0.12761578, -0.0763449743,
)  # fmt: skip
# log(1+u) = u + u^2 P(u) for 0 <= u <= 1.
_LOG1P_TAIL = (
    -0.499999315, 0.33330512, -0.249585882, 0.196954012, -0.153553963,
    0.106805563, -0.0576644503, 0.0202045888, -0.00331847323,
)  # fmt: skip
# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 9.02.
_TANH_TOP = (1.0, 0.133797064, 0.00349402078, 2.05832548e-05, 1.33187674e-08)
_TANH_BOTTOM = (1.0, 0.467130214, 0.0258710198, 0.000328307011, 7.76189268e-07)
# erf(x) = x P(x^2) / Q(x^2) for |x| <= 3.95.
_ERF_TOP = (1.12837911, 0.19154872, 0.0528751984, 0.00380808301, 0.000284684356, 2.02590013e-06)
_ERF_BOTTOM = (1.0, 0.503088295, 0.114558935, 0.0150549337, 0.00117070368, 3.78315417e-05)
# exp(a^2/2) times the upper tail of the normal distribution = P(a) / Q(a) for 0 <= a <= 14.6.
_TAIL_TOP = (0.5, 0.438497216, 0.183385134, 0.040683832, 0.0041238321)
_TAIL_BOTTOM = (1.0, 1.67487943, 1.20312583, 0.469866633, 0.101985618, 0.0103367958)


def reduce_exponent(x: Scalar, correction: Scalar | None = None) -> tuple[Scalar, Word]:
    """Give r in about [-ln(2)/2, ln(2)/2] and n with r + n ln 2 = x + correction; |x| below 2^22."""
    rounded = x * _LOG2_E + _ROUNDER
    exponent = rounded - _ROUNDER
    rest = x - exponent * _LN2_HIGH - exponent * _LN2_LOW
    if correction is not None:
        rest = rest + correction
    return rest, rounded.reinterpret() - _ROUNDER_BITS


def exp_near_zero(r: Scalar) -> Scalar:
    """Write exp for |r| up to ln(2)/2."""
    return r * r * polynomial(r, _EXP_TAIL) + r + 1.0


def _halves(exponent: Word) -> tuple[Scalar, Scalar]:
    """Give two float32 powers of two whose product is 2^exponent, which itself may be out of range."""
    half = exponent >> 1
    return _power_of_two(half), _power_of_two(exponent - half)


def _power_of_two(exponent: Word) -> Scalar:
    """Give 2^exponent for an exponent in [-126, 127]."""
    return ((exponent + 127) << 23).reinterpret()


def _exp(x: Scalar) -> Scalar:
    rest, exponent = reduce_exponent(x.at_least(-104.0).at_most(89.0))
    return exp_near_zero(rest).times_power(exponent)


def _expm1(x: Scalar) -> Scalar:
    rest, exponent = reduce_exponent(x.at_least(-20.0).at_most(89.0))
    tail = rest * rest * polynomial(rest, _EXP_TAIL) + rest
    half = _power_of_two(exponent - 1)
    result = (tail * half + (half - 0.5)) * 2.0
    return x.equals(0.0).select(x, result)


def exponent_and_fraction(x: Scalar) -> tuple[Scalar, Scalar]:
    """Give a whole number n and f with x = 2^n (1 + f) and sqrt(1/2) <= 1 + f <= sqrt(2), for a normal positive x."""
    shifted = x.reinterpret() - _SQRT_HALF_BITS
    return (shifted >> 23).convert(), ((shifted & 0x7FFFFF) + _SQRT_HALF_BITS).reinterpret() - 1.0


def split(x: Scalar) -> tuple[Scalar, Scalar]:
    """Give the same for any finite positive x."""
    subnormal = x < SMALLEST_NORMAL
    exponent, f = exponent_and_fraction(subnormal.select(x * 2.0**23, x))
    return exponent - subnormal.select(x.constant(23.0), 0.0), f


def _log(x: Scalar) -> Scalar:
    exponent, f = split(x)
    tail = f * f * f * polynomial(f, _LOG_TAIL) + exponent * _LN2_LOW
    result = exponent * _LN2_HIGH + (f + (tail - f * f * 0.5))
    finite = (x < _INFINITY).select(result, x)
    return (x > 0.0).select(finite, x.equals(0.0).select(x.constant(-_INFINITY), math.nan))


def log1p(x: Scalar) -> Scalar:
    total = x + 1.0
    lost = x - (total - 1.0)
    result = _log(total)
    regular = (total > 0.0).select(lost / total, 0.0)
    return result + (x < _INFINITY).select(regular, 0.0)


def _tanh(x: Scalar) -> Scalar:
    cut = x.at_least(-9.02).at_most(9.02)
    square = cut * cut
    result = cut * (polynomial(square, _TANH_TOP) / polynomial(square, _TANH_BOTTOM))
    return result.at_least(-1.0).at_most(1.0)


def _erf(x: Scalar) -> Scalar:
    cut = x.at_least(-3.95).at_most(3.95)
    square = cut * cut
    result = cut * (polynomial(square, _ERF_TOP) / polynomial(square, _ERF_BOTTOM))
    return result.at_least(-1.0).at_most(1.0)


def _sigmoid(x: Scalar) -> Scalar:
    rest, exponent = reduce_exponent(-abs(x).at_most(110.0))
    e = exp_near_zero(rest).times_power(exponent)
    return (x < 0.0).select(e, 1.0) / (e + 1.0)


def _silu(x: Scalar) -> Scalar:
    rest, exponent = reduce_exponent(-abs(x).at_most(110.0))
    first, second = _halves(exponent)
    factor = exp_near_zero(rest)
    negative = x < 0.0
    # The power of two comes last: the sigmoid alone is subnormal where its product with x is not.
    quotient = negative.select(x.at_least(-110.0) * factor, x) / (factor * first * second + 1.0)
    result = quotient * negative.select(first, 1.0) * negative.select(second, 1.0)
    return (x > -_INFINITY).select(result, x * 0.0)


def _gelu(x: Scalar) -> Scalar:
    cut = x.at_least(-14.5).at_most(14.5)
    size = abs(cut)
    square = size * size
    # What rounding took from the square: in the far tail the exponential would feel it.
    lost = size.fused(size, -square)
    rest, exponent = reduce_exponent(square * -0.5, lost * -0.5)
    tail = exp_near_zero(rest) * (polynomial(size, _TAIL_TOP) / polynomial(size, _TAIL_BOTTOM))
    below = (cut * tail).times_power(exponent)
    result = (x < 0.0).select(below, x - below)
    return (x > -_INFINITY).select(result, x * 0.0)


def _softplus(x: Scalar) -> Scalar:
    rest, exponent = reduce_exponent(-abs(x).at_most(110.0))
    e = exp_near_zero(rest).times_power(exponent)
    return (x > 0.0).select(x, 0.0) + (e * e * polynomial(e, _LOG1P_TAIL) + e)


def _sigmoid_double(x: Scalar) -> Scalar:
    e = (-abs(x)).library("exp")
    return (x < 0.0).select(e, 1.0) / (e + 1.0)


def _silu_double(x: Scalar) -> Scalar:
    # The root of the exponential stays normal where the exponential does not.
    root = (-abs(x) * 0.5).library("exp")
    return (x < 0.0).select(x * root * root, x) / (root * root + 1.0)


def _gelu_double(x: Scalar) -> Scalar:
    cut = -x.at_least(-40.0)
    z = cut * _SQRT_HALF
    # erfc grows a rounding error of its argument by 2 z^2; the error is exact by a fused multiply-add.
    error = cut.call("llvm.fma", cut.constant(_SQRT_HALF), -z) + cut * _SQRT_HALF_LOW
    correction = (z > 0.0).select(z * error * -2.0 + 1.0, 1.0)
    result = x.at_least(-40.0) * 0.5 * z.library("erfc") * correction
    return (x > -_INFINITY).select(result, x * 0.0)


def _softplus_double(x: Scalar) -> Scalar:
    return (x > 0.0).select(x, 0.0) + (-abs(x)).library("exp").library("log1p")


def _rsqrt(x: Scalar) -> Scalar:
    return x.constant(1.0) / x.call("llvm.sqrt")


def _max(x: Scalar, y: Scalar) -> Scalar:
    """Give the larger, or NaN where either is NaN, as ONNX and numpy do."""
    return x.call("llvm.maximum", y)


def _min(x: Scalar, y: Scalar) -> Scalar:
    """Give the smaller, or NaN where either is NaN, as ONNX and numpy do."""
    return x.call("llvm.minimum", y)


def _maxnum(x: Scalar, y: Scalar) -> Scalar:
    """Give the larger; a NaN loses against a number."""
    return x.call("llvm.maxnum", y)


def _minnum(x: Scalar, y: Scalar) -> Scalar:
    """Give the smaller; a NaN loses against a number."""
    return x.call("llvm.minnum", y)


exp_f32 = unary("f32", _exp)
expm1_f32 = unary("f32", _expm1)
log_f32 = unary("f32", _log)
log1p_f32 = unary("f32", log1p)
tanh_f32 = unary("f32", _tanh)
erf_f32 = unary("f32", _erf)
sigmoid_f32 = unary("f32", _sigmoid)
silu_f32 = unary("f32", _silu)
gelu_f32 = unary("f32", _gelu)
softplus_f32 = unary("f32", _softplus)
rsqrt_f32 = unary("f32", _rsqrt)

exp_f64 = unary("f64", lambda x: x.library("exp"))
expm1_f64 = unary("f64", lambda x: x.library("expm1"))
log_f64 = unary("f64", lambda x: x.library("log"))
log1p_f64 = unary("f64", lambda x: x.library("log1p"))
tanh_f64 = unary("f64", lambda x: x.library("tanh"))
erf_f64 = unary("f64", lambda x: x.library("erf"))
sigmoid_f64 = unary("f64", _sigmoid_double)
silu_f64 = unary("f64", _silu_double)
gelu_f64 = unary("f64", _gelu_double)
softplus_f64 = unary("f64", _softplus_double)
rsqrt_f64 = unary("f64", _rsqrt)

max_f32 = binary("f32", _max)
max_f64 = binary("f64", _max)
min_f32 = binary("f32", _min)
min_f64 = binary("f64", _min)
maxnum_f32 = binary("f32", _maxnum)
maxnum_f64 = binary("f64", _maxnum)
minnum_f32 = binary("f32", _minnum)
minnum_f64 = binary("f64", _minnum)

FORMULAS: dict[str, Callable[[Scalar], Scalar]] = {
    "exp_f32": _exp, "expm1_f32": _expm1, "log_f32": _log, "log1p_f32": log1p, "tanh_f32": _tanh, "erf_f32": _erf,
    "sigmoid_f32": _sigmoid, "silu_f32": _silu, "gelu_f32": _gelu, "softplus_f32": _softplus,
}  # fmt: skip
"""The float32 functions as formulas, for processors other than this one."""
