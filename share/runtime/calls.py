"""Find the calls of model-local functions that executors may override, with the types of each call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import onnx_ir as ir

from sartor.share.runtime.kernel import Dim, FunctionCall, TensorType
from sartor.share.shapes import infer_shapes

Identifier = tuple[str, str, str]
"""Domain, name and overload of a function."""


def find_calls(model: ir.Model, wanted: frozenset[Identifier]) -> dict[Identifier, list[FunctionCall | None]]:
    """Return the calls of the wanted functions that a session meets; None stands for one whose types are unknown."""
    typed = typed_model(model, wanted)
    found: dict[Identifier, list[FunctionCall | None]] = {}
    for node in call_nodes(typed.graph, wanted):
        found.setdefault(node.op_identifier(), []).append(function_call(node, typed.functions[node.op_identifier()]))
    return found


def call_nodes(graph: ir.Graph | ir.Function, wanted: frozenset[Identifier]) -> Iterator[ir.Node]:
    """Yield the calls of the wanted functions, those in nested graphs included."""
    return (node for node in graph.all_nodes() if node.op_identifier() in wanted)


def tensor_type(value: ir.Value) -> TensorType | None:
    """Return the element type and shape of a value, or None where either is unknown or it is no tensor."""
    if not isinstance(value.type, ir.TensorType) or value.shape is None:
        return None
    if value.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    assert value.dtype is not None
    return TensorType(value.dtype, tuple(_dim(dim) for dim in value.shape))


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    """Return a size as a number or a name."""
    return dim if isinstance(dim, int) else dim.value


def typed_model(model: ir.Model, wanted: frozenset[Identifier]) -> ir.Model:
    """Return the model, or a copy in which the types of the calls are inferred and no call hides in a function."""
    hidden = any(any(call_nodes(function, wanted)) for function in model.functions.values())
    known = all(function_call(node, model.functions[node.op_identifier()]) for node in call_nodes(model.graph, wanted))
    if known and not hidden:
        return model
    typed = model.clone()
    if hidden:
        _inline_others(typed, wanted)
    infer_shapes(typed)
    return typed


def _inline_others(model: ir.Model, wanted: frozenset[Identifier]) -> None:
    """Inline the functions that have no kernels, as onnxruntime does when it loads the model."""
    from onnx_ir.passes import PassError
    from onnx_ir.passes.common import InlinePass

    try:
        InlinePass(criteria=lambda function: function.identifier() not in wanted)(model)
    except (PassError, ValueError) as error:
        warnings.warn(f"{model.graph.name}: functions cannot be inlined ({error})", RuntimeWarning, 2)


def function_call(node: ir.Node, function: ir.Function) -> FunctionCall | None:
    """Return the call with its types, or None where one is unknown or an output is left out."""
    padding = [None] * (len(function.inputs) - len(node.inputs))
    inputs = [None if value is None else tensor_type(value) for value in (*node.inputs, *padding)]
    outputs = [tensor_type(value) for value in node.outputs if value.name]
    present = [value is not None for value in (*node.inputs, *padding)]
    if any(here and type_ is None for here, type_ in zip(present, inputs, strict=True)):
        return None
    complete = tuple(type_ for type_ in outputs if type_ is not None)
    if len(complete) != len(function.outputs):
        return None
    constants = tuple(None if value is None else _constant(value) for value in (*node.inputs, *padding))
    return FunctionCall(function, tuple(inputs), complete, constants)


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    """Return what a value always holds: an initializer that no caller can replace."""
    return value.const_value if value.is_initializer() and not value.is_graph_input() else None
