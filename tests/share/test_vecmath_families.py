"""Trigonometric and hyperbolic functions, powers and remainders of kernels: accuracy, special values, vectorisation."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from llvmlite import binding
from tests.conftest import ROOT, load_script
from tests.kits.vecmath_kit import (
    LIBRARY_CALL,
    SMALLEST_NORMAL,
    Array,
    assembly,
    by_numpy,
    call,
    compile_kernel,
    every_exponent,
    kernel_of,
    loop,
    ulps,
)

from sartor.share.kernels import circular, hyperbolic, power

BRANCHING = ("sin", "cos", "tan", "pow", "fmod")
BOUNDS = {
    "sin": 1.6, "cos": 1.6, "tan": 3.05, "asin": 2.4, "acos": 1.2, "atan": 1.4,
    "sinh": 1.7, "cosh": 1.5, "asinh": 2.2, "acosh": 2.5, "atanh": 2.55,
}  # fmt: skip
"""Units in the last place that docs/vecmath.md promises."""

REFERENCE: dict[str, Callable[..., Array]] = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "pow": np.power, "fmod": np.fmod,
}  # fmt: skip

WORST_ANGLE = 16367173 * 2.0**72
"""The float32 whose distance to a multiple of pi/2 is the least."""


def family(name: str) -> Any:
    """Return the module of a function."""
    return next(module for module in (circular, hyperbolic, power) if hasattr(module, f"{name}_f32"))


def evaluate(name: str, x: Array, y: Array | None = None) -> Array:
    return call(kernel_of(family(name), name, x.dtype), x, y)


@pytest.fixture(scope="module")
def grid() -> Array:
    """Give two million float32: all exponents, and the ranges where results bend."""
    ranges = [np.linspace(-1, 1, 200_001), np.linspace(-10, 10, 400_001), np.linspace(-300_000, 300_000, 400_001)]
    return np.concatenate([every_exponent(), *[part.astype(np.float32) for part in ranges]])


@pytest.mark.parametrize("name", BOUNDS)
def test_float32_is_faithful_over_the_whole_range(name: str, grid: Array) -> None:
    expected, actual = by_numpy(REFERENCE[name], grid), evaluate(name, grid)
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(actual[~finite], rounded[~finite])
    assert ulps(actual[finite], expected[finite]).max() <= BOUNDS[name]


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_huge_angles(name: str) -> None:
    """Reduction is as exact as for small ones, up to the largest float32 and where most bits cancel."""
    generator = np.random.default_rng(3)
    x = (2.0 ** generator.uniform(16, 128, 3000)).astype(np.float32)
    x[:3] = WORST_ANGLE, np.finfo(np.float32).max, circular.LIMIT
    with mpmath.workprec(300):
        expected = np.array([float(getattr(mpmath, name)(mpmath.mpf(float(angle)))) for angle in x])
    assert ulps(evaluate(name, x), expected).max() <= BOUNDS[name]


SPECIAL = {
    "sin": (0, math.nan, math.nan),
    "cos": (1, math.nan, math.nan),
    "tan": (0, math.nan, math.nan),
    "asin": (0, math.nan, math.nan),
    "acos": (math.pi / 2, math.nan, math.nan),
    "atan": (0, math.pi / 2, -math.pi / 2),
    "sinh": (0, math.inf, -math.inf),
    "cosh": (1, math.inf, math.inf),
    "asinh": (0, math.inf, -math.inf),
    "acosh": (math.nan, math.inf, math.nan),
    "atanh": (0, math.nan, math.nan),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name: str, dtype: Any) -> None:
    actual = evaluate(name, np.array([0, math.inf, -math.inf, math.nan], dtype))
    np.testing.assert_allclose(actual, np.array([*SPECIAL[name], math.nan], dtype), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, (zero, *_) in SPECIAL.items() if zero == 0])
def test_odd_functions_keep_signs_and_subnormals(name: str) -> None:
    x = np.array([-0.0, 0.0, 1e-45, -1e-45, 1e-40, -1e-40, SMALLEST_NORMAL, -SMALLEST_NORMAL], np.float32)
    actual = evaluate(name, x)
    np.testing.assert_array_equal(actual, x)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(x))


@pytest.mark.parametrize("name", BOUNDS)
def test_float64_holds_1e13(name: str) -> None:
    x = {"acosh": np.geomspace(1.0001, 1e300, 200)}.get(name, np.linspace(-0.99, 0.99, 201))
    with mpmath.workprec(100):
        expected = np.array([float(getattr(mpmath, name)(mpmath.mpf(value))) for value in x])
    np.testing.assert_allclose(evaluate(name, x), expected, rtol=1e-13)


NUMBERS = (
    *(0.0, 1.0, 2.0, 3.0, 0.5, 0.3, 1e-41, 1e-38, 3e38, math.inf, math.nan),
    *(8388607.0, 8388609.0, 16777215.0, 16777216.0, 1e20),
)
"""What powers and remainders treat apart: wholes, odd and even, large ones that are always even, halves."""


@pytest.mark.parametrize("name", ["pow", "fmod"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_pairs(name: str, dtype: Any) -> None:
    signed = np.array([sign * number for number in NUMBERS for sign in (1, -1)], dtype)
    x, y = (side.ravel().copy() for side in np.meshgrid(signed, signed))
    actual = evaluate(name, x, y)
    with np.errstate(over="ignore", under="ignore"):
        expected = by_numpy(REFERENCE[name], x, y).astype(dtype)
    np.testing.assert_allclose(actual, expected, rtol=2e-7, atol=1e-45)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))


def test_powers_are_faithful() -> None:
    generator, count = np.random.default_rng(4), 200_000
    pairs = [
        (generator.uniform(0.1, 4, count), generator.uniform(-4, 4, count)),
        (2.0 ** generator.uniform(-149, 128, count), generator.uniform(-12, 12, count)),
        (generator.uniform(0.99, 1.01, count), generator.uniform(-9000, 9000, count)),
        (-(2.0 ** generator.uniform(-30, 30, count)), np.rint(generator.uniform(-9, 9, count))),
    ]
    for pair in pairs:
        x, y = (side.astype(np.float32) for side in pair)
        expected, actual = by_numpy(np.power, x, y), evaluate("pow", x, y)
        with np.errstate(over="ignore"):
            rounded = expected.astype(np.float32)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(actual[~finite], rounded[~finite])
        assert ulps(actual[finite], expected[finite]).max() <= 1.05


def test_remainders_are_exact() -> None:
    generator, count = np.random.default_rng(5), 200_000
    wholes = np.rint(generator.uniform(-(2**28), 2**28, count)), np.rint(generator.uniform(1, 40, count))
    near = generator.uniform(-100, 100, count), generator.uniform(-4, 4, count)
    far = tuple(2.0 ** generator.uniform(-149, 128, (2, count)))
    for pair in (wholes, near, far):
        x, y = (side.astype(np.float32) for side in pair)
        actual = evaluate("fmod", x, y)
        np.testing.assert_array_equal(actual, np.fmod(x, y))
        np.testing.assert_array_equal(np.signbit(actual), np.signbit(x))


@pytest.mark.parametrize("name", BRANCHING)
def test_a_rare_lane_does_no_harm_to_its_vector(name: str) -> None:
    """Whatever the length and wherever in it the rare element stands, the others are right."""
    kernel, generator = kernel_of(family(name), name), np.random.default_rng(6)
    for size in (1, 7, 16, 31, 100):
        for place in range(size):
            x, y = generator.uniform(0.5, 9, (2, size)).astype(np.float32)
            x[place], y[place] = -1e12, 3
            expected = by_numpy(REFERENCE[name], *((x, y) if name in ("pow", "fmod") else (x,)))
            assert ulps(call(kernel, x, y), expected).max() <= 3


@pytest.mark.parametrize("name", [*BOUNDS, "pow", "fmod"])
def test_a_loop_over_the_float32_function_vectorises(name: str) -> None:
    kernel = kernel_of(family(name), name)
    lanes = rf"call [^\n]*<(\d+) x float> @sartor_{name}_v\1\(" if name in BRANCHING else r"load <(\d+) x float>"
    assert re.search(lanes, kernel.inspect_llvm())
    text = assembly(kernel)
    assert not LIBRARY_CALL.search(text)
    if platform.machine() == "x86_64" and binding.get_host_cpu_features().get("avx2"):
        assert re.search(r"%[yz]mm", text)


def test_functions_share_a_module() -> None:
    kernel = compile_kernel(loop("f(x[i]) + g(x[i]) * h(x[i], y[i])"), f=circular.sin_f32, g=circular.cos_f32,
                            h=power.pow_f32)  # fmt: skip
    x, y = np.random.default_rng(7).uniform(0.5, 3, (2, 999)).astype(np.float32)
    expected = by_numpy(lambda a, b: np.sin(a) + np.cos(a) * a**b, x, y)
    np.testing.assert_allclose(call(kernel, x, y), expected, rtol=1e-6, atol=1e-6)


MINIMAX = load_script(ROOT / "docs" / "minimax.py")
LARGEST = {
    "circular.SIN": 5e-9, "circular.COS": 2e-10, "circular.TAN": 2e-9, "circular.ATAN": 3e-9, "circular.ASIN": 5e-9,
    "hyperbolic.SINH": 4e-10, "power.LOG2": 1.1e-10,
}  # fmt: skip
"""Relative errors of the functions with these polynomials, were they evaluated without rounding."""


def coefficients(name: str) -> tuple[float, ...]:
    module, constant = name.split(".")
    found: tuple[float, ...] = getattr(
        {"circular": circular, "hyperbolic": hyperbolic, "power": power}[module], constant
    )
    return found


@pytest.mark.parametrize("name", MINIMAX.FITS)
def test_polynomials_are_as_close_as_documented(name: str) -> None:
    assert MINIMAX.largest_error(MINIMAX.FITS[name], coefficients(name)) <= LARGEST[name]


def test_constants_that_reduce_angles_are_what_the_derivation_gives() -> None:
    assert MINIMAX.half_pi() == circular.HALF_PI
    assert tuple(MINIMAX.turns(circular.STEP * i) for i in range(circular.STEPS)) == circular.TURNS


@pytest.mark.slow
@pytest.mark.parametrize("name", MINIMAX.FITS)
def test_polynomials_are_what_the_derivation_gives(name: str) -> None:
    fit = MINIMAX.FITS[name]
    derived = [fit.kind(float(number)) for number in MINIMAX.rounded(fit)]
    assert derived == [fit.kind(number) for number in coefficients(name)]
