"""The checks of a parsed model as a whole: versions we know, and graphs in which every name has one maker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from sartor.share.artifact.contents import damaged, quote
from sartor.share.errors import InputRefusedError

if TYPE_CHECKING:
    import onnx
    from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
    from google.protobuf.message import Message  # type: ignore[import-untyped]

_NEWER = "Install a newer onnx, or export the model for an older version"
_DEFAULT_DOMAINS = ("", "ai.onnx")


def check_versions(model: onnx.ModelProto, subject: str) -> None:
    """Raise InputRefusedError for a model without graph, or of a version newer than the installed onnx."""
    import onnx

    if not model.HasField("graph"):
        raise damaged("the model has no graph", subject)
    if model.ir_version > onnx.IR_VERSION:
        reason = f"the model has IR version {model.ir_version}; the newest that we know is {onnx.IR_VERSION}"
        raise InputRefusedError(reason, subject=subject, remedy=_NEWER)
    if model.ir_version < 1:
        raise damaged("the model has no IR version", subject)
    if not model.opset_import and model.ir_version >= 3:
        raise damaged("the model imports no operator set", subject)
    for owner in (model, *model.functions):
        _check_opsets(owner.opset_import, onnx.defs.onnx_opset_version(), subject)


def check_graphs(model: onnx.ModelProto, subject: str) -> None:
    """Raise InputRefusedError where a name has no maker or two, nodes form a circle, or we would lose something."""
    if model.training_info:
        raise InputRefusedError(
            "the model carries training information, which we would lose",
            subject=subject,
            remedy="Export it for inference",
        )
    _check_graph(model.graph, [], subject)
    names: set[tuple[str, str, str]] = set()
    for function in model.functions:
        name = (function.domain, function.name, function.overload)
        if name in names:
            raise damaged(f"function {quote(function.name)} is defined twice", subject)
        names.add(name)
        _check_function(function, subject)


def check_texts(message: Message, subject: str) -> None:
    """Raise InputRefusedError where a name is not UTF-8, which protobuf hands out as bytes without a word."""
    import onnx

    for field, value in _fields_but_numbers(message, onnx.TensorProto):
        if field.type == field.TYPE_STRING:
            values = (value,) if isinstance(value, str | bytes) else value
            if any(isinstance(each, bytes) for each in values):
                raise damaged("the model is damaged, a name in it is not text", subject)
        elif field.type == field.TYPE_MESSAGE:
            for each in (value,) if hasattr(value, "ListFields") else value:
                check_texts(each, subject)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: initialisers and attributes, of subgraphs and functions too."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _fields_but_numbers(message: Message, tensor_class: type[Message]) -> Iterator[tuple[FieldDescriptor, Any]]:
    if not isinstance(message, tensor_class):
        yield from message.ListFields()
        return
    # ListFields would copy the whole raw data.
    for name in ("name", "doc_string", "external_data", "metadata_props"):
        yield message.DESCRIPTOR.fields_by_name[name], getattr(message, name)


def _check_opsets(imports: Sequence[onnx.OperatorSetIdProto], newest: int, subject: str) -> None:
    for opset in imports:
        if opset.domain not in _DEFAULT_DOMAINS:
            continue
        if opset.version > newest:
            reason = f"the model uses opset {opset.version}; the newest that we know is {newest}"
            raise InputRefusedError(reason, subject=subject, remedy=_NEWER)
        if opset.version < 1:
            raise damaged(f"the model uses opset {opset.version}", subject)


def _check_function(function: onnx.FunctionProto, subject: str) -> None:
    known: set[str] = set()
    for value in function.input:
        _define(value, known, subject)
    _check_nodes(function.node, known, [], subject)
    _check_outputs(function.output, [known], subject)


def _check_graph(graph: onnx.GraphProto, outer: list[set[str]], subject: str) -> None:
    if graph.sparse_initializer:
        raise _sparse(subject)
    known: set[str] = set()
    for value in graph.input:
        _define(value.name, known, subject)
    stored: set[str] = set()
    for tensor in graph.initializer:
        _define(tensor.name, stored, subject)
    known |= stored
    _check_nodes(graph.node, known, outer, subject)
    _check_outputs([value.name for value in graph.output], [known, *outer], subject)


def _check_nodes(nodes: Sequence[onnx.NodeProto], known: set[str], outer: list[set[str]], subject: str) -> None:
    given = set(known)
    for node in nodes:
        for name in node.output:
            if name:
                _define(name, known, subject)
    scopes = [known, *outer]
    for node in nodes:
        _check_attributes(node, subject)
        for name in node.input:
            if name and not any(name in scope for scope in scopes):
                raise damaged(f"node {_title(node)} reads {quote(name)}, which nothing defines", subject)
        for graph in _subgraphs(node):
            _check_graph(graph, scopes, subject)
    _check_order(nodes, given, known, subject)


def _check_attributes(node: onnx.NodeProto, subject: str) -> None:
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise _sparse(subject)
        # Numbers and strings may be left out where they are zero or empty.
        field = {attribute.TENSOR: "t", attribute.GRAPH: "g", attribute.TYPE_PROTO: "tp"}.get(attribute.type)
        held = attribute.type != attribute.UNDEFINED and (field is None or attribute.HasField(field))
        if not (held or attribute.ref_attr_name):
            raise damaged(f"attribute {quote(attribute.name)} of node {_title(node)} has no value of its type", subject)


def _check_order(nodes: Sequence[onnx.NodeProto], given: set[str], known: set[str], subject: str) -> None:
    """Refuse a circle; nodes that are merely out of order pass, as they do in onnxruntime."""
    done = set(given)
    uses = [set(_uses(node)) & known for node in nodes]
    ordered = True
    for node, names in zip(nodes, uses, strict=True):
        ordered = ordered and names <= done
        done.update(node.output)
    if ordered:
        return
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    edges = {index: {maker[name] for name in names - given} for index, names in enumerate(uses)}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        raise damaged(f"node {_title(nodes[error.args[1][0]])} depends on its own result", subject) from None


def _uses(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for graph in _subgraphs(node):
        own = {name for inner in graph.node for name in inner.output}
        own.update(value.name for value in (*graph.input, *graph.initializer))
        for inner in graph.node:
            yield from (name for name in _uses(inner) if name not in own)
        yield from (value.name for value in graph.output if value.name not in own)


def _check_outputs(names: Sequence[str], scopes: list[set[str]], subject: str) -> None:
    for name in names:
        if not any(name in scope for scope in scopes):
            raise damaged(f"the output {quote(name)} is produced by nothing", subject)


def _define(name: str, known: set[str], subject: str) -> None:
    if not name:
        raise damaged("a value has no name", subject)
    if name in known:
        raise damaged(f"the name {quote(name)} is defined twice", subject)
    known.add(name)


def _sparse(subject: str) -> InputRefusedError:
    return InputRefusedError(
        "the model stores sparse tensors, which we can't read", subject=subject, remedy="Store them dense"
    )


def _title(node: onnx.NodeProto) -> str:
    return f"{quote(node.name)} ({node.op_type})" if node.name else quote(node.op_type)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in _subgraphs(node):
            yield from _tensors_of_graph(graph)
