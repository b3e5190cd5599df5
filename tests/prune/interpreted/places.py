"""A network that is calibrated by torch and Triton is the one that onnxruntime and numpy calibrate."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kits import prune_kit as kit
from tests.prune.test_network import X, two_layers

from sartor.share.data import Split
from sartor.tools.prune.again import refit_again
from sartor.tools.prune.calibrate import calibrate
from sartor.tools.prune.evaluate import Runner
from sartor.tools.prune.network import Network
from sartor.tools.prune.places import Graphics, Place, Processor

SPLIT = Split({"x": X[:16]}, {})


def network_at(place: Place, kind: str) -> Network:
    """Calibrate a network of two layers."""
    base = kit.Network(kit.read(two_layers(kind, biased=True)))
    return Network(base.model, base.found, base.units, calibrate(base.model, base.found, SPLIT, place), place)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "grouped", "Gemm", "MatMul"])
def test_both_places_agree(kind: str) -> None:
    networks = [network_at(place, kind) for place in (Processor(1), Graphics("cpu"))]
    for ours, theirs in zip(*(network.curves for network in networks), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    outputs = []
    for network in networks:
        small = network.pruned(np.array([6]))
        refit_again(network, np.array([6]), small, SPLIT, network.place)
        outputs.append(Runner(small).outputs(SPLIT.inputs)["y"])
    np.testing.assert_allclose(*outputs, atol=2e-3 * np.abs(outputs[0]).max())


def test_weights_of_a_unit_without_readers_agree() -> None:
    """Where no reader is refitted, classes are ordered by their weights."""
    base = kit.Network(kit.read(two_layers("Conv", biased=True)))
    networks = [Network(base.model, base.found, base.units, [], place) for place in (Processor(1), Graphics("cpu"))]
    (ours,), (theirs,) = (network.units for network in networks)
    assert np.array_equal(ours.classes, theirs.classes)
