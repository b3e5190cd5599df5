"""Fine-tuning: what is trained gets nearer to its goal, the same every time, and bad input is refused."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from tests.kits import prune_kit as kit
from tests.prune.test_network import X, network_of, two_layers

from sartor.share.data import Split
from sartor.share.errors import InputRefusedError
from sartor.share.quality import likeness
from sartor.share.training import steps_of
from sartor.tools.prune.evaluate import Runner
from sartor.tools.prune.finetune import finetune

SPLIT = Split({"x": X}, {})


def pruned() -> tuple[ir.Model, ir.Model]:
    """Return a network and a third of its channels, refitted."""
    network = network_of(two_layers("Conv", biased=True))
    return network.model, network.pruned(np.array([4]))


def test_distillation_moves_towards_the_original() -> None:
    whole, small = pruned()
    wanted = Runner(whole).outputs({"x": X})
    before = likeness(Runner(small).outputs({"x": X}), wanted)
    steps: list[int] = []
    losses = finetune(small, SPLIT, wanted, 10, 0, 1, steps.append)
    assert likeness(Runner(small).outputs({"x": X}), wanted) > before
    assert losses[-1] < losses[0]
    assert sum(steps) == steps_of(SPLIT, 10)


def test_the_same_seed_gives_the_same_weights() -> None:
    models = []
    for _ in range(2):
        whole, small = pruned()
        finetune(small, SPLIT, Runner(whole).outputs({"x": X}), 2, 5, 1, lambda _: None)
        models.append(kit.serialized(small))
    assert models[0] == models[1]


@pytest.mark.parametrize("probabilities", [False, True])
def test_labels_are_learned_from_logits_and_probabilities(probabilities: bool) -> None:
    text = """<ir_version: 9, opset_import: ["" : 17]> g (float[n, 3, 8, 8] x) => (float[n, 4] y)
        <float[192, 4] w, float[4] b> { f = Flatten(x)  h = Gemm(f, w, b)  y = Softmax(h) }"""
    if not probabilities:
        text = text.replace("y = Softmax(h)", "y = Identity(h)")
    import onnx

    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array((0.01 * rng.standard_normal(shape)).astype(np.float32), name)
        for name, shape in (("w", (192, 4)), ("b", (4,)))
    )
    model = kit.read(proto)
    labels = X.mean((1, 2, 3)).argsort().argsort() * 4 // len(X)
    losses = finetune(model, Split({"x": X}, {"y": labels}), None, 30, 0, 1, lambda _: None)
    assert losses[-1] < 0.7 * losses[0]


def test_without_labels_there_is_nothing_to_learn() -> None:
    with pytest.raises(InputRefusedError, match="no labels"):
        finetune(pruned()[1], SPLIT, None, 1, 0, 1, lambda _: None)


def test_a_loss_that_is_not_finite_leaves_the_model() -> None:
    whole, small = pruned()
    before = kit.serialized(small)
    wanted = {name: np.full_like(array, np.nan) for name, array in Runner(whole).outputs({"x": X}).items()}
    with pytest.raises(InputRefusedError, match="not finite"):
        finetune(small, SPLIT, wanted, 1, 0, 1, lambda _: None)
    assert kit.serialized(small) == before
