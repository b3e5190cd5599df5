"""The way back: functions of fused groups are inlined, and nodes get the names that they had."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import PassError
from onnx_ir.passes.common import InlinePass

from sartor.share import history
from sartor.share.artifact import read_model, write_model
from sartor.share.errors import InputRefusedError
from sartor.tools.fuse.emit import SOURCE_NODES
from sartor.tools.fuse.plan import DOMAIN

_CALL = "sartor.call"
"""Tells the nodes of one call from those of the next, while they are inlined."""


@dataclass(frozen=True)
class Restored:
    """How many calls were inlined, and of how many functions."""

    calls: int
    functions: int

    def __str__(self) -> str:
        return f"{self.calls} calls of {self.functions} functions inlined"


def restore(source: str, target: str, argv: Sequence[str] | None) -> Restored:
    """Write a fused model as a plain one; without argv leave no history record.

    Raises InputRefusedError, OutputError, WriteError, and UsageError for a terminal.
    """
    model = read_model(source)
    found = inline_groups(model.ir, model.source)
    if argv is not None:
        previous = history.last_id(history.read_onnx(model.ir, model.source))
        record = history.make_record("fuse", argv, [model.sha256], {"inline": True}, None, previous)
        history.append_onnx(model.ir, record, model.source)
    write_model(model.ir, target)
    return found


def inline_groups(model: ir.Model, subject: str) -> Restored:
    """Inline every call of a fused group, in place; raises InputRefusedError for functions that call each other."""
    ours = [function for function in model.functions.values() if function.domain == DOMAIN]
    calls = _marked(node for graph in _graphs(model) for node in graph if node.domain == DOMAIN)
    try:
        InlinePass(criteria=lambda function: function.domain == DOMAIN)(model)
    except (PassError, ValueError) as error:
        raise InputRefusedError(f"its functions can't be inlined ({error})", subject=subject) from error
    _rename([node for graph in _graphs(model) for node in graph], calls)
    for function in ours:
        model.functions.pop(function.identifier(), None)
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        imports.pop(DOMAIN, None)
    return Restored(len(calls), len(ours))


def _graphs(model: ir.Model) -> Iterable[ir.Graph]:
    """Return the graphs of a model and of its functions, those of nested nodes included."""
    graphs = list(model.graphs())
    for function in model.functions.values():
        graphs += [function.graph, *function.graph.subgraphs()]
    return {id(graph): graph for graph in graphs}.values()


def _marked(calls: Iterable[ir.Node]) -> list[list[str]]:
    """Number the calls, and return the names of the nodes that each stands for."""
    names: list[list[str]] = []
    for call in calls:
        call.metadata_props[_CALL] = str(len(names))
        names.append(_sources(call))
    return names


def _sources(call: ir.Node) -> list[str]:
    try:
        found = json.loads(call.metadata_props.get(SOURCE_NODES, "[]"))
    except ValueError:
        return []
    return [str(name) for name in found] if isinstance(found, list) else []


def _rename(nodes: Iterable[ir.Node], calls: Sequence[Sequence[str]]) -> None:
    """Name the inlined nodes, which carry the metadata of their call, and let go of that metadata."""
    members: dict[str, list[ir.Node]] = {}
    taken = {""}
    for node in nodes:
        number = node.metadata_props.pop(_CALL, None)
        if number is not None:
            node.metadata_props.pop(SOURCE_NODES, None)
            members.setdefault(number, []).append(node)
        else:
            taken.add(node.name or "")
    for number, inlined in members.items():
        # Constants were written into the body; they stand for no node.
        bodies = [node for node in inlined if node.op_type != "Constant"]
        names = calls[int(number)]
        known = names if len(names) == len(bodies) else [""] * len(bodies)
        for node in inlined:
            node.name = ""
        for node, name in zip(bodies, known, strict=True):
            # A node without a name is known by its operator; onnxruntime refuses equal names.
            node.name = "" if name == node.op_type or name in taken else name
            taken.add(node.name)
