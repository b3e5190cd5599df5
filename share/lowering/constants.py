"""The constants of a model: initialisers, which can be tuned and are known by name, and Constant nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sartor.share.errors import InputRefusedError

Constants = dict[ir.Value, "Constant"]


@dataclass(frozen=True)
class Constant:
    """A constant with its name; `tunable` means an initialiser of the model."""

    name: str
    content: ir.TensorProtocol
    tunable: bool

    @property
    def floating(self) -> bool:
        """Tell whether its elements are real numbers."""
        return self.content.dtype.is_floating_point()

    def numel(self) -> int:
        """Return the number of elements."""
        return self.content.size


def named_initializers(model: ir.Model) -> dict[str, ir.Value]:
    """Return the initialisers of the graph and of those nested in it by name; the later of two alike gets `#2`."""
    named: dict[str, ir.Value] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            name, count = str(value.name), 1
            while name in named:
                count += 1
                name = f"{value.name}#{count}"
            named[name] = value
    return named


def find_constants(model: ir.Model, initializers: dict[str, ir.Value]) -> Constants:
    """Return all constants of a model without functions; raises InputRefusedError where an initialiser is empty."""
    constants: Constants = {}
    for name, value in initializers.items():
        if value.const_value is None:
            raise InputRefusedError("the initialiser has no values", subject=name)
        constants[value] = Constant(name, value.const_value, True)
    for value, content in _others(model, set(initializers.values())):
        constants[value] = Constant(str(value.name), content, False)
    return constants


def _others(model: ir.Model, known: set[ir.Value]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield what Constant nodes hold, and initialisers that came with the body of a function."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value not in known and value.const_value is not None:
                yield value, value.const_value
        for node in graph:
            if is_constant(node):
                yield node.outputs[0], _content(node)


def is_constant(node: ir.Node) -> bool:
    """Tell whether a node is a dense Constant that is no string."""
    strings = {"sparse_value", "value_string", "value_strings"}
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and not strings & set(node.attributes)


def _content(node: ir.Node) -> ir.TensorProtocol:
    (attribute,) = node.attributes.values()
    if attribute.name == "value":
        return attribute.as_tensor()
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    return ir.Tensor(np.array(attribute.value, dtype=dtype))
