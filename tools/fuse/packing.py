"""Remote fusion: groups that have nothing to do with each other become one kernel, which saves calls.

FusionStitching proposes these merges through a virtual vertex that produces all others (section 4.2) and lowers them to
kernel packing. Here every group and every compute node has a level: one more than the deepest before it. Groups of one
level can't reach each other, and merging all those of a level at once leaves levels as they are, so that no merge can
close a cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter

import onnx_ir as ir

from sartor.tools.fuse.places import PROCESSOR, Place
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.regions import Analysis, Region, make_region, producers
from sartor.tools.fuse.rules import RULES

MOST_PARTS = 8
"""Groups in one kernel: past that a call saved is worth less than the time to compile."""

MOST_OPERANDS = 48
"""Inputs and outputs of one kernel; buffers come on top, and a kernel numbers 64 tensors at most."""

Unit = ir.Node | Group


def bundles(groups: Sequence[Group]) -> list[tuple[Group, ...]]:
    """Choose which groups to pack together: those of one level, in order, as far as the bounds allow."""
    out: list[tuple[Group, ...]] = []
    for graph in {id(group.graph): group.graph for group in groups}.values():
        here = [group for group in groups if group.graph is graph]
        level = levels(graph, here)
        for depth in sorted(set(level.values())):
            out += _filled([group for group in here if level[group] == depth])
    return [bundle for bundle in out if len(bundle) > 1]


def _filled(groups: Sequence[Group]) -> Iterator[tuple[Group, ...]]:
    """Cut a level into bundles."""
    bundle: list[Group] = []
    for group in groups:
        operands = sum(len(one.inputs) + len(one.outputs) for one in (*bundle, group))
        if bundle and (len(bundle) == MOST_PARTS or operands > MOST_OPERANDS):
            yield tuple(bundle)
            bundle = []
        bundle.append(group)
    yield tuple(bundle)


def levels(graph: ir.Graph, groups: Sequence[Group]) -> dict[Group, int]:
    """Return how many groups and compute nodes lie before each group on the longest path to it."""
    owner: Mapping[ir.Node, Group] = {node: group for group in groups for node in group.nodes}
    before: dict[Unit, set[Unit]] = {}
    for node in graph:
        unit = owner.get(node, node)
        known = before.setdefault(unit, set())
        known.update(other for p in producers(node, graph) if (other := owner.get(p, p)) is not unit)
    level: dict[Unit, int] = {}
    for unit in TopologicalSorter(before).static_order():
        level[unit] = max((level[other] + int(_counts(other)) for other in before[unit]), default=0)
    return {group: level[group] for group in groups}


def _counts(unit: Unit) -> bool:
    return isinstance(unit, Group) or unit.op_type not in RULES


def pack(bundle: Sequence[Group], opset: int, place: Place = PROCESSOR) -> Group | None:
    """Make one group of several; None where no kernel takes them together."""
    graph = bundle[0].graph
    inside = {node for group in bundle for node in group.nodes}
    made = make_region(graph, [node for node in graph if node in inside], Analysis(opset, place=place))
    if not isinstance(made, Region):
        return None
    outlined = made.outlined
    return replace(bundle[0], nodes=made.nodes, inputs=outlined.inputs, outputs=outlined.outputs, call=made.call)
