"""Whatever is removed from the networks of the zoo, what is left computes what it would with the rest at zero."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kits import prune_kit as kit
from tests.kits.zoo import ZOO, exported, feed

UNKNOWN = {"vit_fused"}
"""Networks some of whose shapes no inference of ours finds (Expand to a computed target): there nothing is counted."""


@pytest.mark.parametrize("name", sorted(set(ZOO) - UNKNOWN))
def test_networks(name: str) -> None:
    """All channels, one of each unit, and two random numbers of them."""
    network = kit.Network(kit.read(exported(name, dynamic_batch=True)))
    inputs = feed(name, 2, seed=0)
    rng = np.random.default_rng(0)
    random = [[int(rng.integers(1, size + 1)) for size in network.full] for _ in range(2)]
    for counts in (network.full, [1] * len(network.units), *random):
        kit.check(network, counts, 0, inputs)


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_unknown_shapes_keep_channels(name: str) -> None:
    """What can't be followed is kept, without a failure."""
    assert kit.Network(kit.read(exported(name, dynamic_batch=True))).units == ()
