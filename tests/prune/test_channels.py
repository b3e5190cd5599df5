"""Channels are found and removed so that what is left computes what it would with the rest set to nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kits import prune_kit as kit


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14))
def test_random_networks(seed: int, steps: int) -> None:
    """Compacted equals masked, MACs and parameters are as predicted, whatever is removed."""
    network = kit.Network(kit.read(kit.random_network(seed, steps)))
    rng = np.random.default_rng(seed)
    feed = kit.random_feed(network.model, seed)
    for counts in (network.full, [1] * len(network.units), [int(rng.integers(1, n + 1)) for n in network.full]):
        kit.check(network, counts, seed, feed)
