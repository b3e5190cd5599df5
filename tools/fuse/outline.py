"""Outlining: some nodes of a graph become the body of a function, spelled so that equal bodies are equal bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sartor.share.runtime.calls import tensor_type as tensor_type
from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse.lower import constant_of
from sartor.tools.fuse.plan import DOMAIN
from sartor.tools.fuse.rules import RULES

SMALL = 64
"""Elements up to which a constant may be a parameter of an operator."""


@dataclass(frozen=True)
class Outline:
    """A function and the values of the graph that its inputs and outputs stand for."""

    function: ir.Function
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]


def constant_array(value: ir.Value) -> np.ndarray | None:
    """Return a small constant: an initialiser that is no graph input, or what a Constant node makes."""
    producer = value.producer()
    if producer is not None:
        return constant_of(producer) if producer.op_type == "Constant" and producer.domain in ("", "ai.onnx") else None
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or tensor.size > SMALL:
        return None
    return tensor.numpy()


def external_outputs(nodes: Sequence[ir.Node]) -> tuple[ir.Value, ...]:
    """List the values that somebody outside `nodes` needs."""
    inside = set(nodes)
    return tuple(
        out
        for node in nodes
        for out in node.outputs
        if out.is_graph_output() or any(use.node not in inside for use in out.uses())
    )


def outline(nodes: Sequence[ir.Node], opset: int) -> Outline:
    """Copy nodes, in topological order, into a function named after the hash of its body."""
    body = _Body(opset)
    for node in nodes:
        body.add(node)
    outputs = external_outputs(nodes)
    return Outline(body.function(outputs), tuple(body.inputs), outputs)


class _Body:
    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.inputs: list[ir.Value | None] = []
        self.nodes: list[ir.Node] = []
        self.inner: dict[ir.Value, ir.Value] = {}
        self.arguments: list[ir.Value] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self.spelling: list[str] = []

    def add(self, node: ir.Node) -> None:
        """Copy a node; constants that it needs at compile time come with it."""
        inputs = [self._operand(node, i) for i in range(len(node.inputs))]
        outputs = [ir.Value(name=f"v{len(self.nodes)}_{i}" if out.name else "") for i, out in enumerate(node.outputs)]
        # A zero in a target that we spelled keeps the size; allowzero would make it an empty axis.
        spelled = node.op_type == "Reshape" and _target(node) is not None
        attributes = [a for a in node.attributes.values() if not (spelled and a.name == "allowzero")]
        self.nodes.append(ir.Node("", node.op_type, inputs, attributes, outputs=outputs))
        self.inner.update(zip(node.outputs, outputs, strict=True))
        self.spelling.append(_spell(self.nodes[-1]))

    def function(self, outputs: tuple[ir.Value, ...]) -> ir.Function:
        """Make the function."""
        results = [self.inner[out] for out in outputs]
        self.spelling.append(f"{self.opset} {[str(v.name) for v in results]} {len(self.arguments)}")
        digest = hashlib.sha256("\n".join(self.spelling).encode()).hexdigest()[:12]
        graph = ir.Graph(self.arguments, results, nodes=self.nodes, opset_imports={"": self.opset}, name=f"g_{digest}")
        return ir.Function(DOMAIN, f"g_{digest}", graph=graph, attributes=[])

    def _operand(self, node: ir.Node, index: int) -> ir.Value | None:
        value = node.inputs[index]
        if value is None or value in self.inner:
            return None if value is None else self.inner[value]
        array = _target(node) if index == 1 and node.op_type in ("Reshape", "Expand") else None
        if array is None:
            array = constant_array(value)
            rule = RULES.get(node.op_type)
            parameter = rule is not None and index in rule.parameters
            if array is not None and array.size != 1 and not parameter:
                array = None
        if array is not None:
            return self._constant(array)
        inner = ir.Value(name=f"x{len(self.arguments)}")
        self.arguments.append(inner)
        self.inputs.append(value)
        self.inner[value] = inner
        return inner

    def _constant(self, array: np.ndarray) -> ir.Value:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.constants:
            out = ir.Value(name=f"v{len(self.nodes)}_0")
            tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape))
            self.nodes.append(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[out]))
            self.spelling.append(f"{out.name} = Constant {key[0]} {key[1]} {key[2].hex()}")
            self.constants[key] = out
        return self.constants[key]


def _target(node: ir.Node) -> np.ndarray | None:
    """Spell a computed target shape as a constant, where inference knows all of it that matters."""
    known, source = tensor_type(node.outputs[0]), node.inputs[0]
    have = None if source is None else tensor_type(source)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if known is None or have is None or given is None or constant_array(given) is not None:
        return None
    if 0 in known.shape:
        return None
    named = [i for i, dim in enumerate(known.shape) if not isinstance(dim, int)]
    if node.op_type == "Expand":
        return _expansion(known, have)
    kept = [i for i in named if i < have.rank and known.shape[i] is not None and have.shape[i] == known.shape[i]]
    free = [i for i in named if i not in kept]
    if len(free) > 1:
        return None
    sizes = [0 if i in kept else -1 if i in free else dim for i, dim in enumerate(known.shape)]
    return np.array(sizes, np.int64)


def _expansion(known: TensorType, have: TensorType) -> np.ndarray | None:
    """Expand leaves an axis alone where it is asked for size 1."""
    offset = known.rank - have.rank
    sizes = []
    for i, dim in enumerate(known.shape):
        same = i >= offset and have.shape[i - offset] == dim and dim is not None
        if not isinstance(dim, int) and not same:
            return None
        sizes.append(1 if same else dim)
    return np.array(sizes, np.int64)


def _spell(node: ir.Node) -> str:
    """Write a node as text that says everything about it but its name."""
    attributes = [f"{name}={_attribute(attr)}" for name, attr in sorted(node.attributes.items())]
    inputs = ["" if value is None else str(value.name) for value in node.inputs]
    return f"{[str(out.name) for out in node.outputs]} = {node.op_type} {inputs} {attributes}"


def _attribute(attribute: ir.Attr) -> str:
    value = attribute.value
    if isinstance(value, ir.TensorProtocol):
        return f"{value.dtype} {tuple(value.shape)} {value.tobytes().hex()}"
    return repr(list(value) if isinstance(value, (list, tuple)) else value)
