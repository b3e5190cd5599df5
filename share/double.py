"""The float64 twin of an ONNX model, in onnx's reference implementation: what results would be without rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

NARROW = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})
"""Element types that become float64."""

_DOUBLE = onnx.TensorProto.DOUBLE
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})


class GlobalMaxPool(OpRun):
    """Global pooling that keeps its axes, as the standard says; onnx's own drops one of a sequence's."""

    op_domain = ""

    def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any]]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


@dataclass(frozen=True)
class Twin:
    """A model in float64 with its functions inlined and its types known, ready to be evaluated."""

    model: onnx.ModelProto
    evaluator: ReferenceEvaluator


def run_double(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a model whose every float32 and float16 is a float64; raises what the reference implementation does."""
    return run_twin(twin_of(model), feed)


def twin_of(model: onnx.ModelProto) -> Twin:
    """Prepare the float64 twin of a model; raises what the reference implementation does."""
    # Operators that the standard defines by others, such as Gelu, are evaluated only where types are known.
    return _twin(onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(widened(model))))


def run_twin(twin: Twin, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a twin on inputs of the original types."""
    wide = {
        name: array.astype(np.float64) if array.dtype.name in ("float16", "float32") else array
        for name, array in feed.items()
    }
    # Infinities and NaN are results like any other.
    with np.errstate(all="ignore"):
        return list(twin.evaluator.run(None, wide))


def shaken(twin: Twin, relative: float, seed: Sequence[int]) -> Twin:
    """Return a twin in which every float64 tensor that a node makes is off by a random factor up to 1 +- `relative`.

    How much the outputs change tells how far roundings in between may carry, whatever the order of operations.
    """
    model, generator = onnx.ModelProto(), np.random.default_rng(list(seed))
    model.CopyFrom(twin.model)
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        made = [i for i, name in enumerate(node.output) if types.get(name) == _DOUBLE and node.op_type != "Constant"]
        model.graph.node.append(node)
        for i in made:
            name, factor = node.output[i], np.array(1 + relative * generator.uniform(-1, 1))
            model.graph.node[-1 - made.index(i)].output[i] = f"{name}/exact"
            model.graph.initializer.append(numpy_helper.from_array(factor, f"{name}/factor"))
            model.graph.node.append(onnx.helper.make_node("Mul", [f"{name}/exact", f"{name}/factor"], [name]))
    return _twin(model)


def _twin(model: onnx.ModelProto) -> Twin:
    return Twin(model, ReferenceEvaluator(model, new_ops=[GlobalMaxPool]))


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model, its functions included, in which float64 takes the place of narrower types."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _widen_graph(copy.graph)
    for function in copy.functions:
        del function.value_info[:]
        _widen_nodes(function.node)
    return copy


def _widen_graph(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = _DOUBLE
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
        for attribute in node.attribute:
            _widen_attribute(attribute, node.op_type)


def _widen_attribute(attribute: onnx.AttributeProto, operator: str) -> None:
    if attribute.HasField("t"):
        _widen_tensor(attribute.t)
    if attribute.HasField("g"):
        _widen_graph(attribute.g)
    if attribute.name in _TYPE_ATTRIBUTES and attribute.i in NARROW:
        attribute.i = _DOUBLE
    if operator == "Constant" and attribute.name in ("value_float", "value_floats"):
        numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        tensor = numpy_helper.from_array(np.asarray(numbers, np.float64))
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
