"""The light evaluator: what fusing nodes saves over onnxruntime, without lowering them (FusionStitching, section 2).

    f = saved memory time + saved calls - penalty

- Saved memory time: a value between two members is neither written nor read any more. Each avoided write and each
  avoided read by a member costs `Light.edge` microseconds, bytes times a rate that depends on the cache that they fit.
- Saved calls: onnxruntime dispatches each member; the group is dispatched once: `Light.call` for each member but one.
- Penalty: `Light.again`, the operators of a node that is computed once more in a second group.

All three are sums over vertices and edges, so that scores of disjoint parts add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, prod

import onnx_ir as ir

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError, parse_size, size_of
from sartor.tools.fuse.coefficients import DEFAULTS, Caches, StockRates
from sartor.tools.fuse.outline import constant_array, tensor_type
from sartor.tools.fuse.traffic import beyond

UNKNOWN = 128
"""What an axis of unknown size counts for, unless it is the first of several, which is often the batch and counts 1."""

WORK: Mapping[str, float] = {
    **dict.fromkeys(("Tan", "Sinh", "Asinh", "Atanh"), 13.0),
    **dict.fromkeys(("Softplus", "Mish"), 9.5),
    **dict.fromkeys(("Cosh", "Acosh"), 5.0),
    **dict.fromkeys(("Pow", "Where"), 4.0),
    **dict.fromkeys(("Log", "Elu", "Selu", "Celu", "GatherElements", "GatherND", "Mod"), 1.4),
    **dict.fromkeys(("Sin", "Cos"), 1.2),
    **dict.fromkeys(("Asin", "Acos", "Atan"), 0.7),
    **dict.fromkeys(("Gelu", "LayerNormalization", "RMSNormalization", "Sqrt", "Slice"), 0.3),
    **dict.fromkeys(("Erf", "Floor", "Ceil", "Round", "HardSwish", "Transpose"), 0.2),
    **dict.fromkeys(("Tanh", "Sigmoid", "Swish", "Softmax", "LogSoftmax"), 0.15),
}
"""Nanoseconds an element that onnxruntime 1.32 spends on dear operators in cache, less their transfers."""

LIGHT_WORK = 0.02

FREE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"})
"""Operators that onnxruntime runs without copying."""

PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
"""Operators that read no more of their input than they write."""


def bytes_of(value: ir.Value, axes: Mapping[str, int]) -> int | None:
    """Return the bytes of a tensor; None for unknown sizes."""
    kind = tensor_type(value)
    if kind is None or kind.dtype not in ops.STORAGE:
        return None
    total: int | None = ops.STORAGE[kind.dtype].size
    for dim in kind.shape:
        try:
            number = size_of(parse_size(dim), axes)
        except NotEmittableError:
            return None
        total = None if total is None or number is None else total * number
    return total


class Light:
    """Prices edges and vertices of a graph in microseconds at given sizes of its named axes."""

    def __init__(
        self, axes: Mapping[str, int], rates: StockRates = DEFAULTS.stock, caches: Caches = DEFAULTS.caches
    ) -> None:
        self.axes, self.rates, self.caches = axes, rates, caches
        self._sizes: dict[ir.Value, float] = {}

    def edge(self, producer: ir.Node, value: ir.Value) -> float:
        """Return what a group saves for each avoided read of a value of its member `producer`, or its avoided write."""
        assert value.producer() is producer, "an edge leaves the node that makes its value"
        return self.transfer(value)

    def call(self) -> float:
        """Return what each node costs that onnxruntime dispatches."""
        return self.rates.node / 1e3

    def again(self, node: ir.Node) -> float:
        """Return what the operators of a node cost, its transfers not counted."""
        return self.rates.work * self._work(node) / 1e3

    def transfer(self, value: ir.Value) -> float:
        """Return the microseconds in which onnxruntime reads or writes a value once."""
        return self._distance_us(self._bytes(value))

    def _distance_us(self, moved: float) -> float:
        rates = (self.rates.near, self.rates.l2, self.rates.l3, self.rates.memory)
        return sum(rate * amount for rate, amount in zip(rates, self._distances(moved), strict=True)) / 1e3

    def amounts(self, nodes: Sequence[ir.Node]) -> StockRates:
        """Count what onnxruntime does to run nodes one by one, each feature in the unit of its rate."""
        moved = [self._distances(size) for node in nodes for size in self._moved(node)]
        far = [sum(column) for column in zip(*moved, strict=True)]
        return StockRates(1.0, len(nodes), sum(self._work(node) for node in nodes), *far)

    def _work(self, node: ir.Node) -> float:
        cost = WORK.get(node.op_type, LIGHT_WORK)
        if node.op_type == "Pow" and node.inputs[1] is not None and constant_array(node.inputs[1]) is not None:
            # Squares and roots have loops of their own.
            cost = LIGHT_WORK
        values = node.outputs if node.op_type in PICKING else (*node.inputs, *node.outputs)
        return cost * max((self.elements(value) for value in values if value is not None), default=0.0)

    def _moved(self, node: ir.Node) -> list[float]:
        written = [self._bytes(value) for value in node.outputs]
        most = sum(written) if node.op_type in PICKING else inf
        return [*(min(most, self._bytes(value)) for value in node.inputs if value is not None), *written]

    def _distances(self, moved: float) -> tuple[float, float, float, float]:
        """Return bytes, and how many of them lie beyond each cache, which an operator's result takes up as well."""
        caches = (self.caches.l1, self.caches.l2, self.caches.l3)
        l1, l2, l3 = (moved * beyond(2 * moved, size) for size in caches)
        return moved, l1, l2, l3

    def stock(self, nodes: Sequence[ir.Node]) -> float:
        """Estimate what onnxruntime needs for nodes one by one, without the fixed cost of a session's call."""
        moved = sum(self._distance_us(size) for node in nodes for size in self._moved(node))
        return len(nodes) * self.call() + sum(self.again(node) for node in nodes) + moved

    def saved_us(self, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> float:
        """Return f of a group: every edge inside it, every member but one."""
        inside, kept = set(nodes), set(outputs)
        total = (len(nodes) - 1) * self.call()
        for node in nodes:
            for value in node.outputs:
                reads = sum(use.node in inside for use in value.uses())
                total += self.edge(node, value) * (reads + (value not in kept)) if reads else 0.0
        return total

    def _bytes(self, value: ir.Value) -> float:
        if value not in self._sizes:
            kind = tensor_type(value)
            storage = None if kind is None else ops.STORAGE.get(kind.dtype)
            shape = () if kind is None else kind.shape
            known = [self._dim(dim, i == 0 and len(shape) > 1) for i, dim in enumerate(shape)]
            self._sizes[value] = prod(known) * (storage.size if storage else 4)
        return self._sizes[value]

    def elements(self, value: ir.Value) -> float:
        """Return the elements of a value."""
        width = ops.STORAGE[value.dtype].size if value.dtype in ops.STORAGE else 4
        return self._bytes(value) / width

    def _dim(self, dim: int | str | None, batch: bool) -> float:
        default = 1 if batch else UNKNOWN
        if isinstance(dim, int):
            return dim
        try:
            size = parse_size(dim)
        except NotEmittableError:
            return default
        return size.factor * prod(self.axes.get(name, default) for name in size.names)
