"""Costs of counts, of one unit, and the resource wall against the definition."""

from __future__ import annotations

import platform
import re

import numpy as np
import pytest
from tests.kits.numba_kit import assembly

from sartor.tools.prune.kernels import resources as module
from sartor.tools.prune.kernels.resources import (
    AxisCount,
    NodeCost,
    ResourceModel,
    costs_of_units,
    resource_model,
    totals,
    totals_reference,
    walls,
)  # fmt: skip


def random_nodes(units: int, nodes: int, seed: int = 0) -> list[NodeCost]:
    """Draw nodes of one to three axes of none to three units each; the same unit may stand in several."""
    rng = np.random.default_rng(seed)

    def axis() -> AxisCount:
        drawn = rng.choice(units, min(units, int(rng.integers(0, 4))), replace=False)
        terms = tuple((int(unit), int(rng.integers(1, 9))) for unit in drawn)
        return AxisCount(int(rng.integers(0, 3)) or int(not terms), terms)

    return [
        NodeCost(float(rng.integers(1, 1000)), tuple(axis() for _ in range(rng.integers(1, 4)))) for _ in range(nodes)
    ]


def random_model(units: int, nodes: int, seed: int = 0) -> ResourceModel:
    """Lay random nodes out."""
    return resource_model(random_nodes(units, nodes, seed), units)


@pytest.mark.parametrize("batch", [0, 1, 15, 16, 17, 63, 1000])
@pytest.mark.parametrize(("units", "nodes"), [(1, 1), (7, 20), (63, 150)])
def test_totals(units: int, nodes: int, batch: int) -> None:
    model = random_model(units, nodes)
    counts = np.random.default_rng(1).integers(0, 100, (batch, units))
    np.testing.assert_allclose(totals(model, counts), totals_reference(model, counts), rtol=1e-13)


def test_totals_of_a_small_network_by_hand() -> None:
    """A 3 x 3 Conv 3 -> a at 100 positions, one of a and twice b -> b, a depthwise one of b, and a Gemm b -> 10."""
    a, b, both = AxisCount(0, ((0, 1),)), AxisCount(0, ((1, 1),)), AxisCount(0, ((0, 1), (1, 2)))
    nodes = [
        NodeCost(900, (AxisCount(3), a)),
        NodeCost(100, (both, b)),
        NodeCost(900, (b,)),
        NodeCost(1, (AxisCount(0, ((1, 49),)), AxisCount(10))),
    ]
    model = resource_model(nodes, 2)
    expected = 900 * 3 * 8 + 100 * (8 + 2 * 5) * 5 + 900 * 5 + 49 * 5 * 10
    assert totals(model, np.array([[8, 5]])).tolist() == [expected]


def test_costs_of_units_differ_as_totals_do() -> None:
    model = random_model(20, 60)
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 50, 20)
    units, values = rng.integers(0, 20, 200), rng.integers(0, 50, 200)
    changed = np.tile(counts, (200, 1))
    changed[np.arange(200), units] = values
    found = costs_of_units(model, counts, units, values) - costs_of_units(model, counts, units, counts[units])
    expected = totals_reference(model, changed) - totals_reference(model, counts[None])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("step", [1, 8])
def test_walls(step: int) -> None:
    """The wall is the largest choice that fits, found by trying all of them."""
    model = random_model(12, 40)
    rng = np.random.default_rng(3)
    choices = np.arange(step, 65, step)
    counts = np.concatenate([rng.integers(1, 64, (50, 5)), np.full((50, 7), step)], axis=1)
    budget = float(np.median(totals_reference(model, counts))) * 1.2
    found = walls(model, counts, 5, choices, budget)
    for row, chosen in zip(counts, found, strict=True):
        tried = np.tile(row, (len(choices), 1))
        tried[:, 5] = choices
        fits = totals_reference(model, tried) <= budget
        assert chosen == (choices[fits][-1] if fits.any() else choices[0])
    assert len(set(found.tolist())) > 3


def test_a_unit_without_nodes_costs_nothing() -> None:
    model = resource_model([NodeCost(2, (AxisCount(0, ((0, 1),)),))], 2)
    counts = np.array([[3, 7]])
    assert costs_of_units(model, counts[0], np.array([1]), np.array([5])).tolist() == [0]
    assert walls(model, counts, 1, np.array([1, 2, 9]), 6.0).tolist() == [9]
    assert walls(model, counts, 1, np.array([1, 2, 9]), 5.0).tolist() == [1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of registers")
def test_vectors_are_evaluated_side_by_side() -> None:
    totals(random_model(3, 3), np.ones((20, 3)))
    codes = assembly(module._totals)
    assert codes
    assert all(re.search(r"v(mul|add|fmadd\w+)pd.*[yz]mm", code) for code in codes)
