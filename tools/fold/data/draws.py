"""Random numbers as a function of what they are for: no state, so that any sample can be made again by itself.

A key is mixed from seed, step, place and purpose; its stream is that of SplitMix64 (Steele, Lea and Flood 2014) started
at the key, of which any element can be had at once.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_GAMMA, _A, _B = np.uint64(_GOLDEN), np.uint64(_FIRST), np.uint64(_SECOND)
_27, _30, _31, _11, _1 = (np.uint64(bits) for bits in (27, 30, 31, 11, 1))
_UNIT = 2.0**-53


class Purpose(IntEnum):
    """What a stream is drawn from it for."""

    RECYCLES = 0
    CLAMPED = 1
    CROP = 2
    TEMPLATE_COUNT = 3
    TEMPLATE_ORDER = 4
    BLOCKS = 5
    ORDER = 6
    MASK = 7
    REPLACEMENT = 8
    UNKNOWN_ROWS = 9
    UNKNOWN_RESIDUES = 10


def key_of(*parts: int) -> np.uint64:
    """Return the key of the stream of these whole numbers, such as seed, step, place and purpose."""
    key = 0
    for part in parts:
        key = mixed(mixed(key + _GOLDEN) ^ part)
    return np.uint64(key)


def mixed(bits: int) -> int:
    """Return 64 bits of which each depends on all of the 64 lowest bits given: the plain form of `mix`."""
    bits &= 2**64 - 1
    bits = (bits ^ (bits >> 30)) * _FIRST % 2**64
    bits = (bits ^ (bits >> 27)) * _SECOND % 2**64
    return bits ^ (bits >> 31)


@njit(nogil=True, cache=True, error_model="numpy")
def mix(bits: np.uint64) -> np.uint64:
    """Return 64 bits of which each depends on all of those given."""
    bits = (bits ^ (bits >> _30)) * _A
    bits = (bits ^ (bits >> _27)) * _B
    return bits ^ (bits >> _31)


@njit(nogil=True, cache=True, error_model="numpy")
def uniform(key: np.uint64, counter: int) -> float:
    """Return the number of a stream at a counter, from 0 to below 1, in steps of 2**-53."""
    bits = mix(key + _GAMMA * (np.uint64(counter) + _1))
    return np.float64(bits >> _11) * _UNIT


@njit(nogil=True, cache=True, error_model="numpy")
def below(key: np.uint64, counter: int, count: int) -> int:
    """Return a whole number from 0 to below a count of at most 2**31; those differ in chance by less than 2**-22."""
    return int(uniform(key, counter) * count)


@njit(nogil=True, cache=True, error_model="numpy")
def shuffled(key: np.uint64, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return items (n,) in random order (Fisher and Yates)."""
    out = items.copy()
    for i in range(len(out) - 1, 0, -1):
        j = below(key, i, i + 1)
        out[i], out[j] = out[j], out[i]
    return out
