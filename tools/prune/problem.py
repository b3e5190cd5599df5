"""The search problem: how many classes of each unit stay within a budget; and walks through it, unit by unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sartor.tools.prune.allocate import Cost, choices_of
from sartor.tools.prune.features import DYNAMIC, static_features

Counts = NDArray[np.int64]
"""The classes that stay of each unit, (units,)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Units with their sizes, least counts and steps, facts for features, residual curves, costs, and the budget.

    `curves[u][k]` is the share of what the readers of unit u compute that is lost when k of its classes stay, refitted.
    """

    names: tuple[str, ...]
    sizes: Counts
    least: Counts
    steps: Counts
    curves: tuple[Floats, ...]
    facts: Floats
    costs: Cost
    """What the budget is counted in."""

    budget: float

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.sizes)

    @cached_property
    def choices(self) -> tuple[Counts, ...]:
        """The counts that each unit may have: multiples of its step from the least on, and all."""
        each = zip(self.sizes.tolist(), self.steps.tolist(), self.least.tolist(), strict=True)
        return tuple(choices_of(*one) for one in each)

    def nearest(self, ratios: Floats) -> Counts:
        """Return the choices nearest to ratios (..., units)."""
        counts = np.rint(ratios * self.sizes / self.steps) * self.steps
        return np.asarray(np.clip(counts, self.least, self.sizes), np.int64)


Policy = Callable[[NDArray[np.float32]], Floats]
"""From states of walks (times, features) to actions in [-1, 1], (times,)."""


@dataclass(frozen=True)
class Walk:
    """One decision a unit: states (units + 1, features), actions (units,) as executed, and the counts."""

    states: NDArray[np.float32]
    actions: Floats
    counts: Counts


class Walker:
    """Walks through a problem: an action moves the ratio of a unit away from that of a base, the wall cuts it.

    The wall (AMC, algorithm 1): a unit gets no more than what leaves the least counts of all later ones within the
    budget. The executed action is stored, so that an agent learns from what was done.
    """

    def __init__(self, problem: Problem, base: Counts, reach: float = 0.5) -> None:
        self.problem = problem
        self.base = base / problem.sizes
        self.reach = reach
        self.static = static_features(problem)
        self.whole = problem.costs.total(problem.sizes)
        self.share = np.array([self.whole - problem.costs.total(self._without(u)) for u in range(problem.units)])

    @property
    def features(self) -> int:
        """The size of a state."""
        return int(self.static.shape[1]) + DYNAMIC

    def _without(self, unit: int) -> Counts:
        counts = self.problem.sizes.copy()
        counts[unit] = self.problem.least[unit]
        return counts

    def walk(self, policy: Policy, times: int = 1) -> list[Walk]:
        """Decide about all units in order, so many times side by side."""
        problem = self.problem
        counts = np.tile(problem.least, (times, 1))
        states = np.zeros((times, problem.units + 1, self.features), np.float32)
        actions = np.zeros((times, problem.units))
        before = np.ones(times)
        for unit in range(problem.units):
            states[:, unit] = self._states(unit, counts, before)
            wall = problem.costs.walls(counts, unit, problem.choices[unit], problem.budget)
            ratios = np.tile(self.base, (times, 1))
            ratios[:, unit] += self.reach * policy(states[:, unit])
            counts[:, unit] = np.minimum(problem.nearest(ratios)[:, unit], wall)
            before = counts[:, unit] / problem.sizes[unit]
            actions[:, unit] = np.clip((before - self.base[unit]) / self.reach, -1, 1)
        return [Walk(*one) for one in zip(states, actions, counts, strict=True)]

    def retrace(self, counts: Counts) -> Walk:
        """Return the walk that leads to counts."""
        wanted = iter((counts / self.problem.sizes - self.base) / self.reach)
        return self.walk(lambda _: np.array([next(wanted)]))[0]

    def _states(self, unit: int, counts: Counts, before: Floats) -> NDArray[np.float32]:
        target = self.problem.budget / self.whole
        rest = float(self.share[unit + 1 :].sum() / self.whole)
        left = target - self.problem.costs.totals(counts) / self.whole
        moving = [before, target, left, rest, self.base[unit]]
        changing = np.column_stack([np.broadcast_to(number, len(counts)) for number in moving])
        return np.column_stack([np.tile(self.static[unit], (len(counts), 1)), changing]).astype(np.float32)
