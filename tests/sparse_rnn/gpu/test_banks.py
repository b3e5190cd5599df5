"""Bank conflicts against counts by hand, and what orders make of them."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.sparse_rnn.gpu.banks import Conflicts, conflicts
from sartor.tools.sparse_rnn.gpu.order import arrange

HIDDEN, ROWS, THREADS = 2304, 72, 512
"""The rows of one program of an LSTM of 2304 units on 128 of them."""


@pytest.mark.parametrize(
    ("width", "places", "reads"),
    [
        # All threads of a phase at one place share its words.
        (4, [[5] * 32], 1),
        (8, [[5] * 32], 2),
        (16, [[5] * 32], 4),
        # Neighbours lie side by side.
        (4, [range(32)], 1),
        (8, [range(32)], 2),
        (16, [range(32)], 4),
        # A stride of two words of 32 bits: two threads a bank.
        (4, [range(0, 64, 2)], 2),
        # A stride of all banks: every thread of a phase waits for the others.
        (4, [range(0, 1024, 32)], 32),
        (8, [range(0, 512, 16)], 32),
        (16, [range(0, 256, 8)], 32),
        # Of 16 threads two meet at bank 0 with different places, the other half does not.
        (8, [[0, 16, *range(2, 16), *range(16, 32)]], 3),
        # Three places of bank 0 in the first quarter, one of them twice.
        (16, [[0, 8, 16, 16, 1, 2, 3, 4, *range(24)]], 6),
        (4, [list(range(32)), [0, 32, *range(2, 32)]], 3),
    ],
)
def test_conflicts_as_counted_by_hand(width: int, places: list[list[int]], reads: int) -> None:
    found = conflicts(np.array([list(row) for row in places]), width)
    assert found == Conflicts(reads, len(places) * 32 // {4: 32, 8: 16, 16: 8}[width])


def rows_of(density: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return where unstructured rows start, their first threads, places, and K."""
    mask = np.random.default_rng(0).random((ROWS, HIDDEN)) < density
    counts = mask.sum(1)
    depth = next(depth for depth in range(1, HIDDEN) if (-(-counts // depth)).sum() <= THREADS)
    needed = -(-counts // depth)
    return np.r_[0, np.cumsum(counts)], np.r_[0, np.cumsum(needed)], np.nonzero(mask)[1], depth


@pytest.mark.parametrize(
    ("width", "density", "before", "after"),
    [(8, 0.3, 2.4, 1.27), (16, 0.3, 2.2, 1.14), (4, 0.3, 2.8, 1.27), (8, 0.1, 2.4, 1.27), (16, 0.1, 2.2, 1.2)],
)
def test_greedy_order_removes_conflicts(width: int, density: float, before: float, after: float) -> None:
    starts, begins, places, depth = rows_of(density)
    factors = {}
    for order in ("sorted", "greedy"):
        slots = arrange(order, starts, begins, places, THREADS, depth, 128 // width)
        assert sorted(slots[slots >= 0]) == list(range(len(places)))
        owners = np.repeat(np.arange(ROWS), np.diff(begins))
        threads, _ = np.nonzero(slots >= 0)
        np.testing.assert_array_equal(owners[threads], np.searchsorted(starts, slots[slots >= 0], "right") - 1)
        looked_up = np.where(slots >= 0, places[slots], HIDDEN - 1 - slots)
        factors[order] = conflicts(looked_up.T, width).factor
    assert factors["sorted"] > before
    assert factors["greedy"] < after


@pytest.mark.parametrize("banks", [8, 16, 32])
@pytest.mark.parametrize("depth", [5, 37, 103])
def test_constructive_order_has_no_conflicts(banks: int, depth: int) -> None:
    rng, rounds = np.random.default_rng(1), 3
    counts = np.array([rounds * banks, 2 * rounds * banks, banks])
    places = np.concatenate(
        [np.concatenate([rng.choice(64, n // banks, False) * banks + b for b in range(banks)]) for n in counts]
    )
    begins = np.r_[0, np.cumsum(-(-counts // depth))]
    threads = int(-(-begins[-1] // 32) * 32)
    slots = arrange("constructive", np.r_[0, np.cumsum(counts)], begins, places, threads, depth, banks)
    assert sorted(slots[slots >= 0]) == list(range(len(places)))
    zeros = banks * 64
    found = conflicts(np.where(slots >= 0, places[slots], zeros - 1 - slots).T, 128 // banks)
    assert found.factor == 1
