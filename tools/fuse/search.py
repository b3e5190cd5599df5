"""The search for a plan: what the explorer proposes for a graph's nodes, and which proposal the cost model prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from sartor.share.runtime.kernel import FunctionCall, TensorType
from sartor.tools.fuse.explore import Space, Vertex, bits, explore
from sartor.tools.fuse.places import Place
from sartor.tools.fuse.regions import Analysis, make_region
from sartor.tools.fuse.rules import RULES, Kind
from sartor.tools.fuse.score import FREE, UNKNOWN
from sartor.tools.fuse.transposes import moves_last_axis

TURN_NS = 0.3
"""What an element more costs in a kernel than in onnxruntime where a transpose moves the last axis: it is read or
written by the stride."""


class Search:
    """Prices nodes at given sizes of the named axes, by the light evaluator and by the cost model."""

    def __init__(self, axes: Mapping[str, int], place: Place, opset: int) -> None:
        self.axes, self.place = axes, place
        self.light = place.light(axes)
        self.analysis = Analysis(opset, place=place)
        self._known: dict[tuple[str, tuple[TensorType | None, ...]], float] = {}

    def alternatives(self, graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[list[list[ir.Node]]]:
        """Return plans for nodes in topological order: lists of patterns, the best by the light evaluator first."""
        space = Space(self._vertices(graph, nodes), self.light.call())
        return [[[nodes[i] for i in bits(p.mask)] for p in plan.patterns] for plan in explore(space)]

    def price(self, calls: Sequence[FunctionCall], rest: Sequence[ir.Node]) -> float:
        """Estimate the microseconds of kernels and of the nodes left to onnxruntime: the accurate evaluator."""
        left = [node for node in rest if node.op_type not in FREE]
        return sum(map(self._predicted, calls)) + self.light.stock(left) + self.light.call() * (len(rest) - len(left))

    def _predicted(self, call: FunctionCall) -> float:
        key = (call.function.name, call.inputs)
        if key not in self._known:
            found = self.place.cost(call, self.axes, UNKNOWN).predicted_us
            assert found is not None, "every size has been filled in"
            self._known[key] = found
        return self._known[key]

    def _vertices(self, graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[Vertex]:
        number = {node: i for i, node in enumerate(nodes)}
        return [self._vertex(graph, node, number) for node in nodes]

    def _vertex(self, graph: ir.Graph, node: ir.Node, number: Mapping[ir.Node, int]) -> Vertex:
        users = [(out, use.node) for out in node.outputs for use in out.uses()]
        inside = {number[user]: user for _, user in users if user in number}
        outside = len(inside) < len({user for _, user in users}) or any(out.is_graph_output() for out in node.outputs)
        moved = 0.0 if node.op_type in FREE else sum(self.light.transfer(out) for out in node.outputs)
        readers = [user for user in inside.values() if user.op_type not in FREE]
        return Vertex(
            consumers=tuple(sorted(inside)),
            call=self.light.call() - self._penalty(node),
            read=moved * len(readers) / max(len(inside), 1),
            write=moved,
            outside=outside,
            barred=frozenset(i for i, user in inside.items() if self._is_barred(graph, node, user)),
        )

    def _penalty(self, node: ir.Node) -> float:
        """Return what a node loses in a kernel."""
        if not moves_last_axis(node):
            return 0.0
        return TURN_NS * self.light.elements(node.outputs[0]) / 1e3

    def _is_barred(self, graph: ir.Graph, node: ir.Node, user: ir.Node) -> bool:
        """Tell whether no kernel takes two neighbours; element-wise operators get along with each other."""
        plain = (Kind.LIGHT, Kind.EXPENSIVE)
        if RULES[node.op_type].kind in plain and RULES[user.op_type].kind in plain:
            return False
        return isinstance(make_region(graph, [node, user], self.analysis), str)
