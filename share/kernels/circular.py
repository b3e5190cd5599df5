"""Trigonometric functions and their inverses for generated kernels, in the manner of vecmath.py.

Angles below `LIMIT` are reduced in float32, by multiples of pi/2 in three parts; a vector with a larger one is reduced
in float64, which is exact enough for the largest float32. docs/minimax.py derives the polynomials.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sartor.share.kernels.branches import branching
from sartor.share.kernels.scalar import Condition, Scalar, Word, polynomial, unary

LIMIT = 2.0**18
"""Angles from which on reduction in float32 loses accuracy."""

# sin(r) = r + r z P(z), cos(r) = 1 - z/2 + z^2 P(z), tan(r) = r + r z P(z) with z = r^2, for |r| <= 0.797.
SIN = (-0.166666538, 0.0083321007, -0.00019506691)
COS = (0.0416666456, -0.00138872908, 2.44287567e-05)
TAN = (0.333333552, 0.133324727, 0.054081887, 0.0211670082, 0.0111383554, -0.000298452564, 0.00456958823)
# atan(t) = t + t z P(z) for |t| <= 1; asin(s) = s + s z P(z) for |s| <= 1/2.
ATAN = (
    -0.333332986, 0.199985296, -0.142640144, 0.109508611, -0.0839920864,
    0.0578789115, -0.031093616, 0.010866343, -0.00178216747,
)  # fmt: skip
ASIN = (0.166667521, 0.0749530941, 0.0454691537, 0.0241847429, 0.0421583876)

# pi/2 in three float32.
HALF_PI = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
_ROUNDER, _ROUNDER_DOUBLE = 1.5 * 2.0**23, 1.5 * 2.0**52
"""Adding one leaves the nearest integer in the low bits."""

STEP, STEPS = 24, 5
# 2^(24 i) / (2 pi) less whole turns: 28 bits, whose product with a float32 is exact in float64, the next 28, the rest.
TURNS = tuple(
    tuple(map(float.fromhex, parts))
    for parts in (
        ("0x1.45f307p-3", "-0x1.1b1bbecp-30", "0x1.29fc2757d1f53p-58"),
        ("-0x1.236378p-3", "0x1.529fc28p-30", "-0x1.505c1596447e5p-59"),
        ("0x1.529fc4p-6", "-0x1.8a82e0cp-30", "0x1.34ddc0db6295ap-58"),
        ("0x1.3abe9p-5", "-0x1.596448p-31", "0x1.b6c52b3278872p-59"),
        ("0x1.f534ddcp-2", "0x1.b6c528p-35", "0x1.993c439041fe5p-58"),
    )
)
_SIGN = -(2**31)


def _is_large(x: Scalar) -> Condition:
    return abs(x) > LIMIT


def _reduce(x: Scalar) -> tuple[Scalar, Word]:
    """Give r in about [-pi/4, pi/4] and n with r + n pi/2 = |x|, for |x| up to the limit."""
    size = abs(x)
    rounded = size.fused(size.constant(2 / math.pi), size.constant(_ROUNDER))
    count = _ROUNDER - rounded
    rest = size
    for part in HALF_PI:
        rest = count.fused(count.constant(part), rest)
    return rest, rounded.reinterpret()


def _reduce_large(x: Scalar) -> tuple[Scalar, Word]:
    """Give r in about [-pi/4, pi/4] and n, right in its two lowest bits, with r + n pi/2 = |x|, for any finite x.

    |x| is y 2^(24 i), where y is below 2^48, and a whole number unless i = 0: then whole turns may be left out of the
    factor, and the product needs few bits below those of a float64.
    """
    size = abs(x)
    steps = [size > 2.0 ** (STEP * i) for i in range(2, STEPS + 1)]
    y = (size * _choose(steps, size, tuple(2.0 ** (-STEP * i) for i in range(STEPS)))).widen()
    high, middle, low = (_choose(steps, y, parts) for parts in zip(*TURNS, strict=True))
    first, second = (product - product.call("llvm.rint") for product in (y * high, y * middle))
    turns = first + second
    rounded = turns.fused(turns.constant(4.0), turns.constant(_ROUNDER_DOUBLE))
    quarters = turns.fused(turns.constant(4.0), _ROUNDER_DOUBLE - rounded)
    rest = (y * low * 4.0 + quarters) * (math.pi / 2)
    return rest.narrow(), rounded.low_word()


def _choose(steps: list[Condition], like: Scalar, values: tuple[float, ...]) -> Scalar:
    """Take the first value, or that of the last step whose condition holds."""
    chosen = like.constant(values[0])
    for step, value in zip(steps, values[1:], strict=True):
        chosen = step.select(like.constant(value), chosen)
    return chosen


def _wave(rest: Scalar, count: Word) -> Scalar:
    """Give the sine of rest + count pi/2."""
    square = rest * rest
    sine = rest * square * polynomial(square, SIN) + rest
    cosine = square * square * polynomial(square, COS) + (square * -0.5 + 1.0)
    return (count.has(1).select(cosine, sine).reinterpret() ^ ((count & 2) << 30)).reinterpret()


def _tangent(rest: Scalar, count: Word) -> Scalar:
    square = rest * rest
    tangent = rest * square * polynomial(square, TAN) + rest
    odd = count.has(1)
    return odd.select(rest.constant(-1.0), tangent) / odd.select(tangent, 1.0)


def _odd(body: Callable[[Scalar], Scalar]) -> Callable[[Scalar], Scalar]:
    """Give a function that is odd from one of |x|."""
    return lambda x: (body(x).reinterpret() ^ (x.reinterpret() & _SIGN)).reinterpret()


def _of_angle(name: str, body: Callable[[Scalar, Word], Scalar], odd: bool) -> Callable[[Scalar], Scalar]:
    """Make a function of an angle from one of the reduced angle and the number of quarter turns."""
    both = [lambda x, reduce=reduce: body(*reduce(x)) for reduce in (_reduce, _reduce_large)]
    usual, unusual = map(_odd, both) if odd else both
    return branching(f"sartor_{name}", _is_large, usual, unusual)


_sin = _of_angle("sin", _wave, True)
_cos = _of_angle("cos", lambda rest, count: _wave(rest, count + 1), False)
_tan = _of_angle("tan", _tangent, True)


def _atan(x: Scalar) -> Scalar:
    size = abs(x)
    steep = size > 1.0
    t = steep.select(size.constant(-1.0), size) / steep.select(size, 1.0)
    square = t * t
    result = t * square * polynomial(square, ATAN) + t
    result = steep.select(result + HALF_PI[1], result) + steep.select(size.constant(HALF_PI[0]), 0.0)
    return result.call("llvm.copysign", x)


def _arc(x: Scalar) -> tuple[Condition, Scalar]:
    """Tell whether |x| is at most 1/2, and give asin |x|, or else asin sqrt((1 - |x|) / 2)."""
    size = abs(x)
    half = (size - 1.0) * -0.5
    small = size < 0.5
    square = small.select(size * size, half)
    root = small.select(size, half.call("llvm.sqrt"))
    return small, root * square * polynomial(square, ASIN) + root


def _asin(x: Scalar) -> Scalar:
    small, arc = _arc(x)
    result = small.select(arc, arc * -2.0 + HALF_PI[1] + HALF_PI[0])
    return result.call("llvm.copysign", x)


def _acos(x: Scalar) -> Scalar:
    small, arc = _arc(x)
    positive = x > 0.0
    signed = positive.select(arc, -arc)
    middle = (HALF_PI[1] - signed) + HALF_PI[0]
    steep = positive.select(arc, HALF_PI[1] - arc) * 2.0
    return small.select(middle, steep + positive.select(x.constant(0.0), 2 * HALF_PI[0]))


sin_f32, cos_f32, tan_f32 = (unary("f32", body) for body in (_sin, _cos, _tan))
asin_f32, acos_f32, atan_f32 = (unary("f32", body) for body in (_asin, _acos, _atan))

sin_f64 = unary("f64", lambda x: x.library("sin"))
cos_f64 = unary("f64", lambda x: x.library("cos"))
tan_f64 = unary("f64", lambda x: x.library("tan"))
asin_f64 = unary("f64", lambda x: x.library("asin"))
acos_f64 = unary("f64", lambda x: x.library("acos"))
atan_f64 = unary("f64", lambda x: x.library("atan"))
