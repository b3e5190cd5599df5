"""Emission: groups become calls of local functions; the rest of the model stays as it was."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from itertools import chain, count

import onnx_ir as ir

from sartor.tools.fuse.plan import DOMAIN, Group

LEAST_IR_VERSION = 10
SOURCE_NODES = "sartor.sources"
"""Metadata of a call: the names of the nodes that it stands for, as a JSON list (Netron shows it)."""


def emit(model: ir.Model, groups: Sequence[Group]) -> None:
    """Replace the nodes of each group by a call, in place; equal bodies share one function."""
    replaced: dict[ir.Value | None, ir.Value] = {}
    taken = {node.name for graph in model.graphs() for node in graph}
    for group in groups:
        _replace(model, group, replaced, taken)
    if not groups:
        return
    for graph in {id(group.graph): group.graph for group in groups}.values():
        graph.sort()
    model.opset_imports[DOMAIN] = 1
    _raise_ir_version(model)


def _raise_ir_version(model: ir.Model) -> None:
    """Local functions need IR 8 and more; before IR 4 every initialiser was an input, and yet a constant."""
    if model.ir_version < 4:
        constants = set(model.graph.initializers)
        inputs = [value for value in model.graph.inputs if value.name not in constants]
        model.graph.inputs.clear()
        model.graph.inputs.extend(inputs)
    model.ir_version = max(model.ir_version, LEAST_IR_VERSION)


def _replace(
    model: ir.Model, group: Group, replaced: dict[ir.Value | None, ir.Value], taken: Container[str | None]
) -> None:
    function = group.call.function
    model.functions.setdefault(function.identifier(), function)
    outputs = [ir.Value(name=old.name, type=old.type, shape=old.shape) for old in group.outputs]
    call = ir.Node(
        DOMAIN,
        function.name,
        [replaced.get(value, value) for value in group.inputs],
        outputs=outputs,
        name=_free_name(f"{DOMAIN}/{group.id}", taken),
        metadata_props={SOURCE_NODES: json.dumps(group.names)},
    )
    sources = [value for node in group.nodes for value in node.inputs if value is not None]
    replaced.update(zip(group.outputs, outputs, strict=True))
    ir.convenience.replace_all_uses_with(list(group.outputs), outputs, replace_graph_outputs=True)
    group.graph.insert_after(group.nodes[-1], call)
    group.graph.remove(group.nodes, safe=True)
    remove_dead(sources)


def _free_name(name: str, taken: Container[str | None]) -> str:
    """Return a name that no call of an earlier run has: onnxruntime refuses equal ones."""
    return next(free for free in chain([name], (f"{name}_{i}" for i in count(2))) if free not in taken)


def remove_dead(values: Iterable[ir.Value]) -> None:
    """Remove nodes and the nodes before them, and initialisers, that nobody needs any more."""
    pending = list(values)
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is None:
            _remove_initialiser(value)
            continue
        if node.graph is None:
            continue
        if any(out.is_graph_output() or out.uses() for out in node.outputs):
            continue
        pending.extend(value for value in node.inputs if value is not None)
        node.graph.remove(node, safe=True)


def _remove_initialiser(value: ir.Value) -> None:
    if value.graph is None or value.uses() or value.is_graph_input() or value.is_graph_output():
        return
    value.graph.initializers.pop(str(value.name), None)
