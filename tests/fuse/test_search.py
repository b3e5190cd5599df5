"""The search over plans of real operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.tools.fuse.group import find_groups
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.places import PROCESSOR
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.search import Search

F = np.float32


def planned(model: ir.Model) -> list[Group]:
    """Search for the groups of a model."""
    return find_groups(model, frozenset(), Selection(), Search({}, PROCESSOR, 21))[0]


def test_a_chain_is_one_group() -> None:
    """Nothing speaks against stitching element-wise operators around a reduction."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("Mul", ["b", "a"], ["y"]),
    ]
    (group,) = planned(kit.typed(kit.model(nodes, {"x": (F, [64, 256])}, ["y"])))
    assert [node.op_type for node in group.nodes] == ["Add", "Softmax", "Mul"]


def test_a_turn_of_the_last_axis_stays_outside() -> None:
    """A large transpose that moves the last axis costs a kernel more than it saves; what follows is fused alone."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Add", ["t", "z"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Mul", ["b", "z"], ["y"]),
    ]
    model = kit.typed(kit.model(nodes, {"x": (F, [1024, 1024]), "z": (F, [1024, 1024])}, ["y"]))
    search = Search({}, PROCESSOR, 21)
    best = search.alternatives(model.graph, list(model.graph))[0]
    assert [[node.op_type for node in pattern] for pattern in best] == [["Add", "Relu", "Mul"]]


def test_operators_that_no_kernel_takes_are_parted() -> None:
    """A computed value and its transpose meet in no kernel; the search parts them where little is lost."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["f"]),
        helper.make_node("Transpose", ["f"], ["t"], perm=[1, 0]),
        helper.make_node("Add", ["f", "t"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["g"]),
        helper.make_node("Mul", ["g", "s"], ["y"]),
    ]
    model = kit.typed(kit.model(nodes, {"x": (F, [64, 64])}, ["y"], {"one": np.array(1, F)}))
    groups = planned(model)
    names = [[node.op_type for node in group.nodes] for group in groups]
    assert ["Exp", "Add"] in [pattern[:2] for pattern in names]
    assert all(not {"Exp", "Sigmoid"} <= set(pattern) for pattern in names)
