"""The rule by which results count as right: what it forgives, and what it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sartor.tools.fuse.accuracy import DOUBTFUL, UNITS, accuracy, change, precision, worst

Array = np.ndarray[Any, Any]
SIZE = 5000
FLOATS = [np.float16, np.float32, np.float64]


def results(dtype: Any, seed: int = 0) -> tuple[Array, Array]:
    """Return exact values and what rounding makes of them."""
    exact = np.random.default_rng(seed).normal(size=SIZE).astype(dtype).astype(np.float64) * (1 + 1e-17)
    return exact, exact.astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_is_right_and_more_is_wrong(dtype: Any) -> None:
    exact, rounded = results(dtype)
    assert accuracy(rounded, rounded, exact, False).ok
    eps, units = np.finfo(dtype).eps, UNITS[np.dtype(dtype).name]
    assert accuracy((rounded * dtype(1 + 0.4 * units * eps)).astype(dtype), rounded, exact, False).ok
    found = accuracy((rounded * dtype(1 + 2 * units * eps)).astype(dtype), rounded, exact, False)
    assert not found.ok
    assert found.bound == precision(np.dtype(dtype))
    assert found.error > found.bound


def test_four_times_the_error_of_onnxruntime_is_right() -> None:
    exact, rounded = results(np.float32)
    theirs, ours = rounded * np.float32(1 + 1e-4), rounded * np.float32(1 + 3e-4)
    assert accuracy(ours, theirs, exact, False).ok
    assert not accuracy(rounded * np.float32(1 + 5e-4), theirs, exact, False).ok


def test_what_roundings_carry_is_allowed() -> None:
    exact, rounded = results(np.float32)
    ours, moved = rounded * np.float32(1 + 1e-3), exact * (1 + 2e-3)
    carried = change(moved, exact, rounded, False)
    assert 1e-3 < carried < 2e-3
    assert not accuracy(ours, rounded, exact, False).ok
    found = accuracy(ours, rounded, exact, False, carried)
    assert (found.ok, found.bound) == (True, carried)
    assert accuracy(ours, rounded, exact, False, np.inf).bound == DOUBTFUL
    whole = np.zeros(3, np.int64)
    assert change(whole + 1, whole, whole, False) == 0


def test_where_float64_is_doubtful_onnxruntime_judges() -> None:
    exact, rounded = results(np.float32)
    nonsense = exact * (1 + 100 * DOUBTFUL)
    assert accuracy(rounded, rounded, nonsense, False).ok
    assert not accuracy(rounded * np.float32(1.001), rounded, nonsense, False).ok
    assert not accuracy(rounded * np.float32(1.001), rounded, None, False).ok
    assert accuracy(rounded * np.float32(1 + 5e-5), rounded, None, False).ok


@pytest.mark.parametrize("mask", [-np.inf, -3.4e38, -1e9])
def test_a_mask_hides_no_error(mask: float) -> None:
    exact, rounded = results(np.float32)
    exact[::2] = rounded[::2] = np.float32(mask)
    assert accuracy(rounded, rounded, exact, False).ok
    wrong = rounded.copy()
    wrong[1] += np.float32(1e-3)
    assert not accuracy(wrong, rounded, exact, False).ok


def test_a_cancellation_is_no_error() -> None:
    exact, rounded = results(np.float32)
    exact[:9] = 0
    rounded[:9] = 0
    ours = rounded.copy()
    ours[:9] = 1e-7
    assert accuracy(ours, rounded, exact, False).ok
    ours[0] = 1e-4
    assert not accuracy(ours, rounded, exact, False).ok


@pytest.mark.parametrize(
    ("ours", "stock", "exact", "right"),
    [
        (np.nan, np.nan, np.nan, True),
        (np.inf, np.inf, np.inf, True),
        (np.inf, np.inf, 1e40, True),
        (np.inf, np.inf, 5.0, True),
        (np.nan, 1.0, 1.0, False),
        (1.0, np.nan, np.nan, False),
        (-np.inf, np.inf, np.inf, False),
        (np.inf, 1.0, 1.0, False),
        (np.nan, np.inf, np.inf, False),
    ],
)
def test_what_is_no_number(ours: float, stock: float, exact: float, right: bool) -> None:
    wanted, rounded = results(np.float32)
    a, b = rounded.copy(), rounded.copy()
    a[7], b[7], wanted[7] = ours, stock, exact
    assert accuracy(a, b, wanted, False).ok == right


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.bool_])
def test_integers_have_to_be_equal(dtype: Any) -> None:
    exact = (np.arange(SIZE) % 2).astype(dtype)
    ours = exact.copy()
    assert accuracy(ours, exact, exact, False).ok
    ours[3] = ~ours[3] if dtype is np.bool_ else ours[3] + 1
    found = accuracy(ours, exact, exact, False)
    assert (found.ok, found.wrong, found.error) == (False, 1, 1.0)


def test_a_jump_forgives_one_in_a_thousand() -> None:
    exact = np.zeros(SIZE, np.int64)
    few, many = exact.copy(), exact.copy()
    few[:5], many[:6] = 1, 1
    assert accuracy(few, exact, exact, True).ok
    assert not accuracy(many, exact, exact, True).ok
    assert accuracy(many, few, exact, True).ok
    numbers, rounded = results(np.float32)
    few, many = rounded.copy(), rounded.copy()
    few[:5] += 1
    many[:6] += 1
    assert accuracy(few, rounded, numbers, True).ok
    assert not accuracy(few, rounded, numbers, False).ok
    assert not accuracy(many, rounded, numbers, True).ok


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_small_and_empty_outputs(shape: tuple[int, ...], dtype: Any) -> None:
    zeros = np.zeros(shape, dtype)
    exact = zeros.astype(np.float64) if dtype is np.float32 else zeros
    for jumps in (False, True):
        assert accuracy(zeros, zeros, exact, jumps).ok
        assert zeros.size == 0 or not accuracy(zeros + dtype(1), zeros, exact, jumps).ok


def test_the_worst_output_speaks() -> None:
    exact, rounded = results(np.float32)
    right = accuracy(rounded, rounded, exact, False)
    near = accuracy(rounded * np.float32(1 + 5e-6), rounded, exact, False)
    whole = accuracy(np.ones(3, np.int64), np.zeros(3, np.int64), None, False)
    assert worst([right, near]) is near
    assert worst([right, whole, near]) is whole
