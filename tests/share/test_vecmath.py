"""The functions that generated kernels inline: accuracy, special values, vectorisation."""

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
from tests.kits.vecmath_kit import (
    LIBRARY_CALL,
    SMALLEST_NORMAL,
    SMALLEST_SUBNORMAL,
    assembly,
    call,
    compile_kernel,
    every_exponent,
    kernel_of,
    loop,
)

from sartor.share.kernels import vecmath

FAITHFUL = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid", "softplus", "rsqrt")
SCALED = ("gelu", "silu")


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def gelu(x: np.ndarray) -> np.ndarray:
    # The float64 rounding of x/sqrt(2) costs at most 4e-14 where a float32 result is not yet zero.
    return 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2))


REFERENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


def evaluate(name: str, x: np.ndarray) -> np.ndarray:
    return call(kernel_of(vecmath, name, x.dtype), x)


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """Give about two million float32: every exponent of both signs, all edges, and the ranges where results bend."""
    ranges = [np.linspace(-1, 1, 200_001), np.linspace(0.5, 2, 200_001), np.linspace(-120, 120, 600_001)]
    return np.concatenate([every_exponent(), *[part.astype(np.float32) for part in ranges]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FAITHFUL + SCALED)
def test_float32_holds_1e6_over_the_whole_range(name: str, grid: np.ndarray) -> None:
    expected = REFERENCE[name](grid.astype(np.float64))
    rounded = expected.astype(np.float32)
    actual = evaluate(name, grid).astype(np.float64)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(actual[infinite], rounded[infinite])
    normal = np.isfinite(rounded) & (np.abs(rounded) >= SMALLEST_NORMAL)
    assert np.max(np.abs(actual[normal] / expected[normal] - 1)) < 1e-6
    subnormal = np.abs(rounded) < SMALLEST_NORMAL
    # gelu and silu keep their relative error of some 4e-7 into the subnormals, which is 3 steps at their upper end.
    steps = 1.0 if name in FAITHFUL else 3.0
    assert np.max(np.abs(actual[subnormal] - expected[subnormal]), initial=0) <= steps * SMALLEST_SUBNORMAL


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid"])
def test_bounded_functions_never_leave_their_range(name: str, grid: np.ndarray) -> None:
    assert np.nanmax(np.abs(evaluate(name, grid))) == 1.0


SPECIAL = {
    "exp": (1, math.inf, 0),
    "expm1": (0, math.inf, -1),
    "log": (-math.inf, math.inf, math.nan),
    "log1p": (0, math.inf, math.nan),
    "tanh": (0, 1, -1),
    "erf": (0, 1, -1),
    "sigmoid": (0.5, 1, 0),
    "softplus": (math.log(2), math.inf, 0),
    "silu": (0, math.inf, math.nan),
    "gelu": (0, math.inf, math.nan),
    "rsqrt": (math.inf, 0, math.nan),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FAITHFUL + SCALED)
def test_special_values(name: str, dtype: Any) -> None:
    actual = evaluate(name, np.array([0, math.inf, -math.inf, math.nan], dtype))
    np.testing.assert_allclose(actual, np.array([*SPECIAL[name], math.nan], dtype), rtol=1e-6)


PRECISE: dict[str, Callable[[Any], Any]] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}


@pytest.mark.parametrize("name", PRECISE)
def test_float64_holds_1e13(name: str) -> None:
    sizes = np.concatenate([np.geomspace(1e-300, 1e-3, 30), np.linspace(1e-3, 740, 220)])
    x = sizes if name == "log" else np.concatenate([-sizes, sizes[sizes < 700]])
    actual = evaluate(name, x)
    with mpmath.workprec(2400):
        expected = [PRECISE[name](mpmath.mpf(value)) for value in x]
        errors = [abs(mpmath.mpf(a) / e - 1) for a, e in zip(actual, expected, strict=True) if abs(e) > 2.3e-308]
    assert len(errors) > 200
    assert max(errors) < 1e-13


@pytest.mark.parametrize("name", FAITHFUL + SCALED)
def test_a_loop_over_the_float32_function_vectorises(name: str) -> None:
    kernel = compile_kernel(loop("f(x[i])"), f=getattr(vecmath, f"{name}_f32"))
    assert re.search(r"<\d+ x float>", kernel.inspect_llvm())
    text = assembly(kernel)
    assert not LIBRARY_CALL.search(text)
    if platform.machine() == "x86_64" and binding.get_host_cpu_features().get("avx2"):
        assert re.search(r"%[yz]mm", text)


def test_the_check_for_library_calls_sees_one() -> None:
    text = assembly(compile_kernel(loop("f(x[i])"), np.float64, f=vecmath.exp_f64))
    assert LIBRARY_CALL.search(text)


@pytest.mark.parametrize("name", ["max", "maxnum", "min", "minnum"])
def test_a_reduction_by_maximum_vectorises(name: str) -> None:
    start = "-np.inf" if name.startswith("max") else "np.inf"
    source = (
        f"def kernel(x, y, z, n):\n    best = np.float32({start})\n"
        "    for i in range(n):\n        best = f(best, x[i])\n    z[0] = best\n"
    )
    kernel = compile_kernel(source, f=getattr(vecmath, f"{name}_f32"))
    x = np.random.default_rng(1).standard_normal(1003).astype(np.float32)
    assert call(kernel, x)[0] == (x.max() if name.startswith("max") else x.min())
    assert re.search(r"<\d+ x float>", kernel.inspect_llvm())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maximum_and_minimum_treat_nan_as_named(dtype: Any) -> None:
    special = np.array([0, 1, -2, math.inf, -math.inf, math.nan], dtype)
    x, y = (side.ravel().copy() for side in np.meshgrid(special, special))
    suffix = {4: "f32", 8: "f64"}[x.itemsize]
    for name, judge in {"max": np.maximum, "min": np.minimum, "maxnum": np.fmax, "minnum": np.fmin}.items():
        kernel = compile_kernel(loop("f(x[i], y[i])"), dtype, f=getattr(vecmath, f"{name}_{suffix}"))
        np.testing.assert_array_equal(call(kernel, x, y), judge(x, y))


def test_softmax_keeps_its_range_reduction_under_the_kernels_flags() -> None:
    source = (
        "def kernel(x, y, z, n):\n    top = np.float32(-np.inf)\n"
        "    for i in range(n):\n        top = maximum(top, x[i])\n"
        "    total = np.float32(0)\n"
        "    for i in range(n):\n        z[i] = exp(x[i] - top)\n        total += z[i]\n"
        "    for i in range(n):\n        z[i] = z[i] / total\n"
    )
    kernel = compile_kernel(source, maximum=vecmath.max_f32, exp=vecmath.exp_f32)
    x = (np.random.default_rng(2).standard_normal(777) * 20).astype(np.float32)
    x[::5] = -np.inf
    exact = np.exp((x - x.max()).astype(np.float64))
    np.testing.assert_allclose(call(kernel, x), exact / exact.sum(), rtol=1e-6, atol=2 * SMALLEST_SUBNORMAL)
