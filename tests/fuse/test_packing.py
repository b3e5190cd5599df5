"""Packing: what may share a kernel without closing a cycle, and that bounds hold."""

from __future__ import annotations

import random
from graphlib import TopologicalSorter

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.tools.fuse.group import find_groups
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.packing import MOST_PARTS, bundles, levels, pack
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.regions import producers

F = np.float32


def random_model(seed: int, count: int = 60) -> ir.Model:
    """Make a graph of element-wise operators, softmax and matrix products over values of one shape."""
    generator = random.Random(seed)
    names, nodes = ["x0", "x1"], []
    for i in range(count):
        operator = generator.choice(["Add", "Mul", "Exp", "Softmax", "MatMul", "Neg"])
        operands = [generator.choice(names[-6:]) for _ in range(2 if operator in ("Add", "Mul", "MatMul") else 1)]
        nodes.append(helper.make_node(operator, operands, [f"v{i}"], name=f"n{i}"))
        names.append(f"v{i}")
    return kit.typed(kit.model(nodes, {"x0": (F, [8, 8]), "x1": (F, [8, 8])}, names[-4:]))


def is_acyclic(graph: ir.Graph, bundled: list[tuple[Group, ...]], groups: list[Group]) -> bool:
    """Contract every bundle, and every group that is in none, and sort what is left."""
    alone = [(group,) for group in groups if not any(group in bundle for bundle in bundled)]
    owner: dict[ir.Node, object] = {n: b for b in [*bundled, *alone] for group in b for n in group.nodes}
    before: dict[object, set[object]] = {}
    for node in graph:
        unit = owner.get(node, node)
        known = before.setdefault(unit, set())
        known |= {other for p in producers(node, graph) if (other := owner.get(p, p)) is not unit}
    TopologicalSorter(before).prepare()
    return True


@pytest.mark.parametrize("seed", range(30))
def test_bundles_of_random_graphs(seed: int) -> None:
    """Contracting all bundles at once leaves the graph acyclic, and each has a kernel."""
    model = random_model(seed)
    groups, _ = find_groups(model, frozenset(), Selection())
    found = bundles(groups)
    assert is_acyclic(model.graph, found, groups)
    for bundle in found:
        assert 2 <= len(bundle) <= MOST_PARTS
        packed = pack(bundle, 21)
        assert packed is not None
        assert set(packed.nodes) == {node for group in bundle for node in group.nodes}
        assert set(packed.outputs) == {value for group in bundle for value in group.outputs}


def test_levels_grow_along_paths() -> None:
    """A group lies deeper than every group and matrix product before it."""
    model = random_model(3)
    groups, _ = find_groups(model, frozenset(), Selection())
    level = levels(model.graph, groups)
    owner = {node: group for group in groups for node in group.nodes}
    for node, group in owner.items():
        for producer in producers(node, model.graph):
            before = owner.get(producer)
            if before is not None and before is not group:
                assert level[before] < level[group]


def test_query_key_and_value_share_a_kernel() -> None:
    """Three biases behind three products of one value are one bundle."""
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"m{i}"]) for i in range(3)]
    nodes += [helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"]) for i in range(3)]
    nodes += [helper.make_node("Tanh", [f"a{i}"], [f"y{i}"]) for i in range(3)]
    weights = {f"w{i}": np.ones((4, 4), F) for i in range(3)} | {f"b{i}": np.arange(4, dtype=F) for i in range(3)}
    model = kit.typed(kit.model(nodes, {"x": (F, ["n", 4])}, ["y0", "y1", "y2"], weights))
    groups, _ = find_groups(model, frozenset(), Selection())
    (bundle,) = bundles(groups)
    assert len(bundle) == len(groups) == 3
    packed = pack(bundle, 21)
    assert packed is not None
    assert sorted(node.op_type for node in packed.nodes) == ["Add"] * 3 + ["Tanh"] * 3
