"""Refitted networks are nearer to the original than cut ones, and lose what their curves say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.kits import prune_kit as kit

from sartor.share.data import Split
from sartor.share.quality import likeness
from sartor.tools.prune.again import refit_again
from sartor.tools.prune.calibrate import calibrate
from sartor.tools.prune.compact import compact
from sartor.tools.prune.evaluate import Runner
from sartor.tools.prune.network import Network
from sartor.tools.prune.places import Processor

F = np.float32
PLACE = Processor(1)
X = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(F)
X += 0.5 * X.mean(1, keepdims=True) + 1


def two_layers(kind: str, biased: bool) -> onnx.ModelProto:
    """Make a model of a layer that makes 12 correlated channels and one that reads them."""
    rng = np.random.default_rng(1)
    first = (rng.standard_normal((12, 5)) @ rng.standard_normal((5, 3 * 9))).reshape(12, 3, 3, 3)
    shapes = {"Conv": (6, 12, 3, 3), "ConvTranspose": (12, 6, 3, 3), "grouped": (6, 6, 3, 3), "Gemm": (6, 12 * 64),
              "MatMul": (12 * 64, 6)}  # fmt: skip
    weights = {"w": first / 3, "v": rng.standard_normal(shapes[kind]) / 6, "b": rng.standard_normal(6)}
    bias = ["b"] if biased and kind != "MatMul" else []
    operator = "Conv" if kind == "grouped" else kind
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1] * 4, name="maker"),
        helper.make_node("Relu", ["h"], ["r"]),
    ]
    if kind in ("Gemm", "MatMul"):
        nodes.append(helper.make_node("Flatten", ["r"], ["f"]))
        extra = {"transB": 1} if kind == "Gemm" else {}
        nodes.append(helper.make_node(operator, ["f", "v", *bias], ["y"], name="reader", **extra))
        shape = ["n", 6]
    else:
        extra = {"pads": [1] * 4, **({"group": 2} if kind == "grouped" else {})}
        nodes.append(helper.make_node(operator, ["r", "v", *bias], ["y"], name="reader", **extra))
        shape = ["n", 6, 8, 8]
    graph = helper.make_graph(
        nodes, "two", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array.astype(F), name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def network_of(proto: onnx.ModelProto, x: np.ndarray = X) -> Network:
    """Calibrate a model on samples."""
    base = kit.Network(kit.read(proto))
    return Network(
        base.model, base.found, base.units, calibrate(base.model, base.found, Split({"x": x}, {}), PLACE), PLACE
    )


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "grouped", "Gemm", "MatMul"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_loses_what_its_curve_says(kind: str, biased: bool) -> None:
    """On the calibration samples, for every count, and with a bias about the mean.

    The curve allows for what so few rows do not tell: of layers with more columns than rows it says more.
    """
    network = network_of(two_layers(kind, biased))
    (unit,), (curve,) = network.units, network.curves
    wanted = Runner(network.model).outputs({"x": X})["y"].astype(np.float64)
    for count in range(1, len(unit.classes) + 1):
        found = Runner(network.pruned(np.array([count]))).outputs({"x": X})["y"]
        wrong = np.square(found - wanted)
        centre = 0 if kind == "MatMul" else wanted.mean((0, *range(2, wanted.ndim)), keepdims=True)
        lost = wrong.sum() / np.square(wanted - centre).sum()
        if kind in ("Gemm", "MatMul"):
            assert lost <= curve[count] + 1e-6
        else:
            assert lost == pytest.approx(curve[count], abs=8e-3)
    assert curve[-1] == pytest.approx(0, abs=1e-3)
    assert (np.diff(curve) <= 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_refitting_helps(seed: int) -> None:
    network = network_of(kit.random_network(seed, 8))
    if not network.units:
        return
    wanted = Runner(network.model).outputs({"x": X})
    counts = np.array([max(len(unit.classes) * 2 // 3, 1) for unit in network.units])
    cut = compact(network.model, network.found, network.removed(counts))
    mended = likeness(Runner(network.pruned(counts)).outputs({"x": X}), wanted)
    assert mended >= likeness(Runner(cut).outputs({"x": X}), wanted) - 1e-3


def test_all_channels_are_the_model_itself() -> None:
    network = network_of(kit.random_network(2, 8))
    counts = np.array([len(unit.classes) for unit in network.units])
    assert kit.serialized(network.pruned(counts)) == kit.serialized(compact(network.model, network.found, counts[:0]))


def test_dead_and_constant_channels_do_no_harm() -> None:
    """Samples that are all alike leave a Gram of zeros."""
    network = network_of(two_layers("Conv", biased=True), np.ones_like(X))
    (curve,) = network.curves
    assert np.isfinite(curve).all()
    outputs = Runner(network.pruned(np.array([3]))).outputs({"x": X})
    assert all(np.isfinite(array).all() for array in outputs.values())


def test_important_classes_come_first() -> None:
    """A class that the reader hardly weighs is the first to go."""
    proto = two_layers("Conv", biased=True)
    weights = {one.name: numpy_helper.to_array(one).copy() for one in proto.graph.initializer}
    weights["v"][:, 4] *= 1e-3
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    network = network_of(proto)
    (unit,) = network.units
    (maker,) = unit.makers
    assert network.found.atoms.find(maker.outputs)[4] == unit.classes[-1]


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "grouped", "Gemm", "MatMul"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_second_refit_changes_little_where_inputs_are_the_same(kind: str, biased: bool) -> None:
    """The layer that reads the pruned one gets what the original gave it: there is nothing to make up for."""
    network = network_of(two_layers(kind, biased))
    counts, wanted = np.array([5]), Runner(network.model).outputs({"x": X})
    once, twice = network.pruned(counts), network.pruned(counts)
    refit_again(network, counts, twice, Split({"x": X}, {}), PLACE)
    before, after = (likeness(Runner(one).outputs({"x": X}), wanted) for one in (once, twice))
    assert after == pytest.approx(before, abs=2e-2)


def test_a_second_refit_makes_up_for_layers_before() -> None:
    """Over random networks the outputs get nearer to the original's, and those of none get much worse."""
    gains = []
    for seed in range(16):
        network = network_of(kit.random_network(seed, 10))
        if not network.units:
            continue
        wanted = Runner(network.model).outputs({"x": X})
        counts = np.array([max(len(unit.classes) // 2, 1) for unit in network.units])
        once, twice = network.pruned(counts), network.pruned(counts)
        refit_again(network, counts, twice, Split({"x": X}, {}), PLACE)
        before, after = (likeness(Runner(one).outputs({"x": X}), wanted) for one in (once, twice))
        gains.append(after - before)
    assert np.mean(gains) > 0
    assert min(gains) > -0.1
