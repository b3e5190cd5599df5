"""Time two functions against each other, call by call in turn, so that drift of the machine hits both alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns
from typing import Any

Call = Callable[[], object]

LEAST_ROUNDS = 5
"""Rounds that are timed even when they exceed the budget."""

_WARM_UP_SHARE = 0.2


@dataclass(frozen=True)
class Timing:
    """The time of one call in microseconds."""

    minimum: float
    median: float

    def as_json(self) -> dict[str, float]:
        """Return the pair as the JSON contracts spell it."""
        return {"min": round(self.minimum, 3), "median": round(self.median, 3)}


@dataclass(frozen=True)
class Race:
    """Two timings taken in turn; a ratio above 1 means that `a` is faster."""

    a: Timing
    b: Timing
    rounds: int

    @property
    def ratio_min(self) -> float:
        """Return the minimum of b over the minimum of a."""
        return self.b.minimum / self.a.minimum

    @property
    def ratio_median(self) -> float:
        """Return the median of b over the median of a."""
        return self.b.median / self.a.median

    def as_json(self) -> dict[str, Any]:
        """Return the bench document."""
        return {
            "schema": 1,
            "a_us": self.a.as_json(),
            "b_us": self.b.as_json(),
            "ratio_min": round(self.ratio_min, 4),
            "ratio_median": round(self.ratio_median, 4),
        }


def race(a: Call, b: Call, seconds: float) -> Race:
    """Time `a` and `b` in turn for about `seconds`, warm-up included; the order within a round alternates."""
    started = perf_counter_ns()
    budget = int(seconds * 1e9)
    _warm_up(a, b, started + int(budget * _WARM_UP_SHARE))
    times_a: list[int] = []
    times_b: list[int] = []
    while len(times_a) < LEAST_ROUNDS or perf_counter_ns() - started < budget:
        if len(times_a) % 2 == 0:
            times_a.append(_time(a))
            times_b.append(_time(b))
        else:
            times_b.append(_time(b))
            times_a.append(_time(a))
    return Race(_summary(times_a), _summary(times_b), len(times_a))


def _warm_up(a: Call, b: Call, until: int) -> None:
    a()
    b()
    while perf_counter_ns() < until:
        a()
        b()


def _time(call: Call) -> int:
    started = perf_counter_ns()
    call()
    # A clock tick is the least that a call can take; ratios stay finite.
    return max(1, perf_counter_ns() - started)


def _summary(nanoseconds: list[int]) -> Timing:
    return Timing(min(nanoseconds) / 1e3, median(nanoseconds) / 1e3)
