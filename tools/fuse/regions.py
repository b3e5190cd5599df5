"""Regions: which nodes may share a kernel without making the graph cyclic, and how large pieces a kernel can take.

Nodes are layered by compute depth: a node lies deeper than every compute node before it, and an operator on shapes
deeper than a fusable node before it. On any path that leaves a layer and comes back the depth would have grown, so that
fusable nodes of one depth may always be contracted into one, whichever they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir

from sartor.share.runtime.kernel import FunctionCall, TensorType
from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.outline import Outline, constant_array, external_outputs, outline, tensor_type
from sartor.tools.fuse.places import PROCESSOR, Place
from sartor.tools.fuse.rules import RULES, Kind
from sartor.tools.fuse.score import FREE
from sartor.tools.fuse.transposes import runs_in_product

_SHAPE_OPS = frozenset({"Shape", "Size"})
_SHAPE_ELEMENTS = 16
"""Elements up to which an integer tensor made from shapes counts as a shape itself."""

SEARCHED = 3
"""Nodes from which on there is more than one plan worth a look."""


@dataclass(frozen=True, eq=False)
class Region:
    """Nodes that one kernel can compute, outlined."""

    graph: ir.Graph
    nodes: tuple[ir.Node, ...]
    outlined: Outline
    call: FunctionCall


class Planner(Protocol):
    """What proposes and prices plans for nodes that may share kernels (search.py)."""

    def alternatives(self, graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[list[list[ir.Node]]]:
        """Return plans, each a list of patterns."""

    def price(self, calls: Sequence[FunctionCall], rest: Sequence[ir.Node]) -> float:
        """Estimate the microseconds of kernels and of the nodes that are left to onnxruntime."""


@dataclass
class Analysis:
    """What is known of a graph's nodes before they are grouped; `refused` collects the reasons."""

    opset: int
    absorbed: frozenset[str] = frozenset()
    refused: dict[ir.Node, str] = field(default_factory=dict)
    emittable: dict[tuple[str, tuple[TensorType | None, ...]], str | None] = field(default_factory=dict)
    """Why a function called with these types has no kernel, or None if it has one."""
    planner: Planner | None = None
    """Without one, everything that can share a kernel does."""
    place: Place = PROCESSOR


def find_regions(graph: ir.Graph, analysis: Analysis) -> list[Region]:
    """Group the memory-intensive nodes of one graph into regions that a kernel can compute."""
    while True:
        before = len(analysis.refused)
        regions = [region for nodes in _components(graph, analysis) for region in _chosen(graph, nodes, analysis)]
        if len(analysis.refused) == before:
            return [region for region in regions if _worth(region.nodes)]


def fusable(node: ir.Node, analysis: Analysis) -> bool:
    """Tell whether a node may join a group; where it may not, note why."""
    if node in analysis.refused:
        return False
    reason = _reason(node, analysis)
    if reason is None:
        return True
    if node.op_type != "Constant":
        analysis.refused[node] = reason
    return False


def _reason(node: ir.Node, analysis: Analysis) -> str | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in RULES:
        return f"no rule for {node.op_type}"
    if all(value is None or constant_array(value) is not None or _weight(value) for value in node.inputs):
        return "constant, onnxruntime computes it once"
    if any(out.name in analysis.absorbed for out in node.outputs):
        return "onnxruntime runs it inside the operator before it"
    if runs_in_product(node):
        return "onnxruntime runs it inside the product behind it"
    for value in (*node.inputs, *node.outputs):
        if value is None or not value.name:
            continue
        known = tensor_type(value)
        if known is None or any(dim is None for dim in known.shape):
            return "a shape is unknown"
        if known.dtype not in analysis.place.storage:
            return f"element type {known.dtype.name.lower()}"
    return None


def _weight(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _is_shape(node: ir.Node, shapes: set[ir.Value]) -> bool:
    """Tell whether a node computes a shape: small integers made from shapes and constants alone."""
    if node.op_type in _SHAPE_OPS:
        return True
    known = [value for value in node.inputs if value is not None and constant_array(value) is None]
    return bool(known) and all(value in shapes for value in known)


def layers(graph: ir.Graph, analysis: Analysis) -> dict[ir.Node, int]:
    """Return the depth of every fusable node of a graph."""
    depth: dict[ir.Node, int] = {}
    shapes: set[ir.Value] = set()
    member: dict[ir.Node, int] = {}
    for node in graph:
        shape = _is_shape(node, shapes)
        joins = not shape and fusable(node, analysis)
        if shape:
            shapes.update(node.outputs)
        deepest = 0
        for producer in producers(node, graph):
            compute = producer not in member and not _is_host(producer, shapes)
            deepest = max(deepest, depth[producer] + int(compute) + int(shape and producer in member))
        depth[node] = deepest
        if joins:
            member[node] = deepest
    return member


def _is_host(node: ir.Node, shapes: set[ir.Value]) -> bool:
    return node.op_type == "Constant" or any(out in shapes for out in node.outputs)


def producers(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes of a graph that one of its nodes, or a graph inside that, reads from."""
    for value in _read(node):
        producer = value.producer()
        if producer is not None and producer.graph is graph:
            yield producer


def _read(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.value:
                yield from _read(inner)
            yield from attribute.value.outputs
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.value:
                for inner in graph:
                    yield from _read(inner)


def _components(graph: ir.Graph, analysis: Analysis) -> list[list[ir.Node]]:
    """Connect the fusable nodes of one depth along their edges; keep topological order."""
    member = layers(graph, analysis)
    return _connected(list(member), lambda a, b: member[a] == member[b])


def _connected(nodes: Sequence[ir.Node], joined: object) -> list[list[ir.Node]]:
    assert callable(joined)
    parent = {node: node for node in nodes}

    def root(node: ir.Node) -> ir.Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in nodes:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer in parent and joined(producer, node):
                parent[root(node)] = root(producer)
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def trim(nodes: Sequence[ir.Node], free: frozenset[str] = FREE) -> list[ir.Node]:
    """Drop free operators from the edges of a group where they would cost a copy, again and again."""
    rest = list(nodes)
    while True:
        inside = set(rest)
        edge = [node for node in rest if node.op_type in free and _copies(node, inside)]
        if not edge:
            return rest
        rest = [node for node in rest if node not in edge]


def _copies(node: ir.Node, inside: set[ir.Node]) -> bool:
    """Tell whether a free operator at an edge makes a group write a tensor that somebody has already.

    At the entry that is what it gives to others, at the exit what it reads if others need that too.
    """
    source = node.inputs[0] if node.inputs else None
    fed = source is not None and source.producer() in inside
    used = any(use.node in inside for out in node.outputs for use in out.uses())
    if fed == used:
        return not fed
    return any(_is_needed_outside(value, inside) for value in ([source] if fed else node.outputs) if value is not None)


def _is_needed_outside(value: ir.Value, inside: set[ir.Node]) -> bool:
    return value.is_graph_output() or any(use.node not in inside for use in value.uses())


def _chosen(graph: ir.Graph, nodes: Sequence[ir.Node], analysis: Analysis) -> list[Region]:
    """Return the regions of the plan with the lowest price, all in one pattern being one of the plans."""
    together = list(_cut(graph, nodes, analysis))
    if analysis.planner is None or len(nodes) < SEARCHED:
        return together
    plans = analysis.planner.alternatives(graph, nodes)
    found = [together, *([one for part in plan for one in _cut(graph, part, analysis)] for plan in plans)]
    return min(found, key=lambda regions: _price(regions, nodes, analysis.planner))


def _price(regions: Sequence[Region], nodes: Sequence[ir.Node], planner: Planner | None) -> float:
    assert planner is not None
    worth = [region for region in regions if _worth(region.nodes)]
    taken = {node for region in worth for node in region.nodes}
    return planner.price([region.call for region in worth], [node for node in nodes if node not in taken])


def _cut(graph: ir.Graph, nodes: Sequence[ir.Node], analysis: Analysis) -> Iterator[Region]:
    """Yield the regions of a component: the longest runs of it, in topological order, that a kernel can take."""
    rest = trim(nodes)
    while rest:
        whole = make_region(graph, rest, analysis)
        if isinstance(whole, Region):
            yield whole
            return
        size, reason = _longest(graph, rest, whole, analysis)
        if size == 0:
            analysis.refused[rest[0]] = reason
            return
        for part in _connected(rest[:size], lambda _a, _b: True):
            made = make_region(graph, trim(part), analysis)
            if isinstance(made, Region):
                yield made
        rest = rest[size:]


def _longest(graph: ir.Graph, nodes: Sequence[ir.Node], reason: str, analysis: Analysis) -> tuple[int, str]:
    """Search by bisection for the longest prefix that has a kernel; return also why the next one has none."""
    good, bad = 0, len(nodes)
    while bad - good > 1:
        middle = (good + bad) // 2
        made = make_region(graph, nodes[:middle], analysis)
        if isinstance(made, Region):
            good = middle
        else:
            bad, reason = middle, made
    return good, reason


def make_region(graph: ir.Graph, nodes: Sequence[ir.Node], analysis: Analysis) -> Region | str:
    """Outline nodes and write their kernel; return the reason where there is none."""
    if not nodes:
        return "nothing to compute"
    outlined = outline(nodes, analysis.opset)
    inputs = tuple(None if value is None else tensor_type(value) for value in outlined.inputs)
    call = FunctionCall(outlined.function, inputs, _types(outlined.outputs))
    key = (call.function.name, call.inputs)
    if key not in analysis.emittable:
        analysis.emittable[key] = _obstacle(call, analysis.place)
    return analysis.emittable[key] or Region(graph, tuple(nodes), outlined, call)


def _obstacle(call: FunctionCall, place: Place) -> str | None:
    """Return why a function has no kernel for the types of a call, or None if it has one."""
    try:
        place.identity(call)
    except NotEmittableError as error:
        return str(error)
    return None


def _types(values: Sequence[ir.Value]) -> tuple[TensorType, ...]:
    known = [tensor_type(value) for value in values]
    return tuple(kind for kind in known if kind is not None)


def _is_small(value: ir.Value) -> bool:
    """Tell whether a value is a handful of integers, such as a shape that is being computed."""
    known = tensor_type(value)
    if known is None or known.dtype in ops.FLOATING:
        return False
    sizes = [dim for dim in known.shape if isinstance(dim, int)]
    return len(sizes) == known.rank and math.prod(sizes) <= _SHAPE_ELEMENTS


def _worth(nodes: Sequence[ir.Node]) -> bool:
    """Tell whether a group does more than one light operator or one copy."""
    if all(_is_small(value) for value in external_outputs(nodes)):
        return False
    work = [RULES[node.op_type].kind for node in nodes if node.op_type not in FREE]
    if len(nodes) == 1 or (len(work) == 1 and work[0] is Kind.LIGHT):
        return bool(work) and work[0] in (Kind.EXPENSIVE, Kind.REDUCE)
    return bool(work) and bool(external_outputs(nodes))
