"""Symbolic shape inference: onnx-shape-inference, with the optimistic answers for Slice and If made safe."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any

import onnx_ir as ir

Types = dict[ir.Value, tuple[ir.TypeProtocol | None, ir.Shape | None]]
"""What values were declared to be."""

Rule = Callable[[Any, ir.Node], None]

_TO_THE_END = 10**9
"""Exporters write "to the end" as any large number."""


def infer_shapes(model: ir.Model) -> None:
    """Infer element types and symbolic shapes of all values, in place; what can't be inferred stays unknown."""
    from onnx_shape_inference import infer_symbolic_shapes

    _make_safe()
    try:
        infer_symbolic_shapes(model)
    except Exception as error:
        # The model may hold operators that the library has no or a faulty rule for; what was found so far is of use.
        logging.getLogger("sartor").info("shape inference stopped: %s", error)
    for value in _values(model):
        _number(value)


def _number(value: ir.Value) -> None:
    """Make numbers of sizes that inference has worked out but left as names, such as "24" for 2 * 12."""
    for axis, size in enumerate(value.shape or ()):
        name = None if isinstance(size, int) else size.value
        if name is not None and name.isdecimal():
            assert value.shape is not None
            value.shape[axis] = int(name)


def declared_types(model: ir.Model) -> Types:
    """Note the types and shapes of all values, before inference refines them in place."""
    return {value: (value.type, None if value.shape is None else value.shape.copy()) for value in _values(model)}


def restore_types(model: ir.Model, declared: Types, keep: Collection[ir.Value]) -> None:
    """Give all values back what they were declared to be, but for those in `keep` and those that are new."""
    for value in _values(model):
        if value in declared and value not in keep:
            value.type, value.shape = declared[value]


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


@functools.cache
def _make_safe() -> None:
    """Replace, once, the library's rules that take for granted what is not known."""
    from onnx_shape_inference import registry

    registry.collect()
    for operator, versions, correct in (("Slice", (10, 11, 13), _correct_slice), ("If", (1,), _correct_if)):
        original = registry.get("", operator, version=versions[-1])
        for version in versions if original is not None else ():
            registry.register("", operator, since_version=version)(_corrected(original, correct))


def _corrected(original: Rule, correct: Callable[[Any, ir.Node, list[ir.Shape | None]], None]) -> Rule:
    """Follow a rule by a correction, which is told the shapes of the outputs before."""

    def infer(ctx: Any, node: ir.Node) -> None:
        before = [None if out.shape is None else out.shape.copy() for out in node.outputs]
        original(ctx, node)
        correct(ctx, node, before)

    return infer


def _correct_if(_ctx: Any, node: ir.Node, before: list[ir.Shape | None]) -> None:
    """Where the shape of one branch is unknown, the result is not that of the other branch."""
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for i, out in enumerate(node.outputs):
        if any(branch.outputs[i].shape is None for branch in branches):
            out.shape = before[i]


def _correct_slice(ctx: Any, node: ir.Node, _before: list[ir.Shape | None]) -> None:
    """Where a named size is cut at a number, the result is the whole size or unknown, not the number."""
    data, out = node.inputs[0], node.outputs[0]
    if data is None or data.shape is None or out.shape is None:
        return
    starts, ends = _integers(node, 1), _integers(node, 2)
    axes, steps = _integers(node, 3), _integers(node, 4)
    if starts is None or ends is None:
        return
    dims = list(out.shape.dims)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[i] if axes else i) % len(dims)
        step = steps[i] if steps else 1
        size = data.shape[axis]
        if isinstance(size, int) or start < 0 or end < 0 or step != 1:
            continue
        dims[axis] = size if start == 0 and end >= _TO_THE_END else ctx.new_symbolic_dim()
    out.shape = ir.Shape(dims)


def _integers(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(x) for x in tensor.numpy().reshape(-1)]
