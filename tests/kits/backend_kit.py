"""The node tests of the ONNX standard: their models, inputs and expected outputs, and ways to run them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.backend.test.runner import Runner

from sartor.share.runtime import kernels_of, load
from sartor.share.runtime.kernel import FunctionCall
from sartor.share.shapes import infer_shapes
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.emit import emit
from sartor.tools.fuse.group import find_groups
from sartor.tools.fuse.kernel import kernel_source
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.outline import Outline, outline, tensor_type
from sartor.tools.fuse.plan import DOMAIN
from sartor.tools.fuse.rules import RULES

EVERY = 20
"""Of the cases beyond the first of each operator, the default run takes one in so many."""


@dataclass(frozen=True)
class Case:
    """One node test; a data set is the inputs and the expected outputs."""

    name: str
    model: onnx.ModelProto
    data: tuple[tuple[list[Any], list[Any]], ...]
    rtol: float
    atol: float


@functools.cache
def cases() -> dict[str, Case]:
    """Return all node tests by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        loaded = load_model_tests(kind="node")
    return {case.name: Case(case.name, case.model, _data(case.data_sets), case.rtol, case.atol) for case in loaded}


def _data(sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> tuple[tuple[list[Any], list[Any]], ...]:
    return tuple(([_plain(x) for x in inputs], [_plain(x) for x in outputs]) for inputs, outputs in sets)


def _plain(value: Any) -> Any:
    """Turn protobuf tensors and numpy scalars into arrays."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def default_names() -> set[str]:
    """Choose the cases of the default run: the first of every operator, and every so many of the others."""
    seen: set[str] = set()
    chosen = set()
    for i, (name, case) in enumerate(cases().items()):
        operators = {node.op_type for node in case.model.graph.node} & set(RULES)
        if not operators <= seen or i % EVERY == 0:
            chosen.add(name)
        seen |= operators
    return chosen


def check(case: Case, session: Any) -> None:
    """Run a session on the case's inputs; raises AssertionError where the outputs are not those expected."""
    names = [value.name for value in case.model.graph.input]
    for inputs, expected in case.data:
        feed = dict(zip(names, inputs, strict=False))
        wanted = {value.name for value in session.get_inputs()}
        outputs = session.run(None, {name: value for name, value in feed.items() if name in wanted})
        Runner.assert_similar_outputs(expected, outputs, case.rtol, case.atol)


@functools.cache
def stock_passes(name: str) -> bool:
    """Tell whether stock onnxruntime passes a case."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    case = cases()[name]
    try:
        content = case.model.SerializeToString()
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
        check(case, session)
    except Exception:
        return False
    return True


def parameters(case: Case) -> dict[str, Any]:
    """Return the inputs that an operator's rule needs to be constant, by name."""
    names = [value.name for value in case.model.graph.input]
    wanted = {
        name
        for node in case.model.graph.node
        if node.op_type in RULES
        for index, name in enumerate(node.input)
        if name in names and index in RULES[node.op_type].parameters
    }
    return {name: array for name, array in zip(names, case.data[0][0], strict=False) if name in wanted}


def typed(case: Case, constants: dict[str, Any]) -> ir.Model:
    """Return a case's model with inferred shapes; the inputs among `constants` become initialisers."""
    model = ir.serde.deserialize_model(case.model)
    for value in [value for value in model.graph.inputs if value.name in constants]:
        value.const_value = ir.Tensor(constants[str(value.name)], name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    infer_shapes(model)
    return model


def fused(case: Case) -> tuple[ir.Model, int]:
    """Fuse a case, every group kept; return the model and the number of groups."""
    model = typed(case, {})
    groups, _ = find_groups(model, frozenset(), Selection())
    emit(model, groups)
    return model, len(groups)


def whole(case: Case, constants: dict[str, Any]) -> tuple[ir.Model, bool]:
    """Make a whole graph one function; return the model and whether the function has a kernel."""
    model = typed(case, constants)
    if not _outlinable(model):
        return ir.serde.deserialize_model(_as_function(ir.serde.serialize_model(model))), False
    nodes = list(model.graph)
    outlined = outline(nodes, model.opset_imports.get("", 1))
    emittable = has_kernel(outlined)
    _call(model, outlined)
    return model, emittable


def _outlinable(model: ir.Model) -> bool:
    """Tell whether the graph holds nothing but plain operators of the standard."""
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    plain = all(
        node.domain in ("", "ai.onnx") and not any(attr.type in graphs for attr in node.attributes.values())
        for node in model.graph
    )
    return plain and all(out.producer() is not None for out in model.graph.outputs)


def has_kernel(outlined: Outline) -> bool:
    """Tell whether a function has a kernel for the types of its call."""
    inputs = [None if value is None else tensor_type(value) for value in outlined.inputs]
    outputs = [tensor_type(value) for value in outlined.outputs]
    if None in outputs or any(kind is None for kind, value in zip(inputs, outlined.inputs, strict=True) if value):
        return False
    try:
        kernel_source(FunctionCall(outlined.function, tuple(inputs), tuple(kind for kind in outputs if kind)))
    except NotEmittableError:
        return False
    return True


def _call(model: ir.Model, outlined: Outline) -> None:
    """Replace a graph's nodes by a call of the function made of them."""
    old = list(model.graph)
    outputs = [ir.Value(name=out.name, type=out.type, shape=out.shape) for out in outlined.outputs]
    call = ir.Node(DOMAIN, outlined.function.name, list(outlined.inputs), outputs=outputs)
    ir.convenience.replace_all_uses_with(list(outlined.outputs), outputs, replace_graph_outputs=True)
    model.graph.remove(old, safe=True)
    model.graph.append(call)
    model.functions[outlined.function.identifier()] = outlined.function
    model.opset_imports[DOMAIN] = 1
    model.ir_version = 10


def _as_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move a graph as it is into a function."""
    graph = model.graph
    inputs = [value.name for value in (*graph.input, *graph.initializer)]
    outputs = [value.name for value in graph.output]
    body = helper.make_function(DOMAIN, "whole", inputs, outputs, graph.node, model.opset_import)
    del graph.node[:]
    del graph.value_info[:]
    graph.node.append(helper.make_node("whole", inputs, outputs, domain=DOMAIN))
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.ir_version = 10
    return model


def run(case: Case, model: ir.Model, expects_kernels: bool) -> None:
    """Open a model with our kernels and check it; raises AssertionError also where kernels are missing."""
    session = load(model, threads=1)
    assert bool(kernels_of(session)) == expects_kernels
    check(case, session)
