"""The float64 twin of an ONNX model, for reference values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


class GlobalMaxPool(OpRun):
    """Global pooling that keeps its axes, as the standard says; onnx's own drops one of a sequence's."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


def run_double(path: str, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model whose every float32 is a float64 in onnx's reference implementation."""
    model = onnx.load(path)
    _widen(model.graph)
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feed.items()}
    outputs: list[np.ndarray] = ReferenceEvaluator(model, new_ops=[GlobalMaxPool]).run(None, wide)
    return outputs


def _widen(graph: onnx.GraphProto) -> None:
    """Replace float32 by float64 in a graph and the graphs inside it, in place."""
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = DOUBLE
    for attribute in _attributes(graph):
        if attribute.HasField("t"):
            _widen_tensor(attribute.t)
        if attribute.HasField("g"):
            _widen(attribute.g)
        if attribute.name in ("to", "dtype") and attribute.i == FLOAT:
            attribute.i = DOUBLE


def _attributes(graph: onnx.GraphProto) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        yield from node.attribute


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
