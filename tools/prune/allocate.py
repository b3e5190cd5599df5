"""How many classes each unit keeps under a budget, from what each loses by its curve: the prior of the search.

From full width take the step, about a sixteenth of a unit's classes, with the least rise of the sum of residuals for
each bit of cost saved, until the budget is met; then fill back, choice by choice, what still fits. No evaluation of the
network is needed, and no unit can be wider by one choice at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from sartor.share.errors import UsageError
from sartor.tools.prune.kernels.resources import (
    NodeCost,
    ResourceModel,
    costs_of_units,
    resource_model,
    totals,
    walls,
)  # fmt: skip
from sartor.tools.prune.kernels.window import Array

STEPS = 16
"""Steps from the full width of a unit to nothing."""


@dataclass(frozen=True)
class Cost:
    """What a network costs as a function of counts: multiply-adds, parameters, or microseconds.

    `nodes` say what it is a sum of, `model` is the same in arrays, and `neighbours[u]` are the units that have a part
    in a node of unit u.
    """

    nodes: tuple[NodeCost, ...]
    model: ResourceModel
    neighbours: tuple[Array, ...]

    def total(self, counts: Array) -> float:
        """Return the cost at counts [U]."""
        return float(totals(self.model, counts[None])[0])

    def totals(self, counts: Array) -> Array:
        """Return the costs [B] at counts [B, U]."""
        return totals(self.model, counts)

    def walls(self, counts: Array, unit: int, choices: Array, budget: float) -> Array:
        """Return the largest of ascending choices [B] of a unit within a budget, or the first, at counts [B, U]."""
        return walls(self.model, counts, unit, choices, budget)

    def of_units(self, counts: Array, units: Array, values: Array) -> Array:
        """Return the costs [m] of the nodes of units."""
        return costs_of_units(self.model, counts, units, values)

    def touched(self, unit: int) -> Array:
        """Return the units that share a node with this one."""
        return self.neighbours[unit]


def cost_of(nodes: Sequence[NodeCost], units: int) -> Cost:
    """Lay nodes out in arrays, and find the neighbours of every unit."""
    model, found = resource_model(nodes, units), []
    for unit in range(units):
        parts = [nodes[v] for v in model.unit_nodes[model.unit_start[unit] : model.unit_start[unit + 1]]]
        near = {other for node in parts for axis in node.axes for other, _ in axis.terms}
        found.append(np.array(sorted(near | {unit}), np.int64))
    return Cost(tuple(nodes), model, tuple(found))


@dataclass(frozen=True)
class Unit:
    """Classes that are counted together: curve [n + 1] is what is lost at each count, choices ascend to n.

    A count that costs more than a larger one is better left out of the choices.
    """

    curve: Array
    choices: Array


def choices_of(classes: int, multiple: int, least: int) -> Array:
    """List the counts from `least` up that are multiples, and the full width."""
    counts = np.arange(multiple, classes, multiple)
    return np.append(counts[counts >= least], classes)


def allocate(units: Sequence[Unit], cost: Cost, budget: float) -> Array:
    """Choose counts [U] within a budget; raises UsageError where even the first choices exceed it."""
    ladder = _ladder(units)
    least = cost.total(ladder.counts[ladder.first])
    if least > budget:
        raise UsageError(f"the least that can be kept costs {least:g}, more than the budget of {budget:g}")
    return ladder.counts[_widen(ladder, cost, budget, _narrow(ladder, cost, budget))]


@dataclass(frozen=True)
class _Ladder:
    """The choices of all units in a row, those of unit u from first[u] to last[u]; down[i] is one step below."""

    counts: Array
    losses: Array
    down: Array
    first: Array
    last: Array


def _ladder(units: Sequence[Unit]) -> _Ladder:
    ends = np.array(list(accumulate(len(unit.choices) for unit in units)), np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    down = []
    for start, unit in zip(starts, units, strict=True):
        below = unit.choices - max(int(unit.choices[-1]) // STEPS, 1)
        down.append(start + np.maximum(np.searchsorted(unit.choices, below, "right") - 1, 0))
    counts = np.concatenate([unit.choices for unit in units]).astype(np.int64)
    losses = np.concatenate([unit.curve[unit.choices] for unit in units])
    return _Ladder(counts, losses, np.concatenate(down), starts, ends - 1)


_TINY = 1e-300


def _narrow(ladder: _Ladder, cost: Cost, budget: float) -> Array:
    """Take the steps of least rise for what they save; return the place on the ladder [U] of each unit."""
    places = ladder.last.copy()
    below, scores = places.copy(), np.full(len(places), np.inf)
    stale = np.arange(len(places))
    while cost.total(ladder.counts[places]) > budget:
        below[stale], savings = _steps(ladder, cost, places, stale)
        rises = ladder.losses[below[stale]] - ladder.losses[places[stale]]
        # A step that saves nothing is taken after all others.
        scores[stale] = np.where(below[stale] < places[stale], rises / np.maximum(savings, _TINY), np.inf)
        chosen = int(np.argmin(scores))
        places[chosen] = below[chosen]
        stale = cost.touched(chosen)
    return places


def _steps(ladder: _Ladder, cost: Cost, places: Array, units: Array) -> tuple[Array, Array]:
    """Find the next place below of units, further below where that saves nothing, and what it saves."""
    counts = ladder.counts[places]
    now = cost.of_units(counts, units, counts[units])
    below = ladder.down[places[units]]
    savings = now - cost.of_units(counts, units, ladder.counts[below])
    while np.any(flat := (savings <= 0) & (below > ladder.first[units])):
        below[flat] = ladder.down[below[flat]]
        savings[flat] = now[flat] - cost.of_units(counts, units[flat], ladder.counts[below[flat]])
    return below, savings


def _widen(ladder: _Ladder, cost: Cost, budget: float, places: Array) -> Array:
    """Take the choice up of largest drop for what it costs, as long as one fits."""
    units = np.arange(len(places))
    while True:
        counts, above = ladder.counts[places], np.minimum(places + 1, ladder.last)
        growth = cost.of_units(counts, units, ladder.counts[above]) - cost.of_units(counts, units, counts)
        fits = (above > places) & (cost.total(counts) + growth <= budget)
        if not fits.any():
            return places
        drops = (ladder.losses[places] - ladder.losses[above]) / np.maximum(growth, _TINY)
        places[np.argmax(np.where(fits, drops, -1.0))] += 1
