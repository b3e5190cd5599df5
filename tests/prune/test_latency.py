"""Latency as a sum of products, and the correction of its budget."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tests.kits import prune_kit as kit
from tests.prune.test_network import X, network_of, two_layers

from sartor.tools.prune import latency
from sartor.tools.prune.allocate import cost_of
from sartor.tools.prune.latency import corrected, latency_nodes


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "grouped", "Gemm", "MatMul"])
def test_it_adds_up_to_the_whole_and_falls_with_counts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(two_layers(kind, biased=True))
    whole = 5000.0
    monkeypatch.setattr(latency, "_time_alone", lambda point: float(np.prod(point.shapes[1])) ** 0.9)
    monkeypatch.setattr(latency, "_least", lambda _: whole)
    cost = cost_of(latency_nodes(network, {"x": X}, 0), len(network.units))
    full = np.array([len(unit.classes) for unit in network.units])
    assert cost.total(full) == pytest.approx(whole)
    totals = [cost.total(np.array([count])) for count in range(1, full[0] + 1)]
    assert all(np.diff(totals) > 0)
    assert all(node.coefficient > 0 for node in cost.nodes)


@pytest.mark.parametrize("seed", range(6))
def test_layers_of_random_networks_are_timed(seed: int) -> None:
    """Depthwise and grouped layers, products of activations, whatever is there, at all sizes that they can have."""
    network = network_of(kit.random_network(seed, 8))
    if network.units:
        cost = cost_of(latency_nodes(network, {"x": X}, seed), len(network.units))
        full = np.array([len(unit.classes) for unit in network.units])
        assert 0 < cost.total(np.ones_like(full)) <= cost.total(full)


def test_a_layer_is_timed_once_at_equal_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(two_layers("Conv", biased=True))
    timed = []
    monkeypatch.setattr(latency, "_time_alone", lambda point: timed.append(point.key) or 1.0)
    latency_nodes(network, {"x": X}, 0)
    assert len(timed) == len(set(timed))


@pytest.mark.parametrize("power", [0.8, 1.0, 1.3])
@pytest.mark.parametrize(("asked", "overhead"), [(0.5, 0.1), (0.7, 0.0), (0.8, 0.3)])
def test_a_budget_is_corrected_by_what_the_whole_takes(
    asked: float, overhead: float, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole takes an overhead that nobody knew of, and grows otherwise than its layers alone."""

    def bent(share: float) -> float:
        return float((1 - overhead) * share**power)

    network = network_of(two_layers("Conv", biased=True))
    shares: list[float] = []

    def allocate(share: float) -> np.ndarray:
        shares.append(share)
        return np.array([6])

    monkeypatch.setattr(latency, "race", lambda *_: SimpleNamespace(ratio_min=1 / (overhead + bent(shares[-1]))))
    found = corrected(network, {"x": X}, asked, allocate)
    assert asked * 0.93 <= overhead + bent(found) <= asked
    assert shares[0] == asked
