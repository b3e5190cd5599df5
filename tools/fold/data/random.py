"""Random numbers that are a function of what they are for: no state, so that any sample can be made again, alone.

A key is mixed from seed, step and so on by SplitMix64 (Steele, Lea and Flood 2014), whose outputs at consecutive
counters are the stream of a key.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

CROP, CLAMP, TEMPLATES, RECYCLES, DELETION, ORDER, MASK, KIND, UNKNOWN = range(9)
"""What a stream is for."""


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def mix(bits: np.uint64) -> np.uint64:
    """Return 64 bits of which each depends on all of those given."""
    bits = (bits ^ (bits >> np.uint64(30))) * _A
    bits = (bits ^ (bits >> np.uint64(27))) * _B
    return bits ^ (bits >> np.uint64(31))


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def uniform(key: np.uint64, counter: int) -> float:
    """Return the number of a stream at a counter, from 0 to below 1, with 53 bits."""
    bits = mix(key + GOLDEN * np.uint64(counter + 1))
    return np.float64(bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def below(key: np.uint64, counter: int, count: int) -> int:
    """Return a whole number from 0 to below `count`."""
    return min(int(uniform(key, counter) * count), count - 1)


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def shuffled(key: np.uint64, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return items in random order (Fisher and Yates)."""
    out = items.copy()
    for i in range(len(out) - 1, 0, -1):
        j = below(key, i, i + 1)
        out[i], out[j] = out[j], out[i]
    return out


def key_of(*parts: int) -> np.uint64:
    """Return the key of a stream for whole numbers, such as seed, step, place, iteration and purpose."""
    with np.errstate(over="ignore"):
        key = np.uint64(0)
        for part in parts:
            key = np.uint64(mix(key * GOLDEN + np.uint64(part % 2**64) + np.uint64(1)))
    return key
