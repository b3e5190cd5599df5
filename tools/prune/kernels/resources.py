"""What a network costs as a function of how many classes its units keep: MACs, parameters, bytes.

Every node costs a coefficient times a product of axis counts, and each axis counts a constant plus so many channels
for each kept class of some units: `cost(k) = sum_v coef_v prod_a (const_a + sum_u mult_au k_u)`. This holds for Conv
(output positions x taps, times input channels, times output channels), depthwise and grouped ones, products of two
activations, and all parameters; a unit may stand in several axes of a node. Virtual rollouts evaluate thousands of
vectors of counts at a time; after a change of one unit only the nodes of that unit are evaluated.

Letters: B vectors of counts, U units, V nodes, F axes (factors), T terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from sartor.tools.prune.kernels.window import Array


@dataclass(frozen=True)
class AxisCount:
    """How long an axis is: `const` plus `k_u` times a multiple for each pair (unit, multiple) of terms."""

    const: int = 0
    terms: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class NodeCost:
    """What a node costs: a coefficient times the product of some axes."""

    coefficient: float
    axes: tuple[AxisCount, ...]


class ResourceModel(NamedTuple):
    """Nodes, axes and terms as arrays: node v has axes `axis_start[v]:axis_start[v + 1]`, likewise an axis its terms.

    The nodes that unit u has a part in are `unit_nodes[unit_start[u]:unit_start[u + 1]]`. It is a tuple for numba.
    """

    coefficient: Array
    axis_start: Array
    const: Array
    term_start: Array
    term_unit: Array
    term_multiple: Array
    unit_start: Array
    unit_nodes: Array


def resource_model(nodes: Sequence[NodeCost], units: int) -> ResourceModel:
    """Lay nodes out in arrays for a number of units."""
    axes = [axis for node in nodes for axis in node.axes]
    terms = [term for axis in axes for term in axis.terms]
    nodes_of: list[list[int]] = [[] for _ in range(units)]
    for v, node in enumerate(nodes):
        for unit in sorted({unit for axis in node.axes for unit, _ in axis.terms}):
            nodes_of[unit].append(v)
    return ResourceModel(
        np.array([node.coefficient for node in nodes], np.float64),
        _starts([len(node.axes) for node in nodes]),
        np.array([axis.const for axis in axes], np.float64),
        _starts([len(axis.terms) for axis in axes]),
        np.array([unit for unit, _ in terms], np.int64),
        np.array([multiple for _, multiple in terms], np.float64),
        _starts([len(part) for part in nodes_of]),
        np.array([node for part in nodes_of for node in part], np.int64),
    )


def _starts(lengths: Sequence[int]) -> Array:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def totals(model: ResourceModel, counts: Array) -> Array:
    """Evaluate the cost [B] of vectors of counts [B, U]."""
    found = np.zeros(len(counts))
    _totals(model, np.ascontiguousarray(counts.T, np.float64), found)
    return found


def totals_reference(model: ResourceModel, counts: Array) -> Array:
    """Evaluate the cost [B] of vectors of counts [B, U] as the definition has it."""
    found = np.zeros(len(counts))
    for v, coefficient in enumerate(model.coefficient):
        product = np.full(len(counts), coefficient)
        for a in range(model.axis_start[v], model.axis_start[v + 1]):
            terms = slice(model.term_start[a], model.term_start[a + 1])
            product *= model.const[a] + counts[:, model.term_unit[terms]] @ model.term_multiple[terms]
        found += product
    return found


def costs_of_units(model: ResourceModel, counts: Array, units: Array, values: Array) -> Array:
    """Evaluate the cost [m] of the nodes of unit `units[i]` if it kept `values[i]`, the others `counts` [U].

    The difference between two values of one unit is the difference of the total.
    """
    found = np.empty(len(units))
    _costs_of_units(model, np.array(counts, np.float64), units, values, found)
    return found


def walls(model: ResourceModel, counts: Array, unit: int, choices: Array, budget: float) -> Array:
    """Find the largest count [B] of a unit, out of ascending choices, whose total keeps within a budget.

    Counts [B, U] hold those decided so far and the least that the others may keep (the resource wall: He et al. 2018,
    AMC, section 3.2). Where even the first choice exceeds the budget, it is the answer.
    """
    work = np.array(counts, np.float64)
    room = budget - totals(model, counts)
    found = np.empty(len(counts), np.int64)
    _walls(model, work, room, unit, choices, found)
    return found


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _totals(model: ResourceModel, counts_UB: Array, found: Array) -> None:
    axis, product = np.empty(len(found)), np.empty(len(found))
    for v in range(len(model.coefficient)):
        product[:] = model.coefficient[v]
        for a in range(model.axis_start[v], model.axis_start[v + 1]):
            axis[:] = model.const[a]
            for t in range(model.term_start[a], model.term_start[a + 1]):
                multiple, kept = model.term_multiple[t], counts_UB[model.term_unit[t]]
                for b in range(len(found)):
                    axis[b] += multiple * kept[b]
            for b in range(len(found)):
                product[b] *= axis[b]
        for b in range(len(found)):
            found[b] += product[b]


@njit(cache=True, error_model="numpy")
def _cost_of_unit(model: ResourceModel, counts: Array, unit: int) -> float:
    total = 0.0
    for i in range(model.unit_start[unit], model.unit_start[unit + 1]):
        v = model.unit_nodes[i]
        product = model.coefficient[v]
        for a in range(model.axis_start[v], model.axis_start[v + 1]):
            axis = model.const[a]
            for t in range(model.term_start[a], model.term_start[a + 1]):
                axis += model.term_multiple[t] * counts[model.term_unit[t]]
            product *= axis
        total += product
    return total


@njit(cache=True, error_model="numpy")
def _costs_of_units(model: ResourceModel, counts: Array, units: Array, values: Array, found: Array) -> None:
    for i in range(len(units)):
        kept = counts[units[i]]
        counts[units[i]] = values[i]
        found[i] = _cost_of_unit(model, counts, units[i])
        counts[units[i]] = kept


@njit(cache=True, error_model="numpy")
def _walls(model: ResourceModel, counts: Array, room: Array, unit: int, choices: Array, found: Array) -> None:
    for b in range(len(counts)):
        most = _cost_of_unit(model, counts[b], unit) + room[b]
        low, high = 0, len(choices)
        while high - low > 1:
            middle = (low + high) // 2
            counts[b, unit] = choices[middle]
            if _cost_of_unit(model, counts[b], unit) <= most:
                low = middle
            else:
                high = middle
        found[b] = choices[low]
