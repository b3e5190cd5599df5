"""Whatever is removed from the networks of the zoo, what is left computes what it would with the rest at zero."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kits import prune_kit as kit
from tests.kits.zoo import ZOO, exported, feed

OPSETS = (9, 11, 13, 17, 18, 20)
FEW = ("resnet_basic", "mobilenet_v3", "shufflenet_v1", "vit_fused", "unet")


def check(name: str, model: bytes) -> int:
    """Check all channels, one of each unit, and two random numbers of them; return the number of units."""
    inputs = feed(name, 2, seed=0)
    network = kit.Network(kit.read(model), samples=inputs)
    rng = np.random.default_rng(0)
    random = [[int(rng.integers(1, size + 1)) for size in network.full] for _ in range(2)]
    for counts in (network.full, [1] * len(network.units), *random):
        kit.check(network, counts, 0, inputs)
    return len(network.units)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_networks(name: str) -> None:
    check(name, exported(name, dynamic_batch=True))


VARIANTS = [
    pytest.param(name, opset, fold, marks=() if name in FEW and opset in (9, 13, 20) else pytest.mark.slow)
    for name, entry in sorted(ZOO.items())
    for opset in OPSETS
    for fold in (True, False)
    if opset >= entry.oldest
]


def test_few_are_networks_of_the_zoo() -> None:
    assert set(FEW) <= set(ZOO)


@pytest.mark.parametrize(("name", "opset", "fold"), VARIANTS)
def test_opsets_and_kept_normalisations(name: str, opset: int, fold: bool) -> None:
    """However old the opset is, and with normalisations kept, channels are found and go."""
    units = check(name, exported(name, opset, fold, dynamic_batch=True))
    assert units >= len(kit.Network(kit.read(exported(name, dynamic_batch=True))).units) // 2
