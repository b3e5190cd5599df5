"""Transposes in front of matrix products: cut, folded and put back without a change of results."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.share.shapes import infer_shapes
from sartor.tools.fuse.transposes import (
    fold_swaps,
    rejoin_transposes,
    runs_in_product,
    split_transposes,
)

F = np.float32


def attention_scores(order: list[int], scale: bool = False, extra_user: bool = False) -> onnx.ModelProto:
    """Make q @ transpose(k) of two tensors of shape (batch, heads, length, width) after a bias on k."""
    nodes = [
        helper.make_node("Add", ["k", "bias"], ["biased"]),
        helper.make_node("Transpose", ["biased"], ["turned"], perm=order, name="turn"),
        *([helper.make_node("Mul", ["turned", "half"], ["scaled"])] if scale else []),
        helper.make_node("MatMul", ["q", "scaled" if scale else "turned"], ["scores"]),
        *([helper.make_node("Neg", ["turned"], ["negated"])] if extra_user else []),
    ]
    shape = [["batch", 3, "length", 8], ["batch", "length", 3, 8]][order == [0, 2, 3, 1]]
    inputs = {"k": (F, shape), "q": (F, ["batch", 3, "length", 8])}
    weights = {"bias": np.arange(8, dtype=F), "half": np.array([0.5], F)}
    return kit.model(nodes, inputs, ["scores", *(["negated"] if extra_user else [])], weights)


def flat_swap(target: list[int]) -> onnx.ModelProto:
    """Make q @ swap(k) as exporters write it: on a view with three axes, the way back computed from k's shape."""
    nodes = [
        helper.make_node("Shape", ["k"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "minus_two"], ["lead"]),
        helper.make_node("Slice", ["shape", "minus_two", "minus_one"], ["length"]),
        helper.make_node("Slice", ["shape", "minus_one", "end"], ["width"]),
        helper.make_node("Concat", ["flat", "length", "width"], ["three"], axis=0),
        helper.make_node("Reshape", ["k", "three"], ["view"]),
        helper.make_node("Transpose", ["view"], ["turned"], perm=target, name="turn"),
        helper.make_node("Concat", ["lead", "width", "length"], ["four"], axis=0),
        helper.make_node("Reshape", ["turned", "four"], ["back"]),
        helper.make_node("Mul", ["back", "half"], ["scaled"]),
        helper.make_node("MatMul", ["q", "scaled"], ["scores"]),
    ]
    numbers = {"zero": 0, "minus_two": -2, "minus_one": -1, "end": 2**31, "flat": -1}
    weights = {name: np.array([value], np.int64) for name, value in numbers.items()}
    shape = ["batch", 3, "length", 8]
    proto = kit.model(nodes, {"k": (F, shape), "q": (F, shape)}, ["scores"], {**weights, "half": np.array([0.5], F)})
    # Declared without names, as onnx infers them, sizes can't be compared.
    proto.graph.ClearField("value_info")
    return proto


def results(proto: onnx.ModelProto) -> list[np.ndarray]:
    """Run a model on fixed inputs."""
    generator = np.random.default_rng(0)
    sizes = {"batch": 2, "length": 5}
    feed = {
        value.name: generator.standard_normal(
            [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]
        ).astype(F)
        for value in proto.graph.input
    }
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)


def checked(model: ir.Model) -> onnx.ModelProto:
    """Serialise a model that passes the checker."""
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def orders(model: ir.Model) -> list[list[int]]:
    """List the permutations of a model's transposes."""
    return [list(node.attributes["perm"].as_ints()) for node in model.graph if node.op_type == "Transpose"]


def test_a_cut_moves_rows_first_and_can_be_undone() -> None:
    """The first half keeps the last axis; the second is what a matrix product does by itself; names survive."""
    proto = attention_scores([0, 2, 3, 1])
    model = kit.typed(proto)
    halves = split_transposes(model)
    assert orders(model) == [[0, 2, 1, 3], [0, 1, 3, 2]]
    assert [runs_in_product(node) for node in model.graph if node.op_type == "Transpose"] == [False, True]
    np.testing.assert_array_equal(results(checked(model)), results(proto))
    assert rejoin_transposes(halves) == ()
    assert orders(model) == [[0, 2, 3, 1]]
    assert [value.name for node in model.graph for value in node.outputs] == ["biased", "turned", "scores"]
    np.testing.assert_array_equal(results(checked(model)), results(proto))


@pytest.mark.parametrize(
    "proto",
    [
        attention_scores([0, 2, 3, 1], extra_user=True),
        attention_scores([0, 2, 3, 1], scale=True),
        attention_scores([0, 1, 3, 2]),
    ],
)
def test_what_is_not_cut(proto: onnx.ModelProto) -> None:
    """A transpose that others read too, or that only swaps, stays as it is."""
    model = kit.typed(proto)
    before = orders(model)
    assert split_transposes(model) == ()
    assert orders(model) == before


def test_a_swap_on_a_view_is_folded() -> None:
    """Of eleven nodes three remain, and onnxruntime runs all of them as one product with the same bytes."""
    proto = flat_swap([0, 2, 1])
    model = kit.typed(proto)
    assert fold_swaps(model) == 1
    assert [node.op_type for node in model.graph] == ["Transpose", "Mul", "MatMul"]
    assert [runs_in_product(node) for node in model.graph] == [True, True, False]
    assert orders(model) == [[0, 1, 3, 2]]
    infer_shapes(model)
    np.testing.assert_array_equal(results(checked(model)), results(proto))


def test_other_permutations_on_a_view_stay() -> None:
    """Only a swap of the last two axes is one with and without the view."""
    model = kit.typed(flat_swap([0, 1, 2]))
    assert fold_swaps(model) == 0
    assert [node.op_type for node in model.graph].count("Reshape") == 2
