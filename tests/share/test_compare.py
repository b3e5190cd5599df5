"""Comparison of outputs: measures, tolerances, and what must agree exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sartor.share.compare import OutputDifference, Tolerance, compare, merge, worst

DEFAULT = Tolerance()


def against(actual: Any, expected: Any, tolerance: Tolerance = DEFAULT) -> OutputDifference:
    return compare("y", actual, expected, tolerance)


def test_measures_of_a_known_difference() -> None:
    b = np.array([1, -2, 4, 0], np.float32)
    a = np.array([1, -2, 4.004, 1e-6], np.float32)
    result = against(a, b)
    assert not result.ok
    assert result.max_abs == pytest.approx(0.004, rel=1e-3)
    assert result.max_rel == pytest.approx(0.001, rel=1e-3)
    assert result.sqnr_db == pytest.approx(10 * math.log10(21 / 0.004**2), rel=1e-3)
    assert result.reason == "1 of 4 elements differ, by up to 0.004"


def test_equal_arrays_have_no_noise() -> None:
    b = np.linspace(-1, 1, 9).reshape(3, 3)
    assert against(b.copy(), b) == OutputDifference("y", True, "", 0.0, 0.0, None)


def test_max_rel_leaves_out_what_the_absolute_tolerance_decides() -> None:
    # atol / rtol is 0.1 by default: the second element is below it.
    result = against(np.array([1.00001, 2e-6], np.float32), np.array([1, 1e-6], np.float32))
    assert result.ok
    assert result.max_rel == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize(
    ("dtype", "within", "beyond"),
    [(np.float16, 5e-3, 3e-2), (np.float32, 5e-5, 5e-4), (np.float64, 5e-10, 5e-9), (np.complex64, 5e-5, 5e-4)],
)
def test_default_tolerance_depends_on_the_type(dtype: Any, within: float, beyond: float) -> None:
    b = np.array([10], dtype)
    assert against((b * (1 + within)).astype(dtype), b).ok
    assert not against((b * (1 + beyond)).astype(dtype), b).ok


def test_given_tolerance_replaces_the_default() -> None:
    a, b = np.array([1.5], np.float32), np.array([1], np.float32)
    assert against(a, b, Tolerance(atol=0.6)).ok
    assert against(a, b, Tolerance(rtol=0.6)).ok
    assert not against(np.array([1 + 2e-7], np.float32), b, Tolerance(atol=0, rtol=0)).ok


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        ([math.nan, 1], [1, 1], "NaN is in other places"),
        ([math.inf, 1], [1, 1], "infinity is in other places"),
        ([math.inf, 1], [-math.inf, 1], "infinity is in other places"),
        ([1, 1], [[1, 1]], "the shape is [2] instead of [1, 2]"),
    ],
)
def test_places_and_shapes_must_agree(actual: Any, expected: Any, reason: str) -> None:
    result = against(np.array(actual, np.float32), np.array(expected, np.float32))
    assert result == OutputDifference("y", False, reason, None, None, None)


def test_types_must_agree() -> None:
    assert against(np.zeros(2, np.float32), np.zeros(2)).reason == "the type is float32 instead of float64"


def test_agreeing_nan_and_infinity_do_not_count() -> None:
    b = np.array([math.nan, math.inf, -math.inf, 1], np.float32)
    assert against(b.copy(), b) == OutputDifference("y", True, "", 0.0, 0.0, None)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_arrays(shape: tuple[int, ...]) -> None:
    assert against(np.zeros(shape, np.float32), np.zeros(shape, np.float32)).ok


def test_large_integers_are_told_apart() -> None:
    b = np.array([2**60, -(2**63), 2**63 - 1])
    result = against(b + np.array([1, 0, 0]), b)
    assert (result.ok, result.max_abs) == (False, 1.0)
    assert against(np.array([2**63 - 1]), np.array([-(2**63)])).max_abs == 2.0**64
    assert against(np.array([3], np.uint8), np.array([4], np.uint8), Tolerance(atol=1)).ok


def test_booleans_and_strings_must_be_equal() -> None:
    assert not against(np.array([True, False]), np.array([True, True])).ok
    assert against(np.array(["a", "b"], object), np.array(["a", "b"], object)).ok
    assert against(np.array(["a"], object), np.array(["b"], object)).reason == "the strings differ"


def test_sequences_and_maps() -> None:
    one = np.ones(2, np.float32)
    assert against([one, one], [one, one]).ok
    assert against([], []).ok
    assert against([one], [one, one]).reason == "the sequence has 1 elements instead of 2"
    assert against([one, one + 1], [one, one]).max_abs == 1.0
    assert against({"a": 1}, {"a": 1}).ok
    assert not against({"a": 1}, {"a": 2}).ok
    assert not against(None, one).ok


def test_merge_keeps_the_worst_of_each_output() -> None:
    good, bad = OutputDifference("y", True, "", 0.1, 0.2, 60.0), OutputDifference("y", False, "why", 0.5, 0.1, 20.0)
    assert merge([[good], [bad]]) == [OutputDifference("y", False, "why", 0.5, 0.2, 20.0)]
    undefined = OutputDifference("y", False, "NaN is in other places", None, None, None)
    assert merge([[good], [undefined]]) == [OutputDifference("y", False, "NaN is in other places", None, None, 60.0)]


def test_worst_prefers_what_can_not_be_measured() -> None:
    small, large = OutputDifference("a", False, "x", 0.1), OutputDifference("b", False, "x", 0.2)
    undefined = OutputDifference("c", False, "x", None, None, None)
    assert worst([OutputDifference("d", True, "", 9.0)]) is None
    assert worst([small, large]) == large
    assert worst([small, undefined, large]) == undefined
