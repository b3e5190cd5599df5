"""Emission: a recurrent node becomes a call of a local function that decodes its weights and runs the node.

The function takes what the node takes, a coded matrix in place of each that was made sparse. Stock onnxruntime inlines
it, decodes once and runs dense; a session of ours finds the coded form and never makes it dense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from sartor.tools.sparse_rnn.encode import Array, Coded, decoder
from sartor.tools.sparse_rnn.find import BIAS, PEEPHOLES, Layer, R, W
from sartor.tools.sparse_rnn.names import free_name, taken_names

DOMAIN = "sartor.sparse_rnn"
LEAST_IR_VERSION, DIGITS = 10, 12
MATRICES = {W: "W", R: "R"}
"""What may be coded, by its position among a node's inputs."""


def emit(model: ir.Model, coded: Mapping[Layer, Mapping[int, Coded]]) -> None:
    """Replace the weights of layers, by their positions among the node's inputs, with coded ones, in place."""
    if not coded:
        return
    taken = taken_names(model)
    for layer, matrices in coded.items():
        _replace(model, layer, matrices, taken)
    model.opset_imports[DOMAIN] = 1
    model.ir_version = max(model.ir_version, LEAST_IR_VERSION)


def coded_names(place: int) -> tuple[str, ...]:
    """Return what a function calls gaps and values of the matrix at a position; nothing where none is ever coded."""
    return tuple(f"{MATRICES[place]}_{part}" for part in ("gaps", "values")) if place in MATRICES else ()


def _complete(layer: Layer) -> None:
    """Give what goes in and out the types that the operator has: in branches few exporters write any."""
    node, cell, hidden = layer.node, layer.cell, layer.hidden
    element = ir.DataType.from_numpy(layer.weights.r.dtype)
    state = [cell.directions, None, hidden]
    inputs = {0: (element, [None, None, layer.weights.w.shape[2]]), 4: (ir.DataType.INT32, [None]),
              5: (element, state), 6: (element, state)}  # fmt: skip
    outputs = {0: (element, [None, cell.directions, None, hidden]), 1: (element, state), 2: (element, state)}
    for values, known in ((node.inputs, inputs), (node.outputs, outputs)):
        for place, value in enumerate(values):
            if value is None or place not in known:
                continue
            dtype, shape = known[place]
            value.type = value.type or ir.TensorType(dtype)
            value.shape = value.shape if value.shape is not None else ir.Shape(shape)


def _replace(model: ir.Model, layer: Layer, matrices: Mapping[int, Coded], taken: set[str]) -> None:
    node = layer.node
    _complete(layer)
    old = list(node.inputs)
    inputs: list[ir.Value] = []
    for place, value in enumerate(node.inputs):
        if place in matrices:
            inputs += _initialisers(model, layer, place, matrices[place], taken)
        elif value is not None:
            inputs.append(_settled(model, layer, place, value, taken))
    function = _function(model, layer, matrices)
    model.functions.setdefault(function.identifier(), function)
    kept = [out for out in node.outputs if out.name]
    outputs = [ir.Value(name=out.name, type=out.type, shape=out.shape) for out in kept]
    call = ir.Node(DOMAIN, function.name, inputs, outputs=outputs, name=layer.name)
    ir.convenience.replace_all_uses_with(kept, outputs, replace_graph_outputs=True)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_after(node, call)
    graph.remove(node, safe=True)
    remove_unused(value for value in old if value is not None)


def _settled(model: ir.Model, layer: Layer, place: int, value: ir.Value, taken: set[str]) -> ir.Value:
    """Return the operand, an initialiser in place of a weight that constant nodes compute: kernels need constants."""
    array = {W: layer.weights.w, BIAS: layer.weights.bias, PEEPHOLES: layer.weights.peepholes}.get(place)
    if array is None or value.producer() is None:
        return value
    return _initialiser(model, f"{layer.name}_{value.name}", array, taken)


def _initialisers(model: ir.Model, layer: Layer, place: int, coded: Coded, taken: set[str]) -> list[ir.Value]:
    """Enter gaps and values into the outermost graph, which all others see."""
    parts = zip(coded_names(place), (coded.gaps, coded.values), strict=True)
    return [_initialiser(model, f"{layer.name}_{name}", array, taken) for name, array in parts]


def _initialiser(model: ir.Model, base: str, array: Array, taken: set[str]) -> ir.Value:
    """Return an initialiser of the outermost graph, the one that holds the same if there is one."""
    tensor = ir.tensor(array)
    for value in model.graph.initializers.values():
        if not value.is_graph_input() and _holds(value, array):
            return value
    tensor.name = free_name(base, taken)
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
    value = ir.Value(name=tensor.name, type=kind, shape=shape, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _holds(value: ir.Value, array: Array) -> bool:
    held = value.const_value
    if held is None or (held.dtype.numpy(), tuple(held.shape)) != (array.dtype, array.shape):
        return False
    return held.tobytes() == array.tobytes()


def _function(model: ir.Model, layer: Layer, matrices: Mapping[int, Coded]) -> ir.Function:
    """Make the function: the node behind the decoders of its weights."""
    node = layer.node
    formals: list[ir.Value] = []
    nodes: list[ir.Node] = []
    taken: list[ir.Value | None] = []
    for place, value in enumerate(node.inputs):
        if place in matrices:
            gaps, values = (ir.Value(name=name) for name in coded_names(place))
            decoding, whole = decoder(gaps, values, matrices[place].shape)
            formals += [gaps, values]
            nodes += decoding
            taken.append(whole)
        elif value is None:
            taken.append(None)
        else:
            formals.append(ir.Value(name=f"i{place}"))
            taken.append(formals[-1])
    outputs = [ir.Value(name=f"o{i}" if out.name else "") for i, out in enumerate(node.outputs)]
    body = ir.Node("", node.op_type, taken, list(node.attributes.values()), outputs=outputs)
    opsets = {"": model.opset_imports.get("", 1)}
    graph = ir.Graph(formals, [out for out in outputs if out.name], nodes=[*nodes, body], opset_imports=opsets)
    function = ir.Function(DOMAIN, node.op_type, graph=graph, attributes=[])
    content = ir.serde.serialize_function(function).SerializeToString(deterministic=True)
    # A kernel is made for the weights of a function, so that layers of other weights need another name.
    for coded in matrices.values():
        content += coded.gaps.tobytes() + coded.values.tobytes()
    constants = (value.const_value for value in node.inputs if value is not None and value.const_value is not None)
    content += b"".join(one.tobytes() for one in constants)
    function.name = f"{node.op_type}_{hashlib.sha256(content).hexdigest()[:DIGITS]}"
    return function


def remove_unused(values: Iterable[ir.Value]) -> None:
    """Remove initialisers, and the nodes that made constants, that nothing needs any more."""
    pending = list(values)
    while pending:
        value = pending.pop()
        node = value.producer()
        if value.uses() or value.is_graph_output():
            continue
        if node is None:
            if value.graph is not None and value.name in value.graph.initializers:
                del value.graph.initializers[str(value.name)]
        elif node.graph is not None and not any(out.uses() or out.is_graph_output() for out in node.outputs):
            sources = [one for one in node.inputs if one is not None]
            node.graph.remove(node, safe=True)
            pending += sources
