"""Names of values in a model."""

from __future__ import annotations

from itertools import chain, count

import onnx_ir as ir


def taken_names(model: ir.Model) -> set[str]:
    """Return the names of all values of all graphs."""
    return {
        str(value.name)
        for graph in model.graphs()
        for value in chain(graph.inputs, graph.initializers.values(), (out for node in graph for out in node.outputs))
    }


def free_name(base: str, taken: set[str]) -> str:
    """Return a name that nothing has, and take it."""
    name = next(free for free in chain([base], (f"{base}_{i}" for i in count(2))) if free not in taken)
    taken.add(name)
    return name
