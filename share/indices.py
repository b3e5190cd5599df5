"""Find the inputs of a model that serve as indices or lengths, and the range their values must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class IndexRange:
    """Integers from `low` up to but not including `high`."""

    low: int
    high: int

    def __and__(self, other: IndexRange) -> IndexRange:
        return IndexRange(max(self.low, other.low), min(self.high, other.high))


Axes = Mapping[str, int]
Rule = Callable[[ir.Node, Axes], IndexRange | None]

# Operators whose result has the values of these operands, only rearranged; None stands for all operands.
_CARRIERS: dict[str, tuple[int, ...] | None] = {
    "Cast": (0,),
    "CastLike": (0,),
    "Clip": (0,),
    "Concat": None,
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Max": None,
    "Min": None,
    "Reshape": (0,),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}


def index_ranges(model: ir.Model, axes: Axes) -> dict[str, IndexRange]:
    """Return the range of every graph input that reaches an index operand; `axes` are the sizes of named axes.

    Looks through rearranging operators, function bodies, If, Loop and Scan. Where the size of the indexed axis is
    unknown the range is zero alone.
    """
    flat = _without_functions(model)
    sources = _formal_sources(flat.graph)
    ranges: dict[str, IndexRange] = {}
    for value, needed in _index_operands(flat.graph, axes):
        for name in _reached_inputs(value, sources, flat.graph):
            ranges[name] = ranges.get(name, needed) & needed
    return ranges


def _without_functions(model: ir.Model) -> ir.Model:
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    copy = model.clone()
    InlinePass()(copy)
    return copy


def _all_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    return iter(ir.traversal.RecursiveGraphIterator(graph))


def _index_operands(graph: ir.Graph, axes: Axes) -> Iterator[tuple[ir.Value, IndexRange]]:
    for node in _all_nodes(graph):
        if node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            continue
        for place, rule in _RULES.get(node.op_type, ()):
            value = node.inputs[place] if place < len(node.inputs) else None
            needed = rule(node, axes)
            if value is not None and needed is not None:
                yield value, needed


def _reached_inputs(value: ir.Value, formal: Mapping[ir.Value, list[ir.Value]], graph: ir.Graph) -> set[str]:
    """Walk from an operand back to the graph inputs whose values it carries."""
    inputs = set(graph.inputs)
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend([*formal.get(current, ()), *_carried(current)])
    return {str(found.name) for found in seen & inputs}


def _carried(value: ir.Value) -> list[ir.Value]:
    node = value.producer()
    if node is None or node.op_type not in _CARRIERS:
        return []
    places = _CARRIERS[node.op_type]
    operands = node.inputs if places is None else [node.inputs[place] for place in places if place < len(node.inputs)]
    return [operand for operand in operands if operand is not None]


def _formal_sources(graph: ir.Graph) -> dict[ir.Value, list[ir.Value]]:
    """Map what enters and leaves the bodies of If, Loop and Scan to where its values come from."""
    sources: dict[ir.Value, list[ir.Value]] = {}
    for node in _all_nodes(graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for target, origin in _body_flows(node, attribute.as_graph()):
                    if origin is not None:
                        sources.setdefault(target, []).append(origin)
    return sources


def _body_flows(node: ir.Node, body: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value | None]]:
    if node.op_type == "If":
        yield from zip(node.outputs, body.outputs, strict=False)
    elif node.op_type == "Loop":
        # A body takes (iteration, condition, carried...) and gives (condition, carried..., scanned...).
        yield from zip(body.inputs[2:], node.inputs[2:], strict=False)
        yield from zip(body.inputs[2:], body.outputs[1:], strict=False)
        yield from zip(node.outputs, body.outputs[1:], strict=False)
    elif node.op_type == "Scan":
        yield from zip(body.inputs, node.inputs, strict=False)
        yield from zip(node.outputs, body.outputs, strict=False)


def _size(value: ir.Value | None, axis: int, axes: Axes) -> int:
    """Return the size of an axis, or 1 where nothing tells it."""
    shape = None if value is None else value.shape
    if shape is None or not -len(shape) <= axis < len(shape):
        return 1
    size = shape[axis]
    return size if isinstance(size, int) else axes.get(str(size.value), 1)


def _along(node: ir.Node, axes: Axes, default: int) -> IndexRange:
    return IndexRange(0, _size(node.inputs[0], _integer(node, "axis", default), axes))


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _along_first(node: ir.Node, axes: Axes) -> IndexRange:
    return _along(node, axes, 0)


def _along_last(node: ir.Node, axes: Axes) -> IndexRange:
    return _along(node, axes, -1)


def _classes(node: ir.Node, axes: Axes) -> IndexRange:
    return IndexRange(0, _size(node.inputs[0], 1, axes))


def _tuples(node: ir.Node, axes: Axes) -> IndexRange:
    """Bound the coordinates of GatherND and ScatterND by the shortest axis that they index."""
    data, indices = node.inputs[0], node.inputs[1]
    first = _integer(node, "batch_dims", 0)
    count = _size(indices, -1, axes)
    return IndexRange(0, min(_size(data, axis, axes) for axis in range(first, first + count)))


def _depth(node: ir.Node, axes: Axes) -> IndexRange:
    constant = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    return IndexRange(0, 1 if constant is None else int(constant.numpy().reshape(-1)[0]))


def _matched(node: ir.Node, axes: Axes) -> IndexRange | None:
    """Bound what is compared with a row of constants, a one-hot encoding written out; one constant bounds nothing."""
    for value in node.inputs:
        constant = None if value is None else ir.convenience.get_const_tensor(value)
        if constant is not None and constant.size > 1 and constant.dtype.is_integer():
            numbers = constant.numpy()
            return IndexRange(int(numbers.min()), int(numbers.max()) + 1)
    return None


def _steps(node: ir.Node, axes: Axes) -> IndexRange:
    return IndexRange(1, 1 + _size(node.inputs[0], _integer(node, "time_axis", 0), axes))


# Operand places with the rule for their values.
_RULES: dict[str, tuple[tuple[int, Rule], ...]] = {
    "ArrayFeatureExtractor": ((1, _along_last),),
    "Equal": ((0, _matched), (1, _matched)),
    "GRU": ((4, _steps),),
    "Gather": ((1, _along_first),),
    "GatherElements": ((1, _along_first),),
    "GatherND": ((1, _tuples),),
    "LSTM": ((4, _steps),),
    "NegativeLogLikelihoodLoss": ((1, _classes),),
    "OneHot": ((0, _depth),),
    "RNN": ((4, _steps),),
    "ReverseSequence": ((1, _steps),),
    "ScatterElements": ((1, _along_first),),
    "ScatterND": ((1, _tuples),),
    "SoftmaxCrossEntropyLoss": ((1, _classes),),
}
