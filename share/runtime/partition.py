"""Cut a graph into stock segments and kernel calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from sartor.share.runtime.calls import tensor_type
from sartor.share.runtime.kernel import Kernel, TensorType
from sartor.share.shapes import infer_shapes

_PORTABLE = frozenset(
    {
        *(ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    }
)
"""The element types that onnxruntime exchanges as numpy arrays."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Neighbouring nodes as a model of their own."""

    model: ir.Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class KernelCall:
    """A call of the first of these kernels that fits; an absent optional input is None."""

    kernels: tuple[Kernel, ...]
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]


Step = Segment | KernelCall


@dataclass(frozen=True)
class Partition:
    """The steps in order, and the constants that are read outside of segments."""

    steps: tuple[Step, ...]
    constants: tuple[tuple[str, ir.TensorProtocol], ...]
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]


def partition(model: ir.Model, kernels: tuple[Kernel, ...]) -> Partition | None:
    """Cut a model so that its kernels run between stock segments; None where a value between two is no array."""
    typed = model.clone()
    by_name: dict[tuple[str, str], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        by_name[kernel.domain, kernel.name].append(kernel)
    levels = _levels(typed.graph, set(by_name))
    exposed = _exposed(typed.graph, levels)
    if not all(map(tensor_type, exposed)):
        infer_shapes(typed)
    if not all(map(_is_portable, exposed)):
        return None
    steps = tuple(_steps(typed, levels, exposed, by_name))
    inputs = [value for value in typed.graph.inputs if value.name not in typed.graph.initializers]
    return Partition(steps, _constants(typed.graph, exposed), _named(inputs), _named(typed.graph.outputs))


def _constants(graph: ir.Graph, exposed: Iterable[ir.Value]) -> tuple[tuple[str, ir.TensorProtocol], ...]:
    """Return the initializers among the exposed values."""
    stored = (value for value in exposed if value.name in graph.initializers)
    return tuple((_name(value), value.const_value) for value in stored if value.const_value is not None)


def _named(values: Iterable[ir.Value]) -> tuple[tuple[str, TensorType], ...]:
    """Return names and types."""
    return tuple((_name(value), type_) for value in values if (type_ := tensor_type(value)) is not None)


def _is_portable(value: ir.Value) -> bool:
    """Tell whether a value can pass as a numpy array."""
    type_ = tensor_type(value)
    return type_ is not None and type_.dtype in _PORTABLE


def _name(value: ir.Value) -> str:
    """Return the name of a value that has one."""
    assert value.name is not None
    return value.name


def _levels(graph: ir.Graph, kernels: set[tuple[str, str]]) -> dict[ir.Node, int]:
    """Number the steps: even ones are stock, odd ones kernels, each as early as what it reads allows."""
    levels: dict[ir.Node, int] = {}
    for node in graph:
        parity = int((node.domain, node.op_type) in kernels)
        before = [levels[producer] for value in _reads(node, graph) if (producer := value.producer()) is not None]
        latest = max(before, default=0)
        levels[node] = latest + (latest % 2 != parity)
    return levels


def _reads(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values of the graph that a node or the graphs nested in it read."""
    yield from (value for value in node.inputs if value is not None)
    for inner in _nested(node):
        used = [value for inside in inner.all_nodes() for value in inside.inputs] + list(inner.outputs)
        yield from (value for value in used if value is not None and _lies_in(value, graph))


def _nested(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that a node holds."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _lies_in(value: ir.Value, graph: ir.Graph) -> bool:
    """Tell whether a value belongs to a graph and not to one nested in it."""
    producer = value.producer()
    return value.graph is graph if producer is None else producer.graph is graph


def _exposed(graph: ir.Graph, levels: dict[ir.Node, int]) -> dict[ir.Value, None]:
    """Return, in order, the values that pass between steps or through the graph's own inputs and outputs."""
    exposed = dict.fromkeys(value for value in graph.inputs if value.name not in graph.initializers)
    for node, level in levels.items():
        for value in _reads(node, graph):
            producer = value.producer()
            crosses = producer is not None and levels[producer] != level
            if crosses or level % 2 == 1:
                exposed[value] = None
        if level % 2 == 1:
            exposed.update(dict.fromkeys(node.outputs))
    return exposed | dict.fromkeys(graph.outputs)


def _steps(
    model: ir.Model,
    levels: dict[ir.Node, int],
    exposed: dict[ir.Value, None],
    kernels: dict[tuple[str, str], list[Kernel]],
) -> Iterator[Step]:
    """Yield the steps in order."""
    by_level: dict[int, list[ir.Node]] = defaultdict(list)
    for node, level in levels.items():
        by_level[level].append(node)
    for level in sorted(by_level):
        if level % 2 == 0:
            segment = _segment(model, by_level[level], exposed)
            yield from () if segment is None else (segment,)
        else:
            yield from (_kernel_call(node, kernels[node.domain, node.op_type]) for node in by_level[level])


def _kernel_call(node: ir.Node, kernels: list[Kernel]) -> KernelCall:
    """Return the call that a node stands for."""
    names = tuple(None if value is None else _name(value) for value in node.inputs)
    padding = (None,) * (len(kernels[0].inputs) - len(names))
    return KernelCall(tuple(kernels), names + padding, tuple(map(_name, node.outputs)))


def _segment(model: ir.Model, nodes: list[ir.Node], exposed: dict[ir.Value, None]) -> Segment | None:
    """Return nodes as a model of their own, or None if nobody reads what they compute."""
    graph = model.graph
    made = {value for node in nodes for value in node.outputs}
    reads = dict.fromkeys(value for node in nodes for value in _reads(node, graph) if value not in made)
    constants = [value for value in reads if value.name in graph.initializers]
    inputs = [value for value in reads if value.name not in graph.initializers]
    outputs = [value for value in exposed if value in made]
    if not outputs:
        return None
    view = ir.GraphView(
        inputs, outputs, nodes=nodes, initializers=constants, opset_imports=graph.opset_imports, name=graph.name
    )
    part = ir.Model(view.clone(), ir_version=model.ir_version, functions=tuple(model.functions.values()))
    return Segment(part, tuple(map(_name, inputs)), tuple(map(_name, outputs)))
