"""Plan a graph: an order of steps, a slot for every value, and when each value may go."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from sartor.share.lowering.constants import Constants, is_constant
from sartor.share.lowering.fallback import Fallback
from sartor.share.lowering.frame import HOST, Block, Call, Fetch, Frame, Side, Step
from sartor.share.lowering.hosts import nested, place_values, rule_of
from sartor.share.lowering.registry import ALL, NotLoweredError, Op, Place, Rule, Value

Implementation = Any
"""A callable of tensors, None for what is absent, that returns one value or a tuple of them."""

_ELSEWHERE = Rule(lambda: None, host=frozenset(ALL))


@dataclass(frozen=True)
class Plan:
    """A lowered graph: where its inputs have to be, and the slots of the constants by whether the host reads them."""

    block: Block
    size: int
    inputs: Mapping[str, tuple[Fetch, ...]]
    outputs: tuple[str, ...]
    constants: Mapping[ir.Value, Mapping[bool, int]]

    def __deepcopy__(self, _memo: object) -> Plan:
        """Return the plan itself: copies of a module, such as a teacher, share what never changes."""
        return self


def make_plan(model: ir.Model, constants: Constants, overrides: Mapping[ir.Node, Implementation]) -> Plan:
    """Plan a model whose functions are inlined, but for the calls that are overridden."""
    hosts = place_values(model.graph, constants, overrides)
    planner = _Planner(hosts, constants, model.opset_imports, overrides)
    inputs = {str(value.name): value for value in model.graph.inputs}
    block = planner.block(model.graph, [value for value in model.graph.inputs if value not in constants])
    slots = {value: planner.slots_of(value) for value in constants}
    fed = {name: planner.entries_of(value) for name, value in inputs.items()}
    names = tuple(str(value.name) for value in model.graph.outputs)
    return Plan(block, len(planner.slots), fed, names, {value: where for value, where in slots.items() if where})


class _Planner:
    """Gives out slots; a constant has one for each side on which it is read, any other value has one."""

    def __init__(
        self,
        hosts: frozenset[ir.Value],
        constants: Constants,
        versions: Mapping[str, int],
        overrides: Mapping[ir.Node, Implementation],
    ) -> None:
        self.hosts = hosts
        self.constants = constants
        self.versions = versions
        self.overrides = overrides
        self.slots: dict[tuple[ir.Value, bool], int] = {}

    def slots_of(self, value: ir.Value) -> dict[bool, int]:
        """Return the slots of a value by side; all but constants are under False."""
        return {side: self.slots[value, side] for side in (False, True) if (value, side) in self.slots}

    def entries_of(self, value: ir.Value) -> tuple[Fetch, ...]:
        """Return where an input of the graph has to be: on both sides if it is a constant that both read."""
        sides = {True: Side.HOST, False: Side.DEVICE}
        alone = value in self.hosts and value not in self.constants
        return tuple(Fetch(slot, sides[host or alone]) for host, slot in self.slots_of(value).items())

    def slot(self, value: ir.Value, host: bool = False) -> int:
        """Return the slot of a value, a new one at first."""
        return self.slots.setdefault((value, host and value in self.constants), len(self.slots))

    def block(self, graph: ir.Graph, inputs: Iterable[ir.Value]) -> Block:
        """Plan a graph and those nested in it."""
        entries = tuple(self.slot(value) for value in inputs)
        nodes = [node for node in graph if not is_constant(node)]
        last = _last_uses(nodes)
        kept = set(graph.outputs)
        steps = []
        for node in nodes:
            read = _reads(node)
            dead = [
                value for value in read if last[value] is node and value not in kept and self._belongs(value, graph)
            ]
            dead += [value for value in node.outputs if value.name and value not in last and value not in kept]
            steps.append(self._step(node, tuple(self.slot(value) for value in dead)))
        own = tuple(self.slot(value) for value in kept if self._belongs(value, graph))
        outputs = tuple(self._end(value) for value in graph.outputs)
        return Block(entries, tuple(steps), outputs, own)

    def _belongs(self, value: ir.Value, graph: ir.Graph) -> bool:
        """Tell whether a value is computed in a graph or is its input."""
        producer = value.producer()
        owner = producer.graph if producer is not None else value.graph
        return owner is graph and value not in self.constants

    def _end(self, value: ir.Value) -> Fetch:
        """Return where an output of a graph is read: where it lives."""
        host = value in self.hosts
        return Fetch(self.slot(value, host), Side.HOST if host else Side.DEVICE)

    def _step(self, node: ir.Node, dead: tuple[int, ...]) -> Step:
        op = self._op(node)
        rule = None if node in self.overrides else rule_of(node)
        steering = rule or (Rule(lambda: None) if node in self.overrides else _ELSEWHERE)
        small = rule is not None and rule.place in (Place.FOLLOWS, Place.GROWS)
        host_node = small and any(out in self.hosts for out in node.outputs)
        call = self._call(node, op, rule, host_node)
        inputs = tuple(self._fetch(value, index, steering, host_node) for index, value in enumerate(node.inputs))
        outputs = tuple(self.slot(value) if value.name else -1 for value in node.outputs)
        return Step(op, call, inputs, outputs, dead)

    def _fetch(self, value: ir.Value | None, index: int, rule: Rule, host_node: bool) -> Fetch:
        if value is None:
            return Fetch(-1, Side.ANY)
        host = host_node or index in rule.host
        if rule.place is Place.SHAPE:
            # It measures its input where it is.
            return Fetch(self.slot(value, value in self.hosts), Side.ANY)
        return Fetch(self.slot(value, host), Side.HOST if host else Side.SCALAR if rule.scalars else Side.DEVICE)

    def _op(self, node: ir.Node) -> Op:
        attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
        blocks = {
            name: self.block(attribute.as_graph(), attribute.as_graph().inputs)
            for name, attribute in node.attributes.items()
            if attribute.type is ir.AttributeType.GRAPH
        }
        return Op(node, self._version(node.domain), MappingProxyType(attributes), MappingProxyType(blocks))

    def _version(self, domain: str) -> int:
        """Return the opset of a domain; the standard's has two names."""
        names = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
        return next((self.versions[name] for name in names if name in self.versions), 1)

    def _call(self, node: ir.Node, op: Op, rule: Rule | None, host_node: bool) -> Call:
        if node in self.overrides:
            implementation = self.overrides[node]
            return lambda _frame, inputs: implementation(*inputs)
        fallback = Fallback(op, {domain: self._version(domain) for domain in ("", node.domain)})
        if rule is None:
            return fallback.run
        return _guarded(op, rule, fallback, host_node)


def _guarded(op: Op, rule: Rule, fallback: Fallback, host_node: bool) -> Call:
    """Return the rule as a step runs it; what torch can't do goes to onnxruntime."""
    function = functools.partial(rule.function, op)
    framed = rule.framed

    def call(frame: Frame, inputs: Sequence[Value]) -> Value:
        if any(isinstance(value, np.ndarray) for value in inputs):
            return fallback.run(frame, inputs, NotLoweredError("strings"))
        place = HOST if host_node else frame
        try:
            return function(place, *inputs) if framed else function(*inputs)
        except (NotLoweredError, NotImplementedError) as error:
            return fallback.run(frame, inputs, error)

    return call


def _plain(attribute: ir.Attr) -> Any:
    """Return an attribute as a Python value; graphs are planned on their own."""
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return None
    return list(attribute.value) if isinstance(attribute.value, tuple) else attribute.value


def _reads(node: ir.Node) -> set[ir.Value]:
    """Return what a node reads, the graphs nested in it included."""
    read = {value for value in node.inputs if value is not None}
    for graph in nested(node):
        for inner in graph:
            read |= _reads(inner)
        read |= set(graph.outputs)
    return read


def _last_uses(nodes: Iterable[ir.Node]) -> dict[ir.Value, ir.Node]:
    """Return the last node of a graph that reads each value."""
    return {value: node for node in nodes for value in _reads(node)}
