"""Groups of random graphs: disjoint, free of cycles, and the same results before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import NodeProto, helper
from tests.kits import fuse_kit as kit

from sartor.share.runtime import kernels_of, load, stock_options
from sartor.tools.fuse.emit import SOURCE_NODES, emit
from sartor.tools.fuse.group import find_groups
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.plan import DOMAIN, Group

Array = np.ndarray[Any, Any]
F = np.float32
N = helper.make_node


def fused(proto: onnx.ModelProto, selection: Selection | None = None) -> tuple[onnx.ModelProto, list[Group]]:
    """Fuse a model, every group kept."""
    model = kit.typed(proto)
    groups, _ = find_groups(model, frozenset(), selection or Selection())
    emit(model, groups)
    return ir.serde.serialize_model(model), groups


def stock(proto: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    """Run a model in stock onnxruntime."""
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), stock_options(1), providers=["CPUExecutionProvider"]
    )
    outputs: list[Array] = session.run(None, feed)
    return outputs


def check(before: onnx.ModelProto, after: onnx.ModelProto, feed: dict[str, Array]) -> None:
    """The checker passes, stock onnxruntime gives the same bytes, and the session with kernels the same numbers."""
    onnx.checker.check_model(after, full_check=True)
    wanted, bodies = stock(before, feed), stock(after, feed)
    assert [array.tobytes() for array in bodies] == [array.tobytes() for array in wanted]
    session = load(after.SerializeToString(), threads=1)
    assert {kernel.name for kernel in kernels_of(session)} == {function.name for function in after.functions}
    for ours, array in zip(session.run(None, feed), wanted, strict=True):
        np.testing.assert_allclose(ours, array, rtol=1e-4, atol=1e-4)


def random_graph(seed: int) -> onnx.ModelProto:
    """Mix element-wise operators, matrix products, reductions, and shapes that are computed, over [n, 8] tensors."""
    generator = np.random.default_rng(seed)
    nodes: list[NodeProto] = []
    values = ["x", "z"]
    for i in range(14):
        a, b = (values[int(generator.integers(max(0, len(values) - 4), len(values)))] for _ in range(2))
        out = f"v{i}"
        match int(generator.integers(6)):
            case 0:
                nodes.append(N("MatMul", [a, "w"], [out], name=f"matmul{i}"))
            case 1:
                nodes.append(N("Tanh", [a], [out], name=f"tanh{i}"))
            case 2:
                nodes.append(N("Softmax", [a], [out], name=f"softmax{i}"))
            case 3:
                nodes += [N("Shape", [a], [f"s{i}"], name=f"shape{i}"), N("Expand", [b, f"s{i}"], [out])]
            case _:
                nodes.append(N("Add" if i % 2 else "Max", [a, b], [out], name=f"add{i}"))
        values.append(out)
    read = {name for node in nodes for name in node.input}
    outputs = [value for value in values[2:] if value not in read]
    weights = {"w": generator.standard_normal((8, 8)).astype(F)}
    return kit.model(nodes, {"x": (F, ["n", 8]), "z": (F, ["n", 8])}, outputs, weights)  # type: ignore[no-any-return]


def draw(seed: int, rows: int = 5) -> dict[str, Array]:
    """Draw the inputs of a random graph."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal((rows, 8)).astype(F) for name in ("x", "z")}


@pytest.mark.parametrize("seed", range(20))
def test_random_graph(seed: int) -> None:
    """Contraction leaves an order of the nodes, groups are disjoint, and nothing but the speed changes."""
    before = random_graph(seed)
    after, groups = fused(before)
    members = [node for group in groups for node in group.nodes]
    assert len(members) == len(set(members))
    assert sum(node.domain == DOMAIN for node in after.graph.node) == len(groups)
    check(before, after, draw(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 300))
def test_more_random_graphs(seed: int) -> None:
    """The same for many more; kernels are left out, for time."""
    before = random_graph(seed)
    after, _ = fused(before)
    onnx.checker.check_model(after, full_check=True)
    wanted, bodies = stock(before, draw(seed)), stock(after, draw(seed))
    assert [array.tobytes() for array in bodies] == [array.tobytes() for array in wanted]


def test_shape_between_fusable_nodes_makes_no_cycle() -> None:
    """What is reshaped by the shape of a group's result can't be in that group."""
    nodes = [
        N("Tanh", ["x"], ["a"]),
        N("Exp", ["a"], ["b"]),
        N("Shape", ["b"], ["s"]),
        N("Expand", ["one", "s"], ["c"]),
        N("Softmax", ["c"], ["d"]),
        N("Add", ["d", "b"], ["y"]),
    ]
    before = kit.model(nodes, {"x": (F, ["n", 8]), "one": (F, [1, 1])}, ["y"])
    after, groups = fused(before)
    assert groups
    check(before, after, {"x": draw(0)["x"], "one": np.ones((1, 1), F)})


def _chain(prefix: str, start: str) -> list[NodeProto]:
    return [
        N("Tanh", [start], [f"{prefix}a"], name=f"{prefix}/tanh"),
        N("Softmax", [f"{prefix}a"], [f"{prefix}b"], name=f"{prefix}/softmax"),
        N("MatMul", [f"{prefix}b", "w"], [f"{prefix}y"], name=f"{prefix}/matmul"),
    ]


def _two_chains() -> onnx.ModelProto:
    weights = {"w": np.eye(8, dtype=F)}
    nodes = _chain("first", "x") + _chain("second", "firsty")
    return kit.model(nodes, {"x": (F, ["n", 8])}, ["secondy"], weights)  # type: ignore[no-any-return]


def test_equal_groups_share_a_function_and_keep_their_sources() -> None:
    """Two calls of one function, each with the names of its nodes."""
    after, groups = fused(_two_chains())
    calls = [node for node in after.graph.node if node.domain == DOMAIN]
    assert len(groups) == len(calls) == 2
    assert len(after.functions) == 1
    listed = [json.loads({p.key: p.value for p in call.metadata_props}[SOURCE_NODES]) for call in calls]
    assert listed == [["first/tanh", "first/softmax"], ["second/tanh", "second/softmax"]]
    assert after.ir_version == 10
    check(_two_chains(), after, {"x": draw(0)["x"]})


@pytest.mark.parametrize(
    ("selection", "members"),
    [
        (Selection(only=("first/*",)), [["first/tanh", "first/softmax"]]),
        (Selection(skip=("second/*",)), [["first/tanh", "first/softmax"]]),
        (Selection(only=("Softmax",)), [["first/softmax"], ["second/softmax"]]),
        (Selection(only=("second/*",), skip=("*/tanh",)), [["second/softmax"]]),
        (Selection(skip=("*",)), []),
    ],
)
def test_selection(selection: Selection, members: Sequence[Sequence[str]]) -> None:
    """Globs over names and operators choose the nodes."""
    after, groups = fused(_two_chains(), selection)
    assert [list(group.names) for group in groups] == list(members)
    check(_two_chains(), after, {"x": draw(0)["x"]})


def test_every_fusable_node_is_in_a_group_or_has_a_reason() -> None:
    """Nothing is left out without a word."""
    model = kit.typed(_two_chains())
    groups, refused = find_groups(model, frozenset(), Selection())
    told = {name for group in groups for name in group.names} | set(refused)
    assert told == {node.name for node in model.graph}


def test_dead_shape_chain_is_removed() -> None:
    """A target that is computed from a shape is a constant in the function, so what computed it goes."""
    nodes = [
        N("Shape", ["x"], ["s"]),
        N("Gather", ["s", "zero"], ["n"]),
        N("Concat", ["n", "rest"], ["t"], axis=0),
        N("Tanh", ["x"], ["a"]),
        N("Reshape", ["a", "t"], ["b"]),
        N("Softmax", ["b"], ["y"]),
    ]
    weights = {"zero": np.array([0]), "rest": np.array([2, 4])}
    before = kit.model(nodes, {"x": (F, ["n", 8])}, ["y"], weights)
    after, _ = fused(before)
    assert [node.domain for node in after.graph.node] == [DOMAIN]
    check(before, after, {"x": draw(0)["x"]})


def _branch(name: str, operator: str) -> onnx.GraphProto:
    nodes = [N(operator, ["h"], [f"{name}a"]), N("Softmax", [f"{name}a"], [f"{name}b"], name=f"{name}/softmax")]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}b", 1, ["n", 8])])


@pytest.mark.parametrize("flag", [True, False])
def test_nested_graphs(flag: bool) -> None:
    """Groups inside the branches of an If read values of the graph around it, and that graph's groups are their own."""
    nodes = [
        N("Tanh", ["x"], ["g"]),
        N("Sigmoid", ["g"], ["h"]),
        N("If", ["flag"], ["i"], then_branch=_branch("then", "Exp"), else_branch=_branch("else", "Erf")),
        N("Mul", ["i", "h"], ["k"]),
        N("Softmax", ["k"], ["y"]),
    ]
    before = kit.model(nodes, {"x": (F, ["n", 8]), "flag": (np.bool_, [])}, ["y"])
    after, groups = fused(before)
    assert len({id(group.graph) for group in groups}) == 3
    check(before, after, {"x": draw(0)["x"], "flag": np.array(flag)})


def test_if_with_an_unknown_branch_has_no_shape() -> None:
    """Inference does not take the shape of one branch for that of both."""
    known = helper.make_tensor_value_info("q", onnx.TensorProto.FLOAT, ["n", 8])
    branches = {
        "then_branch": helper.make_graph([N("Reshape", ["x", "t"], ["r"])], "t", [], [onnx.ValueInfoProto(name="r")]),
        "else_branch": helper.make_graph([N("Tanh", ["x"], ["q"])], "e", [], [known]),
    }
    nodes = [N("If", ["flag"], ["i"], **branches), N("Identity", ["i"], ["y"])]
    inputs = {"x": (F, ["n", 8]), "flag": (np.bool_, []), "t": (np.int64, ["k"])}
    model = kit.typed(kit.model(nodes, inputs, ["y"]))
    assert next(iter(model.graph)).outputs[0].shape is None
