"""Compare what two models gave for the same inputs.

An element agrees when it is equal, when both are NaN, or when |a - b| <= atol + rtol |b|, where b is the reference.
Infinities must agree in place and sign, NaN in place. Booleans, integers and strings must be equal unless a tolerance
is given. `max_rel` is the largest |a - b| / |b| over the elements with |b| > atol / rtol, whose tolerance is mostly
relative; `sqnr_db` is 10 log10(sum b^2 / sum (a - b)^2) over the finite elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tolerance:
    """Bounds on the difference; None leaves a bound to the type of the output."""

    atol: float | None = None
    rtol: float | None = None

    def of(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Return (atol, rtol) for an element type."""
        atol, rtol = _DEFAULTS.get(dtype.name, (0.0, 0.0))
        return atol if self.atol is None else self.atol, rtol if self.rtol is None else self.rtol


_DEFAULTS = {
    "float16": (1e-3, 1e-2),
    "bfloat16": (1e-2, 5e-2),
    "float32": (1e-5, 1e-4),
    "float64": (1e-12, 1e-9),
    "complex64": (1e-5, 1e-4),
    "complex128": (1e-12, 1e-9),
}


@dataclass(frozen=True)
class OutputDifference:
    """How far one output is from its reference; a measure is None where it is infinite or undefined."""

    name: str
    ok: bool
    reason: str = ""
    max_abs: float | None = 0.0
    max_rel: float | None = 0.0
    sqnr_db: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the output's entry in the verify document."""
        return {"name": self.name, "max_abs": self.max_abs, "max_rel": self.max_rel, "sqnr_db": self.sqnr_db}


def compare(name: str, actual: Any, expected: Any, tolerance: Tolerance) -> OutputDifference:
    """Compare one output: an array, or a sequence, map or absent optional, which must be equal in structure."""
    if isinstance(expected, list) and isinstance(actual, list):
        return _compare_lists(name, actual, expected, tolerance)
    if not (isinstance(expected, np.ndarray | np.generic) and isinstance(actual, np.ndarray | np.generic)):
        same = type(actual) is type(expected) and actual == expected
        return OutputDifference(name, True) if same else unequal(name, "the values differ")
    a, b = np.asarray(actual), np.asarray(expected)
    if a.dtype != b.dtype:
        return unequal(name, f"the type is {a.dtype} instead of {b.dtype}")
    if a.shape != b.shape:
        return unequal(name, f"the shape is {list(a.shape)} instead of {list(b.shape)}")
    if b.dtype.kind in "OUS":
        return OutputDifference(name, True) if np.array_equal(a, b) else unequal(name, "the strings differ")
    return _compare_numbers(name, a, b, tolerance)


def merge(differences: Iterable[Sequence[OutputDifference]]) -> list[OutputDifference]:
    """Join the comparisons of several samples: the worst of each output."""
    return [_worst_of(samples) for samples in zip(*differences, strict=True)]


def worst(differences: Sequence[OutputDifference]) -> OutputDifference | None:
    """Return the output that fails most clearly, or None when all agree."""
    failed = [difference for difference in differences if not difference.ok]
    return max(failed, key=lambda difference: _rank(difference.max_abs), default=None)


def _rank(measure: float | None) -> float:
    return math.inf if measure is None else measure


def _worst_of(samples: Sequence[OutputDifference]) -> OutputDifference:
    failed = worst(samples)
    ratios = [sample.sqnr_db for sample in samples if sample.sqnr_db is not None]
    return OutputDifference(
        samples[0].name,
        failed is None,
        failed.reason if failed else "",
        _largest([sample.max_abs for sample in samples]),
        _largest([sample.max_rel for sample in samples]),
        min(ratios, default=None),
    )


def _largest(measures: Sequence[float | None]) -> float | None:
    known = [measure for measure in measures if measure is not None]
    return max(known) if len(known) == len(measures) else None


def unequal(name: str, reason: str) -> OutputDifference:
    """Return the entry of an output that can't be measured against its reference."""
    return OutputDifference(name, False, reason, None, None, None)


def _compare_lists(name: str, actual: list[Any], expected: list[Any], tolerance: Tolerance) -> OutputDifference:
    if len(actual) != len(expected):
        return unequal(name, f"the sequence has {len(actual)} elements instead of {len(expected)}")
    if not expected:
        return OutputDifference(name, True)
    return _worst_of([compare(name, a, b, tolerance) for a, b in zip(actual, expected, strict=True)])


def _compare_numbers(name: str, a: NDArray[Any], b: NDArray[Any], tolerance: Tolerance) -> OutputDifference:
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return unequal(name, "NaN is in other places")
    if not np.array_equal(np.where(np.isinf(a), a, 0), np.where(np.isinf(b), b, 0), equal_nan=True):
        return unequal(name, "infinity is in other places")
    finite = np.isfinite(b)
    atol, rtol = tolerance.of(b.dtype)
    difference, size = _distance(a[finite], b[finite]), np.abs(_wide(b[finite]))
    return _measured(name, difference, size, atol, rtol)


def _measured(name: str, difference: NDArray[Any], size: NDArray[Any], atol: float, rtol: float) -> OutputDifference:
    excess = difference > atol + rtol * size
    large = size > (atol / rtol if rtol > 0 else 0)
    max_abs = float(np.max(difference, initial=0))
    max_rel = float(np.max(difference[large] / size[large], initial=0))
    reason = (
        f"{np.count_nonzero(excess)} of {size.size} elements differ, by up to {max_abs:.3g}" if excess.any() else ""
    )
    return OutputDifference(name, not reason, reason, max_abs, max_rel, _sqnr(difference, size))


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype.kind == "c" else array.astype(np.float64)


def _distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return |a - b| in float64; integers are subtracted before they are converted, so that 2^60 + 1 is not 2^60."""
    if b.dtype.kind not in "iu":
        return np.asarray(np.abs(_wide(a) - _wide(b)), dtype=np.float64)
    high, low = np.maximum(a, b), np.minimum(a, b)
    # Unsigned wrap-around gives the true distance even where the signed one overflows.
    return np.asarray(high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)


def _sqnr(difference: NDArray[Any], size: NDArray[Any]) -> float | None:
    noise, signal = float(np.sum(difference**2)), float(np.sum(size**2))
    return 10 * math.log10(signal / noise) if noise > 0 and 0 < signal < math.inf else None
