"""Sums of products of axis sizes as functions of counts, thousands of times a second: MACs, parameters, table latency.

An axis is `fixed` plus so many positions for each class of some units that stays; a product is a number times axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sartor.tools.prune.units import Product, total

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProductCosts:
    """Products in compressed rows: those of product p are axes[bounds[p] : bounds[p + 1]], of axis a likewise units."""

    products: tuple[Product, ...]
    factors: Floats
    bounds: Ints
    fixed: Floats
    rows: Ints
    units: Ints
    times: Floats

    def total(self, counts: Ints) -> float:
        """Return the sum of the products where so many classes of each unit stay."""
        return float(_total(self.factors, self.bounds, self.fixed, self.rows, self.units, self.times, counts))

    def totals(self, counts: Ints) -> Floats:
        """Return the sum for each row of counts (times, units)."""
        return np.array([self.total(one) for one in counts])

    def limits(self, counts: Ints, unit: int, budget: float) -> Ints:
        """Return the limit for each row of counts (times, units)."""
        return np.array([self.limit(one, unit, budget) for one in counts])

    def limit(self, counts: Ints, unit: int, budget: float) -> int:
        """Return the largest count of a unit within the budget, the others being as they are; 0 where none is.

        May exceed the size of the unit, whose cost it does not know.
        """
        return int(
            _limit(self.factors, self.bounds, self.fixed, self.rows, self.units, self.times, counts, unit, budget)
        )


def product_costs(products: Sequence[Product]) -> ProductCosts:
    """Lay products out in arrays."""
    axes = [axis for product in products for axis in product.axes]
    pairs = [pair for axis in axes for pair in axis.of]
    return ProductCosts(
        tuple(products),
        np.array([product.fixed for product in products], np.float64),
        np.array(list(accumulate((len(product.axes) for product in products), initial=0)), np.int64),
        np.array([axis.fixed for axis in axes], np.float64),
        np.array(list(accumulate((len(axis.of) for axis in axes), initial=0)), np.int64),
        np.array([unit for unit, _ in pairs], np.int64),
        np.array([times for _, times in pairs], np.float64),
    )


def total_reference(costs: ProductCosts, counts: Ints) -> float:
    """Add the products up by Python's integers."""
    return float(total(costs.products, [int(count) for count in counts]))


@njit(cache=True, error_model="numpy")
def _total(factors: Floats, bounds: Ints, fixed: Floats, rows: Ints, units: Ints, times: Floats, counts: Ints) -> float:
    whole = 0.0
    for product in range(len(factors)):
        value = factors[product]
        for axis in range(bounds[product], bounds[product + 1]):
            size = fixed[axis]
            for pair in range(rows[axis], rows[axis + 1]):
                size += times[pair] * counts[units[pair]]
            value *= size
        whole += value
    return whole


@njit(cache=True, error_model="numpy")
def _limit(
    factors: Floats, bounds: Ints, fixed: Floats, rows: Ints, units: Ints, times: Floats, counts: Ints, unit: int,
    budget: float,
) -> int:  # fmt: skip
    """Bisect: the sum does not fall as a count rises."""
    trial = counts.copy()
    low, high = 0, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        trial[unit] = middle
        if _total(factors, bounds, fixed, rows, units, times, trial) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
