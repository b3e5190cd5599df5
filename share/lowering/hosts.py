"""Decide once which values stay on the host, so that shape arithmetic never waits for the device.

Operators read some of their inputs in Python: the shape of a Reshape, the ends of a Slice, the condition of an If.
Rules call these positions `host`. A value is *available* on the host if it is

- an output of Shape or Size;
- a small constant (at most 64 elements; floating initialisers are excepted, because they can be tuned);
- a graph input of integers or booleans of rank 0 or 1, or the counter or condition of a Loop;
- an output of a small operator (`FOLLOWS`, `GROWS`) whose inputs are all available, or of an If whose branches' are.

A value is *wanted* there if it is read at a `host` position, or by a small operator whose available output is wanted.
It lives on the host if it is available and wanted, or if it is computed from the outputs of Shape and Size alone by
operators that do not make it larger (`FOLLOWS`). So masks and positions that are made from a size by Range, Expand or
ConstantOfShape (`GROWS`) are made on the device. Constants that are read on both sides are kept on both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

from sartor.share.lowering.constants import Constants
from sartor.share.lowering.registry import RULES, Place, Rule

SMALL = 64
"""The most elements of a constant that small operators may read on the host."""

_DEVICE = Rule(lambda: None)


def place_values(graph: ir.Graph, constants: Constants, overridden: Collection[ir.Node]) -> frozenset[ir.Value]:
    """Return the values that live on the host; constants among them are read there."""
    facts = _Facts(constants, overridden)
    facts.available.update(value for value in graph.inputs if _small_integers(value))
    facts.forward(graph)
    facts.backward(graph)
    return frozenset((facts.available & facts.wanted) | facts.derived)


def _small_integers(value: ir.Value) -> bool:
    """Tell whether a graph input may be a size or a condition."""
    whole = value.dtype is not None and (value.dtype.is_integer() or value.dtype is ir.DataType.BOOL)
    return whole and value.shape is not None and len(value.shape) <= 1


def rule_of(node: ir.Node) -> Rule | None:
    """Return an operator's rule."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return RULES.get((domain, node.op_type))


def nested(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that are attributes of a node."""
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type is ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


class _Facts:
    """What is known of the values so far."""

    def __init__(self, constants: Constants, overridden: Collection[ir.Node]) -> None:
        self.overridden = overridden
        self.available = {
            value
            for value, constant in constants.items()
            if constant.numel() <= SMALL and not (constant.tunable and constant.floating)
        }
        self.derived: set[ir.Value] = set()
        self.wanted: set[ir.Value] = set()

    def forward(self, graph: ir.Graph) -> None:
        """Find what is available on the host, and what of it is computed from sizes alone."""
        for node in graph:
            rule = self._rule(node)
            if node.op_type == "Loop":
                self.available.update(node.attributes["body"].as_graph().inputs[:2])
            for inner in nested(node):
                self.forward(inner)
            if node.op_type == "If":
                self._join(node)
            elif rule.place is Place.SHAPE:
                self._add(node, self.available, self.derived)
            elif rule.place is not Place.DEVICE and self._all_available(node):
                derived = rule.place is Place.FOLLOWS and self._is_derived(node, rule)
                self._add(node, self.available, *([self.derived] if derived else []))

    def backward(self, graph: ir.Graph) -> None:
        """Find what is wanted on the host."""
        for node in reversed(graph):
            rule = self._rule(node)
            small = rule.place in (Place.FOLLOWS, Place.GROWS)
            whole = small and any(out in self.wanted and out in self.available for out in node.outputs)
            for index, value in enumerate(node.inputs):
                if value is not None and (whole or index in rule.host):
                    self.wanted.add(value)
            for inner in nested(node):
                self._want_outputs(node, inner)
                self.backward(inner)

    def _rule(self, node: ir.Node) -> Rule:
        found = None if node in self.overridden else rule_of(node)
        return found or _DEVICE

    def _add(self, node: ir.Node, *sets: set[ir.Value]) -> None:
        for one in sets:
            one.update(node.outputs)

    def _all_available(self, node: ir.Node) -> bool:
        return all(value in self.available for value in node.inputs if value is not None)

    def _is_derived(self, node: ir.Node, rule: Rule) -> bool:
        data = [value for index, value in enumerate(node.inputs) if index not in rule.host]
        return any(value in self.derived for value in data)

    def _join(self, node: ir.Node) -> None:
        """The output of an If is where those of its branches are."""
        for index, out in enumerate(node.outputs):
            ends = [inner.outputs[index] for inner in nested(node)]
            if all(end in self.available for end in ends):
                self.available.add(out)
            if all(end in self.derived for end in ends):
                self.derived.add(out)

    def _want_outputs(self, node: ir.Node, inner: ir.Graph) -> None:
        if node.op_type == "Loop":
            self.wanted.add(inner.outputs[0])
        if node.op_type == "If":
            self.wanted.update(end for out, end in zip(node.outputs, inner.outputs, strict=True) if out in self.wanted)
