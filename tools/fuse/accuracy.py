"""How far results may lie from the exact ones: the rule by which a kernel counts as right or wrong.

The error of an element a whose exact value is b is |a - b| / (|b| + s), where s is the lower quartile of the other
values' sizes, so that neither a cancellation to almost nothing nor a mask of -1e9 decides. A kernel may err by
`LENIENCE` times what onnxruntime errs at most on the same inputs, by some units in the last place in any case, and by
what roundings in between may carry: a difference of almost equal sums depends on the order in which they are added.
Integers and booleans must be equal. Where an operator jumps (a comparison, a rounding), a rounding error before it may
turn one value into another: then one element in `RARE` is forgiven, and as many as onnxruntime itself gets wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LENIENCE = 4
RARE = 1000
UNITS = {"float16": 4, "float32": 64, "float64": 64}
"""Errors that are always allowed, in units of the type's precision: a few roundings in a row."""

SHAKEN = 1 / 2
"""Units of precision, as a part of `UNITS`, by which each intermediate result may be off."""

UNITS_OF_ROUNDED = 16
"""How many times more is allowed where the reference, being onnxruntime's result, is rounded itself."""

DOUBTFUL = 1e-2
"""The error of onnxruntime above which the float64 results are not taken for the truth."""

JUMPS = frozenset({
    "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "DynamicQuantizeLinear", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "QuantizeLinear", "Round", "Shrink", "Sign", "ThresholdedRelu",
})  # fmt: skip


@dataclass(frozen=True)
class Accuracy:
    """The largest error of an output, what is allowed, and how many of its `size` elements are beyond that."""

    error: float
    bound: float
    wrong: int
    forgiven: int
    size: int

    @property
    def ok(self) -> bool:
        """Tell whether the results count as right."""
        return self.wrong <= self.forgiven

    @property
    def excess(self) -> float:
        """How many times the allowed error this is."""
        return self.error / self.bound if self.bound else self.error


def accuracy(ours: Array, stock: Array, exact: Array | None, jumps: bool, carried: float = 0.0) -> Accuracy:
    """Compare a kernel's output with the exact one, or with onnxruntime's where there is none.

    `carried` is the error that roundings of intermediate results may lead to, as far as it is not doubtful itself.
    """
    if ours.dtype.kind not in "f":
        return _of_integers(ours, stock, stock if exact is None else exact, jumps)
    free = ours.size // RARE if jumps else 0
    if exact is not None:
        theirs = _errors(stock, exact, stock)
        typical = _largest(theirs, free)
        if typical <= DOUBTFUL:
            bound = max(LENIENCE * typical, precision(ours.dtype), min(carried, DOUBTFUL))
            return _judged(_errors(ours, exact, stock), bound, free + LENIENCE * int((theirs > bound).sum()), free)
    return _judged(_errors(ours, stock, stock), UNITS_OF_ROUNDED * precision(ours.dtype), free, free)


def change(shaken: Array, exact: Array, stock: Array, jumps: bool) -> float:
    """Return how far an output is from the exact one when intermediate results are off; 0 for integers."""
    if stock.dtype.kind != "f":
        return 0.0
    return _largest(_errors(shaken, exact, stock), shaken.size // RARE if jumps else 0)


def precision(dtype: np.dtype[Any]) -> float:
    """Return the error that is always allowed."""
    return UNITS[dtype.name] * float(np.finfo(dtype).eps)


def worst(found: Sequence[Accuracy]) -> Accuracy:
    """Return the output that fails, or comes closest to it."""
    return max(found, key=lambda each: (not each.ok, each.excess))


def _judged(errors: Array, bound: float, forgiven: int, free: int) -> Accuracy:
    wrong = int((errors > bound).sum())
    shown = _largest(errors, free) if wrong <= forgiven else _largest(errors, 0)
    return Accuracy(shown, bound, wrong, forgiven, errors.size)


def _of_integers(ours: Array, stock: Array, exact: Array, jumps: bool) -> Accuracy:
    different, theirs = ours != exact, int((stock != exact).sum())
    distance = np.abs(ours.astype(np.float64) - exact.astype(np.float64))
    forgiven = ours.size // RARE + LENIENCE * theirs if jumps else 0
    return Accuracy(_largest(distance, 0), 0.0, int(different.sum()), forgiven, ours.size)


def _errors(a: Array, exact: Array, stock: Array) -> Array:
    """Return the error of every element; what is no number counts where neither the truth nor onnxruntime agrees."""
    limits = np.finfo(stock.dtype)
    with np.errstate(all="ignore"):
        b = np.where(np.abs(exact) > float(limits.max), np.copysign(np.inf, exact), exact).astype(np.float64)
        wide, theirs = a.astype(np.float64), stock.astype(np.float64)
        errors = np.abs(wide - b) / (np.abs(b) + _scale(b) + float(limits.tiny))
    numbers = np.isfinite(wide) & np.isfinite(b)
    agrees = _same(wide, b) | _same(wide, theirs)
    return np.where(numbers, errors, np.where(agrees, 0.0, np.inf))


def _same(a: Array, b: Array) -> Array:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def _scale(b: Array) -> Array:
    """Return s; an exact zero is what is left of a cancellation of inputs, whose size is about 1."""
    sizes = np.abs(b[np.isfinite(b) & (b != 0)])
    quartile = float(np.quantile(sizes, 0.25)) if sizes.size else 0.0
    return np.where(b == 0, max(quartile, 1.0), quartile)


def _largest(errors: Array, dropped: int) -> float:
    """Return the largest error but for the `dropped` largest ones."""
    if errors.size <= dropped:
        return 0.0
    return float(np.partition(errors.reshape(-1), errors.size - 1 - dropped)[errors.size - 1 - dropped])
