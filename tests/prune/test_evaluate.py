"""Metrics, and the runs that they are taken from."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kits import prune_kit as kit

from sartor.share.data import Split
from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.quality import likeness
from sartor.tools.prune.evaluate import Metric, Runner, make_judge, parse_metric

MODEL = kit.read(kit.random_network(3, 6))
X = np.random.default_rng(0).standard_normal((300, 3, 8, 8)).astype(np.float32)
NAME = str(MODEL.graph.outputs[0].name)
OUTPUTS = Runner(MODEL).outputs({"x": X})[NAME]


def test_batches_give_what_the_whole_gives() -> None:
    np.testing.assert_allclose(OUTPUTS, kit.run(MODEL, {"x": X})[0], atol=1e-6)


def test_inner_values_are_fetched() -> None:
    node = next(node for node in MODEL.graph if node.op_type == "GlobalAveragePool")
    names = [str(node.inputs[0].name), str(node.outputs[0].name)]
    inner, pooled = Runner(MODEL, fetch=names).outputs({"x": X[:5]}).values()
    np.testing.assert_allclose(inner.mean((2, 3), keepdims=True), pooled, atol=1e-5)


@pytest.mark.parametrize("top", [1, 2, 5])
def test_accuracy(top: int) -> None:
    labels = np.random.default_rng(1).integers(0, 5, 300)
    order = np.argsort(-OUTPUTS, axis=1)[:, :top]
    expected = np.mean([label in row for label, row in zip(labels, order, strict=True)])
    judge = make_judge(MODEL, Split({"x": X}, {NAME: labels}), Metric("top", top), 1, "d.h5")
    assert judge.score(MODEL) == pytest.approx(expected)


def test_positions_are_samples_of_their_own() -> None:
    scores = np.random.default_rng(0).standard_normal((4, 3, 6)).astype(np.float32)
    judge = make_judge(MODEL, Split({"x": X[:4]}, {}), Metric("likeness"), 1, "d.h5")
    labels = scores.argmax(1)
    labels[0, :3] += 1
    split = Split({"x": X[:4]}, {"y": labels % 3})
    found = type(judge)(Metric("accuracy", 1), split, {}, 1).score_outputs({"y": scores})
    assert found == pytest.approx(21 / 24)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_outputs_that_say_nothing_are_no_hits(bad: float) -> None:
    split = Split({"x": X}, {NAME: np.zeros(300, np.int64)})
    judge = make_judge(MODEL, split, Metric("accuracy", 1), 1, "d.h5")
    assert judge.score_outputs({NAME: np.full_like(OUTPUTS, bad)}) == 0


def test_likeness() -> None:
    wanted = {"y": OUTPUTS}
    assert likeness(wanted, wanted) == 1
    assert likeness({"y": np.broadcast_to(OUTPUTS.mean(0), OUTPUTS.shape)}, wanted) == pytest.approx(0, abs=1e-6)


def test_metrics_by_name() -> None:
    assert (parse_metric(None, True).name, parse_metric(None, False).name) == ("accuracy", "likeness")
    assert parse_metric("top5", True).top == 5
    for name in ("top", "top0", "f1"):
        with pytest.raises(UsageError, match="no metric"):
            parse_metric(name, True)


@pytest.mark.parametrize("labels", [np.full(300, 5), np.full(300, -1), np.full(300, 0.5)])
def test_labels_must_be_classes(labels: np.ndarray) -> None:
    with pytest.raises(InputRefusedError, match="from 0 to 4"):
        make_judge(MODEL, Split({"x": X}, {NAME: labels}), Metric("accuracy", 1), 1, "d.h5")


def test_labels_must_be_there() -> None:
    with pytest.raises(InputRefusedError, match=r"d\.h5: it has no labels"):
        make_judge(MODEL, Split({"x": X}, {}), Metric("accuracy", 1), 1, "d.h5")
