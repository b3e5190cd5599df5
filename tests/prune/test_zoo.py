"""Whatever is removed from the networks of the zoo, what is left computes what it would with the rest at zero."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kits import prune_kit as kit
from tests.kits.zoo import ZOO, exported, feed


@pytest.mark.parametrize("name", sorted(ZOO))
def test_networks(name: str) -> None:
    """All channels, one of each unit, and two random numbers of them."""
    network = kit.Network(kit.read(exported(name, dynamic_batch=True)))
    inputs = feed(name, 2, seed=0)
    rng = np.random.default_rng(0)
    random = [[int(rng.integers(1, size + 1)) for size in network.full] for _ in range(2)]
    for counts in (network.full, [1] * len(network.units), *random):
        kit.check(network, counts, 0, inputs)
